//! `fastflow explain`: why does a photo score as it does?

use std::path::PathBuf;

use anyhow::bail;
use candle_fastflow::{
    detector::{Noise, ScaleExplanation, UnlikePhotos},
    files,
    imaging::{self, Reading},
    report,
};

use super::{Outcome, common};

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow explain my-detector photo.png --out photo.html")]
pub struct Args {
    #[command(flatten)]
    detector: common::DetectorArgs,
    /// The photo
    image: PathBuf,
    /// The page to write: features, latents, likelihood and evidence at every scale
    #[arg(long, short, value_name = "FILE.html")]
    out: PathBuf,
    /// Region of the photo, in pixels, whose latents get noise; the middle by default
    #[arg(long, value_name = "LEFT,TOP,WIDTH,HEIGHT", value_delimiter = ',')]
    region: Option<Vec<f64>>,
    /// Standard deviation of that noise; latents of normal features have 1
    #[arg(long, value_name = "D", default_value_t = 3.0)]
    noise: f32,
    /// The seed of the noise
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: common::Compute,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    common::make_room("--out", &args.out)?;
    let device = args.compute.start()?;
    let detector = args.detector.load(&device)?;
    let reading = detector.config().preprocessing.reading(Reading::default());
    let seen = imaging::decode_as(&args.image, &reading)?;
    let mut unlike = UnlikePhotos::default();
    unlike.add(
        || args.image.display().to_string(),
        detector.unlike(&seen).as_ref(),
    );
    common::tell(unlike.notes(&detector.config().preprocessing));
    let image = seen.image;
    let visible = detector
        .config()
        .preprocessing
        .visible(image.width(), image.height());
    let noise = Noise {
        region: region(args.region.as_deref(), visible)?,
        deviation: args.noise,
        seed: args.seed,
    };
    let scales = detector.explain(&image, &noise)?;
    let prediction = detector.predict(&image)?;
    let calibration = detector.config().calibration.as_ref();
    let heat = report::heat_map(&image, &prediction.map, calibration)?;
    let title = format!("{}, {}", args.image.display(), detector.config().name);
    let page = report::explanation_page(&title, (&image, &heat), &prediction, &noise, &scales)?;
    files::write_bytes(&args.out, page.as_bytes())?;
    if args.json {
        let scales: Vec<_> = scales.iter().map(summary).collect();
        let mut object = serde_json::json!({ "score": prediction.score, "scales": scales });
        common::put_path(&mut object, "image", &args.image);
        common::put_path(&mut object, "page", &args.out);
        common::print_line(object)?;
    } else {
        common::print_line(format!(
            "score {:.4}, explained in {}",
            prediction.score,
            args.out.display()
        ))?;
    }
    Ok(Outcome::Done)
}

/// The region as shares of what the network sees of the photo.
fn region(pixels: Option<&[f64]>, visible: [f64; 4]) -> anyhow::Result<[f64; 4]> {
    let [left, top, width, height] = visible;
    match pixels {
        None => Ok([0.375, 0.375, 0.25, 0.25]),
        Some(&[x, y, w, h]) => {
            let region = [
                (x - left) / width,
                (y - top) / height,
                w / width,
                h / height,
            ];
            let inside =
                |from: f64, length: f64| from >= 0.0 && length > 0.0 && from + length <= 1.0;
            if !inside(region[0], region[2]) || !inside(region[1], region[3]) {
                bail!(
                    "--region {x},{y},{w},{h} is not inside what the network sees of the photo: {width:.0} x {height:.0} pixels from {left:.0},{top:.0}"
                );
            }
            Ok(region)
        }
        Some(_) => bail!("--region needs four numbers: LEFT,TOP,WIDTH,HEIGHT in pixels"),
    }
}

fn summary(scale: &ScaleExplanation) -> serde_json::Value {
    let highest = |values: &[f32]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    serde_json::json!({
        "width": scale.features.width, "height": scale.features.height, "untypical": scale.untypical,
        "highest_likelihood": highest(&scale.likelihood.values),
        "highest_residual": highest(&scale.residual.values),
        "highest_disturbed": highest(&scale.disturbed.values),
    })
}
