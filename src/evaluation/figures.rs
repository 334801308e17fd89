//! The figures of an evaluation, from rankings of images and pixels.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ImageResult;
use crate::{
    Result,
    detector::Verdict,
    metrics::{
        AUPRO_LIMIT, BinnedPixels, Interval, Ranking, Resampling, bootstrap, bootstrap_pixels,
    },
};

/// The ends of an interval move by less than their third digit with more draws.
const RESAMPLING: Resampling = Resampling {
    draws: 1000,
    level: 0.95,
    seed: 0,
};

/// Figures over a test set; pixel figures only where there are masks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// Area under the ROC curve of the image scores.
    pub image_auroc: f64,
    /// Average precision of the image scores.
    pub image_ap: f64,
    /// Largest F1 over all thresholds.
    pub image_f1_max: f64,
    /// Share of defective images above the highest score of a good one.
    pub recall_at_0_fpr: f64,
    /// Share of defective images found where at most 1 % of the good ones are called defective.
    pub recall_at_1_fpr: f64,
    /// The same with at most 5 %.
    pub recall_at_5_fpr: f64,
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
    /// Largest F1 of the pixels over all thresholds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_f1_max: Option<f64>,
    /// Area under the per-region overlap curve up to a false-positive rate of 0.3, over 0.3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aupro: Option<f64>,
}

/// A figure that the order of scores gives.
type Figure = (&'static str, fn(&Ranking) -> f64);

/// Those of the image scores, by their names in [`Metrics`].
const IMAGE_FIGURES: [Figure; 6] = [
    ("image_auroc", Ranking::auroc),
    ("image_ap", Ranking::average_precision),
    ("image_f1_max", |ranking| ranking.f1_max().value),
    ("recall_at_0_fpr", |ranking| ranking.recall_at_fpr(0.0)),
    ("recall_at_1_fpr", |ranking| ranking.recall_at_fpr(0.01)),
    ("recall_at_5_fpr", |ranking| ranking.recall_at_fpr(0.05)),
];

/// Those of the pixels' scores.
const PIXEL_FIGURES: [Figure; 4] = [
    ("pixel_auroc", Ranking::auroc),
    ("pixel_ap", Ranking::average_precision),
    ("pixel_f1_max", |ranking| ranking.f1_max().value),
    ("aupro", |ranking| ranking.aupro(AUPRO_LIMIT)),
];

impl Metrics {
    /// Figures of these images, which must be of both kinds, and of their pixels where they were ranked.
    pub(super) fn new(images: &[&ImageResult], pixels: Option<&Ranking>) -> Result<Self> {
        let ranking = ranking(images)?;
        let [
            image_auroc,
            image_ap,
            image_f1_max,
            recall_0,
            recall_1,
            recall_5,
        ] = IMAGE_FIGURES.map(|(_, figure)| figure(&ranking));
        let of_pixels = |ranking| PIXEL_FIGURES.map(|(_, figure)| Some(figure(ranking)));
        let [pixel_auroc, pixel_ap, pixel_f1_max, aupro] = pixels.map_or([None; 4], of_pixels);
        Ok(Self {
            image_auroc,
            image_ap,
            image_f1_max,
            recall_at_0_fpr: recall_0,
            recall_at_1_fpr: recall_1,
            recall_at_5_fpr: recall_5,
            false_alarm_rate: called_defective(images, false),
            recall: called_defective(images, true),
            pixel_auroc,
            pixel_ap,
            pixel_f1_max,
            aupro,
        })
    }

    /// What people call one of [`Metrics::figures`].
    pub fn label(name: &str) -> &str {
        match name {
            "image_auroc" => "image AUROC",
            "image_ap" => "image average precision",
            "image_f1_max" => "image F1 (best threshold)",
            "recall_at_0_fpr" => "recall without false alarm",
            "recall_at_1_fpr" => "recall at 1 % false alarms",
            "recall_at_5_fpr" => "recall at 5 % false alarms",
            "false_alarm_rate" => "false alarms at the threshold",
            "recall" => "recall at the threshold",
            "pixel_auroc" => "pixel AUROC",
            "pixel_ap" => "pixel average precision",
            "pixel_f1_max" => "pixel F1 (best threshold)",
            "aupro" => "AUPRO",
            other => other,
        }
    }

    /// Name and value of those that exist, the most telling first.
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("image_auroc", Some(self.image_auroc)),
            ("pixel_auroc", self.pixel_auroc),
            ("aupro", self.aupro),
            ("image_ap", Some(self.image_ap)),
            ("image_f1_max", Some(self.image_f1_max)),
            ("recall_at_0_fpr", Some(self.recall_at_0_fpr)),
            ("recall_at_1_fpr", Some(self.recall_at_1_fpr)),
            ("recall_at_5_fpr", Some(self.recall_at_5_fpr)),
            ("pixel_ap", self.pixel_ap),
            ("pixel_f1_max", self.pixel_f1_max),
            ("recall", self.recall),
            ("false_alarm_rate", self.false_alarm_rate),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// The same as an artifact keeps them and `eval --json` prints them.
    pub fn to_map(&self) -> BTreeMap<String, f64> {
        let figures = self.figures().into_iter();
        figures
            .map(|(name, value)| (name.to_string(), value))
            .collect()
    }
}

/// The order of the image scores.
pub(super) fn ranking(images: &[&ImageResult]) -> Result<Ranking> {
    let (scores, defective) = scores(images);
    Ranking::new(&scores, &defective)
}

/// 95 % bootstrap intervals, over the choice of test images, of the figures of image scores, and of pixels where
/// images were binned.
pub(super) fn intervals(
    images: &[&ImageResult],
    pixels: &[&BinnedPixels],
) -> Result<BTreeMap<String, Interval>> {
    let (scores, defective) = scores(images);
    let figures = IMAGE_FIGURES.map(|(_, figure)| figure);
    let of_images = bootstrap(&scores, &defective, figures, RESAMPLING)?;
    let mut intervals = named(&IMAGE_FIGURES, of_images);
    if !pixels.is_empty() {
        let figures = PIXEL_FIGURES.map(|(_, figure)| figure);
        let of_pixels = bootstrap_pixels(pixels, figures, RESAMPLING)?;
        intervals.extend(named(&PIXEL_FIGURES, of_pixels));
    }
    Ok(intervals)
}

fn named<const N: usize>(
    figures: &[Figure; N],
    intervals: [Interval; N],
) -> BTreeMap<String, Interval> {
    let names = figures.iter().map(|(name, _)| name.to_string());
    names.zip(intervals).collect()
}

fn scores(images: &[&ImageResult]) -> (Vec<f64>, Vec<bool>) {
    images
        .iter()
        .map(|image| (f64::from(image.score), image.defect.is_some()))
        .unzip()
}

/// The share of the good or of the defective images that the detector calls defective; none without a
/// threshold.
fn called_defective(images: &[&ImageResult], defective: bool) -> Option<f64> {
    let of_kind = images.iter().filter(|i| i.defect.is_some() == defective);
    let verdicts: Vec<Verdict> = of_kind.map(|i| i.verdict).collect::<Option<_>>()?;
    let hits = verdicts.iter().filter(|&&v| v == Verdict::Defective);
    (!verdicts.is_empty()).then(|| hits.count() as f64 / verdicts.len() as f64)
}
