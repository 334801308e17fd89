//! Adapt a detector to your own product: its flow goes on learning on your photos of good parts.
//!
//! ```text
//! cargo run --example finetune -- --from examples/fabric-detector photos/ adapted
//! ```

use std::path::PathBuf;

use candle_core::Device;
use candle_fastflow::{
    datasets,
    detector::{Detector, LoadOptions},
    training::{Origin, Settings, Silent, Trainer},
};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// The detector to start from
    #[arg(long, value_name = "DETECTOR")]
    from: PathBuf,
    /// Weights of its backbone, if it needs any
    #[arg(long, value_name = "FILE")]
    backbone_weights: Option<PathBuf>,
    /// Photos of good products
    data: PathBuf,
    /// Where the adapted detector goes
    out: PathBuf,
    /// Passes over the photos
    #[arg(long, default_value_t = 4)]
    epochs: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = LoadOptions {
        backbone_weights: args.backbone_weights,
        ..Default::default()
    };
    let parent = Detector::from_pretrained(&args.from.to_string_lossy(), &options)?;
    let dataset = datasets::open(&args.data)?;

    let settings = Settings {
        epochs: Some(args.epochs),
        ..Settings::default()
    };
    let config = settings.adapt(parent.config(), 0)?;
    let origin = Origin::Parent {
        detector: Box::new(parent),
        name: args.from.display().to_string(),
    };
    let trained =
        Trainer::new(config, Device::Cpu)?.fit(&dataset, origin, &args.out, false, &mut Silent)?;

    if let Some(last) = trained.history.last() {
        println!(
            "held-out negative log-likelihood: {:.4} nats a value",
            last.held_out_nll
        );
    }
    println!("saved to {}", args.out.display());
    Ok(())
}
