//! `fastflow infer`: look at photos.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use candle_fastflow::{
    Error,
    detector::{Detector, Prediction, Unlike, UnlikePhotos, Verdict, looks_drifted},
    files::raw_bytes,
    imaging::{self, Reading, Seen, Unread},
    report,
};
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

use super::{Outcome, advice::said, common};

#[derive(clap::Args)]
#[command(
    after_help = "Example: fastflow infer my-detector new-photos/ --out overlays --fail-on-anomaly"
)]
pub struct Args {
    #[command(flatten)]
    detector: common::DetectorArgs,
    /// Photos, or folders of photos
    #[arg(required = true, value_name = "IMAGE_OR_DIR")]
    images: Vec<PathBuf>,
    /// Write heat-map overlays here; only files that this program wrote are replaced
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One JSON line an image
    #[arg(long)]
    json: bool,
    /// Exit with 1 if an image is defective
    #[arg(long)]
    fail_on_anomaly: bool,
    /// Call an image defective above this score (`score` of --json) instead of the calibrated threshold, which stands at
    /// 0.5 of what is printed without --json
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    threshold: Option<f32>,
    #[command(flatten)]
    photos: common::PhotoArgs,
    #[command(flatten)]
    compute: common::Compute,
}

/// One line of `--json`; the bytes of names that are no UTF-8 beside them.
#[derive(Serialize)]
struct Line<'a> {
    image: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_bytes: Option<String>,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    scaled: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlike: Option<Unlike>,
}

