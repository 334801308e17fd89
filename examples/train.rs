//! Train a detector on a folder of photos of good products, with the backbone that needs no weights.
//!
//! ```text
//! cargo run --example train -- photos/ my-detector
//! ```

use std::path::PathBuf;

use candle_core::Device;
use candle_fastflow::{
    backbones, datasets,
    detector::BackboneRecord,
    training::{EpochRecord, Origin, Progress, Settings, Trainer},
};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Photos of good products
    data: PathBuf,
    /// Where the detector goes
    out: PathBuf,
    /// Passes over the photos
    #[arg(long, default_value_t = 10)]
    epochs: usize,
}

/// Prints a line an epoch; every method of `Progress` is optional.
struct Lines;

impl Progress for Lines {
    fn epoch(&mut self, record: &EpochRecord, epochs: usize) {
        println!(
            "epoch {}/{epochs}: held out {:.4}",
            record.epoch, record.held_out_nll
        );
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = Device::Cpu;
    let dataset = datasets::open(&args.data)?;
    let backbone = backbones::load("wavelet", None, &device)?;
    let record = BackboneRecord::embedded("wavelet");

    let settings = Settings {
        epochs: Some(args.epochs),
        ..Settings::default()
    };
    let config = settings.resolve("wavelet", 0)?;
    let trained = Trainer::new(config, device)?.fit(
        &dataset,
        Origin::Scratch { backbone, record },
        &args.out,
        false,
        &mut Lines,
    )?;
    let calibration = trained.detector.config().calibration.as_ref();
    println!(
        "saved to {}; threshold {:?}",
        args.out.display(),
        calibration.map(|c| c.threshold)
    );
    Ok(())
}
