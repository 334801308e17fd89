//! Every pixel of the test set, ranked exactly, from maps that are upsampled twice instead of kept.

use rayon::prelude::*;

use super::{Inspected, Options};
use crate::{
    Result,
    datasets::Sample,
    detector::{AnomalyMap, Detector},
    imaging::Mask,
    metrics::{DefectivePixels, Ranking},
};

/// The ranking of all pixels of images whose ground truth is known (good ones, and defective ones
/// with a mask); none where no mask exists.
pub(super) fn ranking(
    detector: &Detector,
    samples: &[Sample],
    inspected: &[Inspected],
    options: Options,
) -> Result<Option<Ranking>> {
    let known = |sample: &Sample| !sample.is_defective() || sample.has_mask();
    let pairs: Vec<(&Sample, &Inspected)> = samples
        .iter()
        .zip(inspected)
        .filter(|(sample, _)| known(sample))
        .collect();
    if !pairs.iter().any(|(sample, _)| sample.has_mask()) {
        return Ok(None);
    }
    let mut first = DefectivePixels::new();
    for (sample, image) in pairs.iter().filter(|(sample, _)| sample.is_defective()) {
        let (map, mask) = pixels(detector, sample, image, options)?;
        first.add(&map.values, mask.pixels(), map.width)?;
    }
    let second = first.finish();
    pairs.par_iter().try_for_each(|(sample, image)| {
        let (map, mask) = pixels(detector, sample, image, options)?;
        second.add(&map.values, mask.pixels())
    })?;
    second.finish().map(Some)
}

/// The localisation map and the mask at the same resolution.
fn pixels(
    detector: &Detector,
    sample: &Sample,
    image: &Inspected,
    options: Options,
) -> Result<(AnomalyMap, Mask)> {
    let (width, height) = image.size;
    let (columns, rows) = (width as usize, height as usize);
    let mask = sample
        .read_mask(width, height)?
        .unwrap_or_else(|| Mask::empty(columns, rows));
    let map = detector.localisation(&image.maps)?;
    match options.pixel_size {
        Some(side) => Ok((map.resized(side, side)?, mask.resized(side, side))),
        None => Ok((map.resized(columns, rows)?, mask)),
    }
}
