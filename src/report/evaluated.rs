//! The page of an evaluation: from figures and maps to charts, pictures and groups.

use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use rayon::prelude::*;

use super::{Chart, ColourScale, MapView, ReportInput, ReportItem, Subject, Table, picture};
use crate::{
    Result,
    datasets::{Dataset, Sample},
    detector::Detector,
    estimators::AnomalyMap,
    evaluation::{ClassResult, Evaluation, ImageResult, Metrics},
    metrics::{AUPRO_LIMIT, Interval, Ranking},
};

/// Points of a curve, more than a chart is wide.
const STEPS: usize = 1000;

impl ReportInput {
    /// Makes the page of an evaluation of `detector` on `dataset` (and of harder versions of it, by name), reading
    /// every photo once more; the network is not run again. `progress` hears how many photos are done, from several threads.
    ///
    /// # Errors
    /// An unreadable photo or mask, or an evaluation of other images.
    pub fn of_evaluation(
        detector: &Detector,
        dataset: &Dataset,
        evaluation: &Evaluation,
        perturbed: &[(&str, Metrics)],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Self> {
        let dataset = &dataset.clone().seen_by(&detector.config().preprocessing);
        let calibration = detector.config().calibration.as_ref();
        let scale = match picture::calibrated(calibration)? {
            Some(scale) => scale,
            None => scale_of_good(detector, evaluation)?,
        };
        let done = AtomicUsize::new(0);
        let items = (dataset
            .test
            .par_iter()
            .zip(&evaluation.images)
            .zip(&evaluation.maps))
        .map(|((sample, result), maps)| {
            // At the input's size one at a time: a large test set's would not fit into memory.
            let item = item(sample, result, &detector.localisation(maps)?, &scale);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            item
        })
        .collect::<Result<_>>()?;
        let mut tables = vec![Table::of_classes(&evaluation.classes)];
        if !perturbed.is_empty() {
            tables.push(Table::of_perturbed(&evaluation.metrics, perturbed));
        }
        // That one belongs to the defective.
        let f1 = (evaluation.image_ranking.f1_max().threshold as f32).next_down();
        Ok(Self {
            title: format!("{}, {}", dataset.name, detector.config().backbone.id),
            facts: facts(detector, dataset),
            metrics: metrics(evaluation),
            tables,
            charts: charts(evaluation),
            threshold: calibration.map_or(f1, |c| c.threshold),
            scale,
            items,
        })
    }
}

fn item(
    sample: &Sample,
    result: &ImageResult,
    map: &AnomalyMap,
    scale: &ColourScale,
) -> Result<ReportItem> {
    let photo: RgbImage = sample.read()?;
    let mask = match sample.has_mask() {
        true => sample.read_mask(photo.width(), photo.height())?,
        false => None,
    };
    let subject = Subject {
        name: &result.image,
        defective: Some(sample.is_defective()),
        class: sample.defect.as_deref(),
        photo: &photo,
        map: MapView::new(&map.values, map.width, map.height)?,
        mask: mask.as_ref(),
        score: result.score,
    };
    ReportItem::new(&subject, scale)
}

/// Without a calibration: from the median of the good images' medians, with their highest peak in the middle,
/// so that here too no good image looks red.
fn scale_of_good(detector: &Detector, evaluation: &Evaluation) -> Result<ColourScale> {
    let images = evaluation.images.par_iter().zip(&evaluation.maps);
    let (mut medians, peaks): (Vec<f32>, Vec<f32>) = images
        .filter(|(image, _)| image.defect.is_none())
        .map(|(_, maps)| {
            let mut values = detector.localisation(maps)?.values;
            values.sort_unstable_by(f32::total_cmp);
            Ok((values[values.len() / 2], values[values.len() - 1]))
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    medians.sort_unstable_by(f32::total_cmp);
    let (low, high) = match medians.as_slice() {
        [] => (0.0, 1.0),
        sorted => (
            sorted[sorted.len() / 2],
            peaks.into_iter().fold(f32::MIN, f32::max),
        ),
    };
    ColourScale::around(low, high.max(low + f32::EPSILON * low.abs().max(1.0)))
}

fn facts(detector: &Detector, dataset: &Dataset) -> Vec<(String, String)> {
    let config = detector.config();
    let defective = dataset.test.iter().filter(|s| s.is_defective()).count();
    let mut facts = vec![
        ("detector".to_string(), config.name.clone()),
        ("method".into(), config.estimator.title().to_string()),
        ("backbone".into(), config.backbone.id.clone()),
        ("data".into(), dataset.root.display().to_string()),
        (
            "test images".into(),
            format!(
                "{} good, {defective} defective",
                dataset.test.len() - defective
            ),
        ),
    ];
    if let Some(training) = &config.training {
        facts.push((
            "trained on".into(),
            match &training.optimisation {
                Some(run) => format!(
                    "{} images, {} epochs, seed {}",
                    training.images, run.epochs, training.seed
                ),
                None => format!("{} images, seed {}", training.images, training.seed),
            },
        ));
    }
    let threshold = match &config.calibration {
        Some(calibration) => format!("from {}", calibration.in_words()),
        None => "the best F1 on these test images, since the detector has none: too good to be true elsewhere".into(),
    };
    facts.push(("threshold".into(), threshold));
    facts
}

fn metrics(evaluation: &Evaluation) -> Vec<(String, String)> {
    let row = |(name, value): (&str, f64)| {
        let text = with_interval(value, evaluation.intervals.get(name));
        (Metrics::label(name).to_string(), text)
    };
    evaluation.metrics.figures().into_iter().map(row).collect()
}

impl Table {
    /// Each class of defects against all good images.
    pub fn of_classes(classes: &[ClassResult]) -> Self {
        let image_auroc = format!("{} (95 %)", Metrics::label("image_auroc"));
        let header = [
            "class",
            "images",
            "called defective",
            &image_auroc,
            "recall at 5 % f. a.",
            Metrics::label("pixel_auroc"),
            Metrics::label("aupro"),
        ];
        let row = |class: &ClassResult| {
            let metrics = class.metrics.as_ref();
            vec![
                class.class.clone(),
                class.images.to_string(),
                class.called_defective.map_or("-".into(), |n| n.to_string()),
                metrics.map_or("-".into(), |m| {
                    with_interval(m.image_auroc, class.intervals.get("image_auroc"))
                }),
                figure(metrics.map(|m| m.recall_at_5_fpr)),
                figure(metrics.and_then(|m| m.pixel_auroc)),
                figure(metrics.and_then(|m| m.aupro)),
            ]
        };
        Self {
            header: header.map(String::from).to_vec(),
            rows: classes.iter().map(row).collect(),
        }
    }

    /// Every figure of a test set beside those of harder versions of it, by name.
    pub fn of_perturbed(original: &Metrics, perturbed: &[(&str, Metrics)]) -> Self {
        let names = perturbed.iter().map(|(name, _)| *name);
        let header = ["test photos made harder", "as they are"]
            .into_iter()
            .chain(names);
        let columns: Vec<_> = perturbed.iter().map(|(_, m)| m.to_map()).collect();
        let row = |(metric, value): (&str, f64)| {
            let harder = columns
                .iter()
                .map(|column| figure(column.get(metric).copied()));
            let first = [Metrics::label(metric).to_string(), figure(Some(value))];
            first.into_iter().chain(harder).collect()
        };
        Self {
            header: header.map(String::from).collect(),
            rows: original.figures().into_iter().map(row).collect(),
        }
    }
}

fn with_interval(value: f64, interval: Option<&Interval>) -> String {
    match interval {
        Some(interval) => format!("{value:.4} ({interval})"),
        None => format!("{value:.4}"),
    }
}

fn figure(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.4}"))
}

fn charts(evaluation: &Evaluation) -> Vec<Chart> {
    let points = |curve: Vec<[f64; 2]>| curve.into_iter().map(|[x, y]| (x, y)).collect();
    let roc = |label: &str, ranking: &Ranking| {
        Chart::roc(label, points(ranking.roc(STEPS)), ranking.auroc())
    };
    let mut charts = vec![roc("images", &evaluation.image_ranking)];
    if let Some(pixels) = &evaluation.pixel_ranking {
        charts.push(roc("pixels", pixels));
        let curve = points(pixels.pro(STEPS));
        charts.push(Chart::pro(curve, pixels.aupro(AUPRO_LIMIT), AUPRO_LIMIT));
    }
    charts
}
