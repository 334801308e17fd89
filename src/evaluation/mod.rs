//! A detector over a test set: scores, and metrics that see every pixel exactly.

mod pixels;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use crate::{
    Error, Result,
    datasets::{Dataset, Sample},
    detector::{Detector, NativeMaps, Verdict},
    metrics::Ranking,
};

/// Largest false-positive rate that AUPRO integrates to (MVTec AD's convention).
const AUPRO_LIMIT: f64 = 0.3;

/// How pixels are counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Score pixels at `N x N`, masks resized to it (nearest), instead of at the masks' own resolution.
    pub pixel_size: Option<usize>,
}

/// One test image.
#[derive(Debug, Clone, Serialize)]
pub struct ImageResult {
    /// Its name in the data set ([`Sample::name`]).
    pub image: String,
    /// The defect's class; none for a good image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defect: Option<String>,
    /// The image score, unclamped.
    pub score: f32,
    /// Score against threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// Figures over a test set; pixel figures only where there are masks.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Metrics {
    /// Area under the ROC curve of the image scores.
    pub image_auroc: f64,
    /// Average precision of the image scores.
    pub image_ap: f64,
    /// Largest F1 over all thresholds.
    pub image_f1_max: f64,
    /// Share of good test images above the detector's threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_alarm_rate: Option<f64>,
    /// Share of defective test images above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Area under the ROC curve of all pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_auroc: Option<f64>,
    /// Average precision of all pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_ap: Option<f64>,
    /// Area under the per-region overlap curve up to a false-positive rate of 0.3, over 0.3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aupro: Option<f64>,
}

impl Metrics {
    /// Name and value of those that exist, as `eval --json` prints them.
    pub fn to_map(&self) -> BTreeMap<String, f64> {
        let optional = [
            ("false_alarm_rate", self.false_alarm_rate),
            ("recall", self.recall),
            ("pixel_auroc", self.pixel_auroc),
            ("pixel_ap", self.pixel_ap),
            ("aupro", self.aupro),
        ];
        let always = [
            ("image_auroc", self.image_auroc),
            ("image_ap", self.image_ap),
            ("image_f1_max", self.image_f1_max),
        ];
        let present = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        always
            .into_iter()
            .chain(present)
            .map(|(name, value)| (name.to_string(), value))
            .collect()
    }
}

/// Images of one class and what the detector called them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassSummary {
    /// The defect's class, or `good`.
    pub name: String,
    /// Images of it.
    pub images: usize,
    /// Of these, above the threshold.
    pub called_defective: usize,
}

/// What an evaluation found.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// In the data set's order.
    pub images: Vec<ImageResult>,
    /// Over all of them.
    pub metrics: Metrics,
}

impl Evaluation {
    /// Verdicts by class, good images first.
    pub fn classes(&self) -> Vec<ClassSummary> {
        let mut classes: BTreeMap<Option<&str>, (usize, usize)> = BTreeMap::new();
        for result in &self.images {
            let entry = classes.entry(result.defect.as_deref()).or_default();
            entry.0 += 1;
            entry.1 += usize::from(result.verdict == Some(Verdict::Defective));
        }
        let summary = |(name, (images, called_defective)): (Option<&str>, _)| ClassSummary {
            name: name.unwrap_or("good").to_string(),
            images,
            called_defective,
        };
        classes.into_iter().map(summary).collect()
    }
}

/// One image's share of the work.
struct Inspected {
    result: ImageResult,
    maps: NativeMaps,
    /// Columns and rows of the photo.
    size: (u32, u32),
}

/// Scores every test image and measures. `progress` hears (done, total).
///
/// Memory: per image only its maps at the features' resolution are kept.
///
/// # Errors
/// An unreadable image or mask, or a test set without good or without defective images.
pub fn evaluate(
    detector: &Detector,
    dataset: &Dataset,
    options: Options,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation> {
    let defective = dataset.test.iter().filter(|s| s.is_defective()).count();
    if defective == 0 || defective == dataset.test.len() {
        return Err(Error::Dataset {
            path: dataset.root.clone(),
            reason: format!(
                "an evaluation needs good and defective test images; found {} and {defective}",
                dataset.test.len() - defective
            ),
        });
    }
    let mut inspected = Vec::with_capacity(dataset.test.len());
    for chunk in dataset.test.chunks(2 * rayon::current_num_threads()) {
        let results: Vec<Result<Inspected>> = chunk
            .par_iter()
            .map(|sample| inspect(detector, sample, &dataset.root))
            .collect();
        for result in results {
            inspected.push(result?);
        }
        progress(inspected.len(), dataset.test.len());
    }
    let mut metrics = image_metrics(&inspected)?;
    if let Some(ranking) = pixels::ranking(detector, &dataset.test, &inspected, options)? {
        metrics.pixel_auroc = Some(ranking.auroc());
        metrics.pixel_ap = Some(ranking.average_precision());
        metrics.aupro = Some(ranking.aupro(AUPRO_LIMIT));
    }
    let images = inspected.into_iter().map(|i| i.result).collect();
    Ok(Evaluation { images, metrics })
}

fn inspect(detector: &Detector, sample: &Sample, root: &Path) -> Result<Inspected> {
    let image = sample.read()?;
    let maps = detector.native_maps(&image)?;
    let score = detector.score(&maps)?;
    let result = ImageResult {
        image: sample.name(root),
        defect: sample.defect.clone(),
        score,
        verdict: detector.verdict(score),
    };
    Ok(Inspected {
        result,
        maps,
        size: image.dimensions(),
    })
}

fn image_metrics(inspected: &[Inspected]) -> Result<Metrics> {
    let scores: Vec<f64> = inspected
        .iter()
        .map(|i| f64::from(i.result.score))
        .collect();
    let labels: Vec<bool> = inspected
        .iter()
        .map(|i| i.result.defect.is_some())
        .collect();
    let ranking = Ranking::new(&scores, &labels)?;
    let called = |defective: bool| {
        let of_kind = inspected
            .iter()
            .filter(|i| i.result.defect.is_some() == defective);
        let verdicts: Option<Vec<Verdict>> = of_kind.map(|i| i.result.verdict).collect();
        let verdicts = verdicts.filter(|v| !v.is_empty())?;
        let hits = verdicts
            .iter()
            .filter(|&&v| v == Verdict::Defective)
            .count();
        Some(hits as f64 / verdicts.len() as f64)
    };
    Ok(Metrics {
        image_auroc: ranking.auroc(),
        image_ap: ranking.average_precision(),
        image_f1_max: ranking.f1_max().value,
        false_alarm_rate: called(false),
        recall: called(true),
        ..Metrics::default()
    })
}
