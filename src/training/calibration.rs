//! Thresholds from normal images that the estimator has not seen.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{device::EVALUATION_BATCH, outliers};
use crate::{
    Error, Result,
    detector::{Calibration, CalibrationSource, Outlier},
    estimators::{Estimator, FeatureSource, MapStatistics, NativeMaps, ScaleStatistics, Scoring},
};

/// What the held-out normal images of `store` score, and the thresholds that let about
/// `false_alarm_rate` of new normal images pass for defective.
///
/// The threshold is the conformal quantile: the `ceil((n + 1) (1 - rate))`-th smallest of the `n`
/// scores, at most their largest. It needs no assumption about their distribution; a new normal
/// image exceeds the largest of n scores with probability `1 / (n + 1)`, so that is the rate
/// recorded when `n` is too small for the one asked for. Scores that are far out do not count, and are
/// recorded by the image's name, of which there is one an image (or none at all).
///
/// # Errors
/// Without held-out images, or when a score is not finite.
pub fn calibrate(
    estimator: &dyn Estimator,
    scoring: &Scoring,
    store: &dyn FeatureSource,
    names: &[String],
    input: (usize, usize),
    false_alarm_rate: f64,
) -> Result<Calibration> {
    if store.is_empty() {
        return Err(Error::Training(
            "no held-out normal images to set a threshold from".into(),
        ));
    }
    let native = native_maps(estimator, scoring, store)?;
    calibrate_maps(&native, None, names, scoring, input, false_alarm_rate)
}

/// The same of maps that may come from several estimators, scales standardised by `known` statistics or by these maps'.
pub(super) fn calibrate_maps(
    native: &[NativeMaps],
    known: Option<MapStatistics<'_>>,
    names: &[String],
    scoring: &Scoring,
    input: (usize, usize),
    false_alarm_rate: f64,
) -> Result<Calibration> {
    let all: Vec<&NativeMaps> = native.iter().collect();
    let (image_scales, pixel_scales) = match known {
        Some(known) => (known.image.to_vec(), known.pixel.to_vec()),
        None => (
            scale_statistics(&all, |maps| &maps.image)?,
            scale_statistics(&all, |maps| &maps.pixel)?,
        ),
    };
    let statistics = Some(MapStatistics {
        image: &image_scales,
        pixel: &pixel_scales,
    });
    let mut normal_scores: Vec<f32> = Vec::with_capacity(native.len());
    let mut largest: Vec<f32> = Vec::with_capacity(native.len());
    let mut medians = Vec::with_capacity(native.len());
    for maps in native {
        let (score, pixel) = scoring.finish(maps, statistics, input)?;
        normal_scores.push(score.squeeze(0)?.to_scalar()?);
        let mut pixel = pixel.flatten_all()?.to_vec1::<f32>()?;
        pixel.sort_unstable_by(f32::total_cmp);
        medians.push(pixel[pixel.len() / 2]);
        largest.push(pixel[pixel.len() - 1]);
    }
    if normal_scores.iter().chain(&largest).any(|s| !s.is_finite()) {
        return Err(Error::Training(
            "a held-out normal image has no finite score".into(),
        ));
    }
    let outliers = set_aside(&mut normal_scores, &mut largest, names);
    for scores in [&mut normal_scores, &mut largest, &mut medians] {
        scores.sort_unstable_by(f32::total_cmp);
    }
    Ok(Calibration {
        threshold: conformal(&normal_scores, false_alarm_rate),
        // Whoever was set aside may have been good, and is above the threshold.
        false_alarm_rate: false_alarm_rate.max(1.0 / (normal_scores.len() + 1) as f64)
            + outliers.len() as f64 / native.len() as f64,
        pixel_threshold: conformal(&largest, false_alarm_rate),
        map_low: medians[medians.len() / 2],
        normal_scores,
        outliers,
        source: CalibrationSource::HeldOut,
        image_scales,
        pixel_scales,
    })
}

/// Takes the images that are far out from what the thresholds follow from.
fn set_aside(scores: &mut Vec<f32>, largest: &mut Vec<f32>, names: &[String]) -> Vec<Outlier> {
    if names.len() != scores.len() {
        return Vec::new();
    }
    let far_out = outliers::far_out(scores);
    let outlier = |&index: &usize| Outlier {
        image: names[index].clone(),
        score: scores[index],
    };
    let found = far_out.iter().map(outlier).collect();
    for values in [scores, largest] {
        let mut index = 0;
        values.retain(|_| {
            index += 1;
            !far_out.contains(&(index - 1))
        });
    }
    found
}

/// The conformal quantile of ascending scores.
fn conformal(sorted: &[f32], rate: f64) -> f32 {
    let rank = ((sorted.len() + 1) as f64 * (1.0 - rate)).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The maps of every image of `store`.
pub(super) fn native_maps(
    estimator: &dyn Estimator,
    scoring: &Scoring,
    store: &dyn FeatureSource,
) -> Result<Vec<NativeMaps>> {
    let device = &estimator.device();
    let maps = |records: &[usize]| {
        estimator
            .native_maps(&store.batch(records, device)?, scoring)?
            .to_cpu()
    };
    if let Device::Cpu = device {
        return (0..store.len())
            .into_par_iter()
            .map(|i| maps(&[i]))
            .collect();
    }
    // On a GPU one thread queues everything, batch by batch.
    let records: Vec<usize> = (0..store.len()).collect();
    let mut all = Vec::with_capacity(records.len());
    for batch in records.chunks(EVALUATION_BATCH) {
        let maps = maps(batch)?;
        for image in 0..batch.len() {
            all.push(maps.of_image(image)?);
        }
    }
    Ok(all)
}

/// Mean and deviation of every scale over images and positions.
pub(super) fn scale_statistics(
    native: &[&NativeMaps],
    pick: impl Fn(&NativeMaps) -> &Vec<Tensor>,
) -> Result<Vec<ScaleStatistics>> {
    let scales = native.first().map_or(0, |maps| pick(maps).len());
    let mut all = Vec::with_capacity(scales);
    for scale in 0..scales {
        let values = native
            .iter()
            .map(|maps| Ok(pick(maps)[scale].flatten_all()?.to_vec1::<f32>()?));
        let values = values.collect::<Result<Vec<_>>>()?;
        all.push(ScaleStatistics::of(values.into_iter().flatten()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::conformal;

    #[test]
    fn the_quantile_keeps_its_promise_where_it_can() {
        let scores: Vec<f32> = (1..=199).map(|i| i as f32).collect();
        // 200 exchangeable scores: the 198th smallest of 199 is exceeded by 2 of 200.
        assert_eq!(conformal(&scores, 0.01), 198.0);
        assert_eq!(conformal(&scores, 0.5), 100.0);
        // Too few for 1 %: the largest.
        assert_eq!(conformal(&scores[..20], 0.01), 20.0);
        assert_eq!(conformal(&scores[..1], 0.01), 1.0);
    }
}
