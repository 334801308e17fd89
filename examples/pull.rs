//! Download a detector from the Hugging Face Hub by its name and say what it is.
//!
//! ```text
//! cargo run --example pull -- bottle
//! cargo run --example pull -- bottle@cait --to bottle-detector     # a folder for a machine without network
//! ```

use std::path::PathBuf;

use candle_fastflow::{
    detector::read_config,
    hub::{Event, Hub},
};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// bottle, bottle@cait, bottle@resnet18-patchcore, org/repo or org/repo@revision
    name: String,
    /// Make a folder with everything in it, the backbone's weights too
    #[arg(long)]
    to: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // HF_TOKEN, HF_ENDPOINT, HF_HUB_CACHE and the rest are read here, as Python's client reads them.
    let hub = Hub::from_environment()?;
    let progress = |event: Event<'_>| match event {
        Event::Downloaded { file } => println!("verified {file}"),
        Event::Notice(text) => println!("{text}"),
        _ => {}
    };
    let folder = match args.to {
        Some(to) => {
            hub.pull_to(&args.name, &to, None, &progress)?;
            to
        }
        None => hub.fetch_detector(&args.name, &progress)?,
    };
    let config = read_config(&folder)?;
    println!(
        "{}: {} on {}",
        folder.display(),
        config.name,
        config.backbone.id
    );
    for (metric, value) in &config.metrics {
        println!("  {metric} {value:.4}");
    }
    Ok(())
}
