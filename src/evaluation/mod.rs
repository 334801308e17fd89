//! A detector over a test set: scores, and metrics that see every pixel exactly.

mod features;
mod figures;
mod pixels;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

pub use features::TestFeatures;
pub use figures::Metrics;

use pixels::PixelRankings;

use crate::{
    Error, Result,
    datasets::{Dataset, Sample},
    detector::{Detector, Unlike, UnlikePhotos, Verdict},
    estimators::NativeMaps,
    metrics::{Interval, Ranking},
};

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
    /// The name's bytes in hexadecimal digits, where they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_bytes: Option<String>,
    /// The defect's class; none for a good image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defect: Option<String>,
    /// The image score, unclamped.
    pub score: f32,
    /// Score against threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// In what its file is unlike the training photos', where it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlike: Option<Unlike>,
}

/// The images of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassResult {
    /// The defect's class, or `good`.
    pub class: String,
    /// Images of it.
    pub images: usize,
    /// Of these, above the threshold; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called_defective: Option<usize>,
    /// This class of defects against all good images; none of the good themselves.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub metrics: Option<Metrics>,
    /// Intervals of these figures, as [`Evaluation::intervals`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, Interval>,
}

/// What an evaluation found.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// In the data set's order.
    pub images: Vec<ImageResult>,
    /// Over all of them.
    pub metrics: Metrics,
    /// 95 % bootstrap intervals of the figures that need no threshold, by name. They tell how far the choice
    /// of test images could have moved a figure, not how far another training could.
    pub intervals: BTreeMap<String, Interval>,
    /// The good images, then every class of defects.
    pub classes: Vec<ClassResult>,
    /// The order of the image scores.
    pub image_ranking: Ranking,
    /// The order of the pixels' scores; none without masks.
    pub pixel_ranking: Option<Ranking>,
    /// The images' maps at the features' resolution, in their order.
    pub maps: Vec<NativeMaps>,
}

