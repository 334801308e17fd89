//! `fastflow calibrate`: thresholds of a detector from good photos of this line, without training.

use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_fastflow::{
    datasets::{self, Dataset},
    detector::{CONFIG_FILE, Calibration, MODEL_FILE},
    training::{Settings, outliers_note, photos_for, recalibrate},
};
use serde_json::json;

use super::{Outcome, common};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fastflow calibrate my-detector --normals good-photos-of-today/\n  \
    fastflow calibrate bottle --normals good-photos/ --false-alarm-rate 0.02 --out bottle-line-3\n\n\
    The photos must be good ones that the detector was not trained on.")]
pub struct Args {
    #[command(flatten)]
    detector: common::DetectorArgs,
    /// Folder of photos of good products
    #[arg(long, value_name = "DIR")]
    normals: PathBuf,
    /// Share of good products that may be called defective
    #[arg(long, value_name = "RATE", default_value_t = Settings::FALSE_ALARM_RATE)]
    false_alarm_rate: f64,
    /// Where the calibrated detector goes; a detector's own folder by default
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    photos: common::PhotoArgs,
    #[command(flatten)]
    compute: common::Compute,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let out = target(&args)?;
    let device = args.compute.start()?;
    let dataset = normals(&args)?;
    let mut detector = args.detector.load(&device)?;
    args.photos.turn(&mut detector)?;
    let before = detector.config().calibration.as_ref().map(|c| c.threshold);
    let bar = super::progress::counter(args.json, "scoring", dataset.train.len());
    let calibration = recalibrate(&detector, &dataset, args.false_alarm_rate, &mut |done| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if let Some(note) = outliers_note(&calibration) {
        eprintln!("{note}");
    }
    detector.set_calibration(calibration.clone())?;
    detector.save(&out)?;
    report(&args, &calibration, before, &out)?;
    Ok(Outcome::Done)
}

/// The folder that is written: a detector from the Hub is not changed where it lies.
fn target(args: &Args) -> anyhow::Result<PathBuf> {
    let own = Path::new(args.detector.name());
    match &args.out {
        Some(out) if out != own && out.join(CONFIG_FILE).exists() => bail!(
            "{}: holds a detector already; name another folder for --out",
            out.display()
        ),
        Some(out) => {
            if out != own {
                common::keep_others("--out", [out.join(MODEL_FILE).as_path()])?;
            }
            Ok(out.clone())
        }
        None if own.join(CONFIG_FILE).is_file() => Ok(own.to_path_buf()),
        None => bail!(
            "{} is no folder here that could be changed; say with --out where the calibrated detector goes",
            own.display()
        ),
    }
}

/// All photos in the folder that are good ones.
fn normals(args: &Args) -> anyhow::Result<Dataset> {
    let dataset = datasets::open(&args.normals)?;
    common::tell_unread(std::slice::from_ref(&dataset.root));
    if dataset.test.iter().any(|photo| photo.is_defective()) {
        bail!(
            "{}: holds defective photos too; name a folder of good ones",
            args.normals.display()
        );
    }
    let mut dataset = dataset.read_as(args.photos.reading());
    let good = std::mem::take(&mut dataset.test);
    dataset.train.extend(good);
    Ok(dataset)
}

fn report(
    args: &Args,
    calibration: &Calibration,
    before: Option<f32>,
    out: &Path,
) -> anyhow::Result<()> {
    let photos = calibration.normal_scores.len();
    let needed = photos_for(args.false_alarm_rate);
    if args.json {
        let mut object = json!({
            "photos": photos, "threshold": calibration.threshold, "threshold_before": before,
            "false_alarm_rate": calibration.false_alarm_rate, "photos_needed": needed,
        });
        common::put_path(&mut object, "out", out);
        return common::print_line(object);
    }
    let before = before.map_or_else(String::new, |before| format!(", before {before:.4}"));
    common::print_line(format!(
        "threshold      {:.4}{before}   (about {:.1} % of good products score above it)",
        calibration.threshold,
        100.0 * calibration.false_alarm_rate
    ))?;
    if photos < needed {
        common::print_line(format!(
            "{photos} photos cannot promise {:.1} %: that takes {needed}",
            100.0 * args.false_alarm_rate
        ))?;
    }
    common::print_line(format!("saved to       {}", out.display()))
}
