//! Inspect photos with a detector and write heat-map overlays.
//!
//! ```text
//! cargo run --example infer                                             # bundled detector and photos
//! cargo run --example infer -- --detector my-detector photo.png ...     # your own
//! cargo run --example infer -- --detector bottle photo.png ...          # one from the Hub
//! ```

use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_fastflow::{
    detector::{Detector, LoadOptions, Verdict},
    imaging, report,
};
use clap::Parser;
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};

#[derive(Parser)]
#[command(about = "Inspect photos with a FastFlow detector")]
struct Args {
    /// A detector's folder or its name on the Hub; the bundled one by default
    #[arg(long, value_name = "NAME_OR_FOLDER")]
    detector: Option<String>,
    /// Weights of the detector's backbone, if it needs any
    #[arg(long, value_name = "FILE")]
    backbone_weights: Option<PathBuf>,
    /// Where overlays go
    #[arg(long, value_name = "DIR", default_value = "fastflow-out")]
    out: PathBuf,
    /// Photos or folders of photos; the bundled ones by default
    images: Vec<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let bundled_detector = || bundled.join("fabric-detector").display().to_string();
    let name = args.detector.unwrap_or_else(bundled_detector);
    let images = if args.images.is_empty() {
        vec![bundled.join("images")]
    } else {
        args.images
    };

    let options = LoadOptions {
        backbone_weights: args.backbone_weights,
        ..Default::default()
    };
    let detector = Detector::from_pretrained(&name, &options)?;
    let reading = detector.config().preprocessing.reading(Default::default());
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;

    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY)
        .set_header(["image", "score", "verdict"]);
    for path in photos(&images)? {
        let image = imaging::decode_as(&path, &reading)?.image;
        let prediction = detector.predict(&image)?;
        let verdict = match prediction.verdict {
            Some(Verdict::Defective) => "DEFECTIVE",
            Some(Verdict::Ok) => "ok",
            None => "-",
        };
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        table.add_row([&name, &format!("{:.4}", prediction.score), verdict]);

        let calibration = detector.config().calibration.as_ref();
        let overlay = report::heat_map(&image, &prediction.map, calibration)?;
        imaging::save_overlay(&args.out.join(format!("{name}.png")), &overlay)?;
    }
    println!("{table}\nheat maps are in {}", args.out.display());
    Ok(())
}

/// The named files and those in the named folders.
fn photos(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            all.extend(imaging::list_images(path)?);
        } else {
            all.push(path.clone());
        }
    }
    Ok(all)
}