impl Evaluation {
    /// What is to be told of test photos that are unlike the training photos, a line for each kind.
    pub fn notes(&self, detector: &Detector) -> Vec<String> {
        let mut unlike = UnlikePhotos::default();
        for image in &self.images {
            unlike.add(|| image.image.clone(), image.unlike.as_ref());
        }
        unlike.notes(&detector.config().preprocessing)
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
    let dataset = &dataset.clone().seen_by(&detector.config().preprocessing);
    ready(dataset)?;
    let mut inspected = Vec::with_capacity(dataset.test.len());
    for chunk in dataset.test.chunks(detector.batch_size()) {
        let results = detector.native_maps_each(chunk.len(), |index| chunk[index].seen());
        let results = chunk.par_iter().zip(results).map(|(sample, found)| {
            let unlike = found
                .as_ref()
                .ok()
                .and_then(|(seen, _)| detector.unlike(seen));
            let found = found.map(|(seen, maps)| (maps, seen.image.dimensions()));
            let mut scored = scored(detector, sample, &dataset.root, found)?;
            scored.result.unlike = unlike;
            Ok(scored)
        });
        for result in results.collect::<Vec<Result<_>>>() {
            inspected.push(result?);
        }
        progress(inspected.len(), dataset.test.len());
    }
    measured(detector, dataset, inspected, options)
}

/// [`evaluate`] from features of the test images that are there already.
///
/// # Errors
/// As [`evaluate`], and when the features are of other images or another backbone.
pub fn evaluate_features(
    detector: &Detector,
    dataset: &Dataset,
    features: &TestFeatures,
    options: Options,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation> {
    let dataset = &dataset.clone().seen_by(&detector.config().preprocessing);
    ready(dataset)?;
    let mut inspected = Vec::with_capacity(dataset.test.len());
    let records: Vec<usize> = (0..dataset.test.len()).collect();
    for chunk in records.chunks(detector.batch_size()) {
        let look = |&record: &usize| {
            let sample = &dataset.test[record];
            let found = features.maps(detector, record);
            scored(detector, sample, &dataset.root, found)
        };
        for result in chunk.par_iter().map(look).collect::<Vec<_>>() {
            inspected.push(result?);
        }
        progress(inspected.len(), dataset.test.len());
    }
    measured(detector, dataset, inspected, options)
}

/// The figures of what was inspected.
fn measured(
    detector: &Detector,
    dataset: &Dataset,
    inspected: Vec<Inspected>,
    options: Options,
) -> Result<Evaluation> {
    let pixels = pixels::rankings(detector, &dataset.test, &inspected, options)?;
    let (images, maps): (Vec<_>, Vec<_>) =
        inspected.into_iter().map(|i| (i.result, i.maps)).unzip();
    let all: Vec<&ImageResult> = images.iter().collect();
    let ranking_of_pixels = pixels.as_ref().map(|pixels| &pixels.all);
    let binned = pixels
        .as_ref()
        .map_or(vec![], |pixels| pixels.binned(|_| true));
    Ok(Evaluation {
        metrics: Metrics::new(&all, ranking_of_pixels)?,
        intervals: figures::intervals(&all, &binned)?,
        classes: classes(&images, pixels.as_ref())?,
        image_ranking: figures::ranking(&all)?,
        pixel_ranking: pixels.map(|pixels| pixels.all),
        images,
        maps,
    })
}

/// What would stop an evaluation of `dataset` after minutes, found at once: for whoever trains first.
///
/// # Errors
/// A test set without good or without defective images, and what [`Dataset::quick_check`] finds.
pub fn ready(dataset: &Dataset) -> Result<()> {
    let defective = dataset.test.iter().filter(|s| s.is_defective()).count();
    let good = dataset.test.len() - defective;
    if good > 0 && defective > 0 {
        return dataset.quick_check();
    }
    Err(Error::Dataset {
        path: dataset.root.clone(),
        reason: format!(
            "an evaluation needs good and defective test images; found {good} and {defective}"
        ),
    })
}

/// The score of an image from its maps; `found` holds these and the image's columns and rows.
fn scored(
    detector: &Detector,
    sample: &Sample,
    root: &Path,
    found: Result<(NativeMaps, (u32, u32))>,
) -> Result<Inspected> {
    let found = found.and_then(|(maps, size)| Ok((detector.score(&maps)?, maps, size)));
    let (score, maps, size) = found.map_err(|why: Error| match why {
        Error::Invalid(why) => Error::Invalid(format!("{}: {why}", sample.name(root))),
        other => other,
    })?;
    let result = ImageResult {
        image: sample.name(root),
        image_bytes: sample.name_bytes(root),
        defect: sample.defect.clone(),
        score,
        verdict: detector.verdict(score),
        unlike: None,
    };
    Ok(Inspected { result, maps, size })
}

fn classes(images: &[ImageResult], pixels: Option<&PixelRankings<'_>>) -> Result<Vec<ClassResult>> {
    let of = |class: Option<&str>| -> Vec<&ImageResult> {
        let of_class = images.iter().filter(|i| i.defect.as_deref() == class);
        of_class.collect()
    };
    let good = of(None);
    let names: BTreeSet<&str> = images.iter().filter_map(|i| i.defect.as_deref()).collect();
    let mut classes = vec![class_result("good", &good)];
    for name in names {
        let defective = of(Some(name));
        let both = [&good[..], &defective].concat();
        // A class without a single defective pixel has no ranking and no interval of pixels.
        let ranked = pixels.and_then(|pixels| Some((pixels, pixels.classes.get(name)?)));
        let of_class = |class: Option<&str>| class.is_none_or(|class| class == name);
        let binned = ranked.map_or(vec![], |(pixels, _)| pixels.binned(of_class));
        classes.push(ClassResult {
            metrics: Some(Metrics::new(&both, ranked.map(|(_, ranking)| ranking))?),
            intervals: figures::intervals(&both, &binned)?,
            ..class_result(name, &defective)
        });
    }
    Ok(classes)
}

/// Without figures.
fn class_result(class: &str, images: &[&ImageResult]) -> ClassResult {
    let verdicts: Option<Vec<Verdict>> = images.iter().map(|i| i.verdict).collect();
    let defective = |verdicts: Vec<Verdict>| {
        let called = verdicts.iter().filter(|&&v| v == Verdict::Defective);
        called.count()
    };
    ClassResult {
        class: class.to_string(),
        images: images.len(),
        called_defective: verdicts.map(defective),
        metrics: None,
        intervals: BTreeMap::new(),
    }
}
