//! Check a detector, show what would be uploaded, and with `--yes` publish it (token from HF_TOKEN).
//!
//! ```text
//! cargo run --example publish -- my-detector --repo me/fastflow-wavelet-fabric --yes
//! ```

use std::path::PathBuf;

use candle_fastflow::hub::{DatasetFacts, Hub, PublishOptions, RepoId};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// The detector's folder
    detector: PathBuf,
    /// Where it goes, org/name
    #[arg(long)]
    repo: String,
    /// The data set it was trained on, for its card
    #[arg(long)]
    dataset: Option<String>,
    /// Upload
    #[arg(long)]
    yes: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let hub = Hub::from_environment()?;
    let options = PublishOptions {
        repo: Some(RepoId::parse(&args.repo)?),
        dataset: args.dataset.as_deref().map(DatasetFacts::named),
        ..Default::default()
    };
    // Loads the detector, scores a test pattern, writes the card.
    let staged = hub.stage(&args.detector, &options, &|_| ())?;
    for file in &staged.files {
        println!("{} ({} bytes)", file.name, file.bytes);
    }
    if args.yes {
        // One commit, downloaded again and compared.
        let published = hub.upload(&staged, &options, &|_| ())?;
        println!("{}", published.url);
    }
    Ok(())
}