/// What was found in a photo, where its overlay was written, and in what it is unlike the training photos.
type Inspected = (Prediction, Option<PathBuf>, Option<Unlike>);

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let device = args.compute.start()?;
    let (images, unread) = collect(&args.images)?;
    let overlays = report::overlay_names(&images);
    if let Some(out) = &args.out {
        // Before anything is computed: one of these may be a photo of the user's.
        if out.exists() && !out.is_dir() {
            bail!("--out {}: is a file; name a folder", out.display());
        }
        let overlays: Vec<PathBuf> = overlays.iter().map(|name| out.join(name)).collect();
        common::keep_others("--out", overlays.iter().map(PathBuf::as_path))?;
    }
    common::tell(unread.notes());
    let mut detector = args.detector.load(&device)?;
    args.photos.turn(&mut detector)?;
    let reading = detector
        .config()
        .preprocessing
        .reading(args.photos.reading());
    if let Some(threshold) = args.threshold {
        detector.set_threshold(threshold).context("--threshold")?;
    }
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).map_err(Error::io(out))?;
    }
    let bar = super::progress::counter(args.json || images.len() == 1, "inspecting", images.len());
    let (mut defective, mut failed) = (0, 0);
    let (mut all_unlike, mut scores) = (UnlikePhotos::default(), Vec::new());
    let jobs: Vec<(&PathBuf, &PathBuf)> = images.iter().zip(&overlays).collect();
    for chunk in jobs.chunks(detector.batch_size()) {
        let results = inspect(&detector, chunk, &reading, args.out.as_deref());
        for ((image, _), result) in chunk.iter().zip(results) {
            match result {
                Ok((prediction, overlay, unlike)) => {
                    scores.push(prediction.score);
                    all_unlike.add(|| image.display().to_string(), unlike.as_ref());
                    defective += usize::from(prediction.verdict == Some(Verdict::Defective));
                    bar.suspend(|| show(&args, image, &prediction, overlay, unlike))?;
                }
                Err(error) if images.len() == 1 => return Err(error.into()),
                Err(error) => {
                    failed += 1;
                    bar.suspend(|| eprintln!("error: {}", said(&error)));
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    tell(&args, &detector, &all_unlike, &scores);
    summary(&args, images.len(), defective, failed)?;
    let lost = unread.lost_photos().len();
    failed += lost;
    if failed > 0 {
        let all = images.len() + lost;
        bail!("{failed} of {all} images could not be inspected");
    }
    let found = args.fail_on_anomaly && defective > 0;
    Ok(if found {
        Outcome::AnomalyFound
    } else {
        Outcome::Done
    })
}

/// What is to be said of all photos together.
fn tell(args: &Args, detector: &Detector, unlike: &UnlikePhotos, scores: &[f32]) {
    common::tell(unlike.notes(&detector.config().preprocessing));
    let calibrated = detector.config().calibration.as_ref().map(|c| c.threshold);
    let Some(threshold) = args.threshold.or(calibrated) else {
        return;
    };
    if looks_drifted(scores, threshold) {
        let above = scores.iter().filter(|score| **score > threshold).count();
        eprintln!(
            "note: {above} of {} photos score above the threshold, though all scores form one group: it may be the photos \
             that have changed (light, camera, day); `fastflow calibrate {} --normals DIR` sets the threshold from good \
             photos of today",
            scores.len(),
            args.detector.name()
        );
    }
}

/// The named images and those in the named folders, in order, and what was passed over: overlays of an earlier run too.
fn collect(paths: &[PathBuf]) -> anyhow::Result<(Vec<PathBuf>, Unread)> {
    let (mut images, mut unread) = (Vec::new(), Unread::default());
    for path in paths {
        if path.is_dir() {
            let (found, more) = imaging::survey(path)?;
            if found.is_empty() {
                let found: Vec<String> = more.notes();
                let also = if found.is_empty() { "" } else { "; " };
                let found = found.join("; ");
                bail!("{}: no images in this folder{also}{found}", path.display());
            }
            images.extend(found);
            unread.add(more);
        } else if imaging::is_overlay(path) {
            unread.add(Unread::of_overlay(path.clone()));
        } else {
            images.push(path.clone());
        }
    }
    if images.is_empty() {
        bail!("no photo to inspect: {unread}");
    }
    Ok((images, unread))
}

/// What is found in each photo.
fn inspect(
    detector: &Detector,
    jobs: &[(&PathBuf, &PathBuf)],
    reading: &Reading,
    out: Option<&Path>,
) -> Vec<candle_fastflow::Result<Inspected>> {
    let found = detector.predict_each(jobs.len(), |index| {
        imaging::decode_as(jobs[index].0, reading)
    });
    let written = |((_, overlay), found): (&(&PathBuf, &PathBuf), candle_fastflow::Result<_>)| {
        let (seen, prediction): (Seen, _) = found?;
        let written = match out {
            Some(out) => {
                let path = out.join(overlay);
                Some(write_overlay(detector, &seen.image, &prediction, path)?)
            }
            None => None,
        };
        Ok((prediction, written, detector.unlike(&seen)))
    };
    jobs.par_iter().zip(found).map(written).collect()
}

fn write_overlay(
    detector: &Detector,
    image: &RgbImage,
    prediction: &Prediction,
    path: PathBuf,
) -> candle_fastflow::Result<PathBuf> {
    let overlay = report::heat_map(
        image,
        &prediction.map,
        detector.config().calibration.as_ref(),
    )?;
    imaging::save_overlay(&path, &overlay)?;
    Ok(path)
}

fn show(
    args: &Args,
    image: &Path,
    prediction: &Prediction,
    overlay: Option<PathBuf>,
    unlike: Option<Unlike>,
) -> anyhow::Result<()> {
    let Prediction {
        score,
        scaled,
        verdict,
        ..
    } = *prediction;
    if args.json {
        let line = Line {
            image: image.to_string_lossy(),
            image_bytes: raw_bytes(image),
            score,
            scaled,
            verdict,
            overlay: overlay.as_deref().map(Path::to_string_lossy),
            overlay_bytes: overlay.as_deref().and_then(raw_bytes),
            unlike,
        };
        return common::print_line(serde_json::to_string(&line)?);
    }
    let verdict = match verdict {
        Some(Verdict::Ok) => "ok",
        Some(Verdict::Defective) => "DEFECTIVE",
        None => "-",
    };
    let score = scaled.unwrap_or(score);
    common::print_line(format!("{score:>8.3}  {verdict:9}  {}", image.display()))
}

fn summary(args: &Args, images: usize, defective: usize, failed: usize) -> anyhow::Result<()> {
    if args.json || images - failed < 2 && args.out.is_none() {
        return Ok(());
    }
    let inspected = images - failed;
    common::print_line(format!("{inspected} inspected, {defective} defective"))?;
    match &args.out {
        Some(out) if inspected > 0 => common::print_line(format!("overlays in {}", out.display())),
        _ => Ok(()),
    }
}
