//! Every pixel of the test set, ranked exactly, from maps that are upsampled twice instead of kept.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{Inspected, Options};
use crate::{
    Result,
    datasets::Sample,
    detector::Detector,
    estimators::AnomalyMap,
    imaging::Mask,
    metrics::{BinnedPixels, DefectivePixels, NormalPixels, Ranking},
};

/// Bins of pixels for intervals: each has 1/256 of the defective ones.
const BINS: usize = 256;

/// The pixels of images whose ground truth is known: good ones, and defective ones with a mask.
pub(super) struct PixelRankings<'a> {
    /// Of all images.
    pub all: Ranking,
    /// Of the good images and those of one class of defects, by its name.
    pub classes: BTreeMap<&'a str, Ranking>,
    /// Each image's class of defects, none of a good one, and its pixels, for intervals.
    pub images: Vec<(Option<&'a str>, BinnedPixels)>,
}

impl PixelRankings<'_> {
    /// The pixels of the images whose class is wanted.
    pub fn binned(&self, wanted: impl Fn(Option<&str>) -> bool) -> Vec<&BinnedPixels> {
        let images = self.images.iter().filter(|(class, _)| wanted(*class));
        images.map(|(_, pixels)| pixels).collect()
    }
}

/// None where no mask exists.
pub(super) fn rankings<'a>(
    detector: &Detector,
    samples: &'a [Sample],
    inspected: &[Inspected],
    options: Options,
) -> Result<Option<PixelRankings<'a>>> {
    let pairs = || samples.iter().zip(inspected);
    let good: Vec<Pair> = pairs().filter(|(s, _)| !s.is_defective()).collect();
    let defective: Vec<(&'a str, Pair)> = pairs()
        .filter(|(sample, _)| sample.has_mask())
        .filter_map(|pair| Some((pair.0.defect.as_deref()?, pair)))
        .collect();
    if defective.is_empty() {
        return Ok(None);
    }
    let marked = defective_pixels(detector, &defective, options)?;
    let (all, classes) = together(&defective, &marked);
    let bins = all.bins(BINS);
    let of_good = good.par_iter().map(|pair| {
        let (map, mask) = pixels(detector, *pair, options)?;
        let binned = all.add_binned(&map.values, mask.pixels(), None, &bins)?;
        Ok((None, binned))
    });
    let mut images: Vec<_> = of_good.collect::<Result<_>>()?;
    for class in classes.values() {
        class.add_counts_of(&all)?;
    }
    let defective = defective.par_iter().zip(&marked);
    let of_defective = defective.map(|((class, pair), marked)| {
        let (map, mask) = pixels(detector, *pair, options)?;
        classes[class].add(&map.values, mask.pixels())?;
        let binned = all.add_binned(&map.values, mask.pixels(), Some(marked), &bins)?;
        Ok((Some(*class), binned))
    });
    images.extend(of_defective.collect::<Result<Vec<_>>>()?);
    // A class whose masks are all empty has no ranking; `data check` tells of such masks.
    let classes = classes.into_iter();
    Ok(Some(PixelRankings {
        all: all.finish()?,
        classes: classes
            .filter_map(|(name, class)| Some((name, class.finish().ok()?)))
            .collect(),
        images,
    }))
}

/// A sample and what was seen of it.
type Pair<'a> = (&'a Sample, &'a Inspected);

/// The first pass: each image's.
fn defective_pixels(
    detector: &Detector,
    images: &[(&str, Pair)],
    options: Options,
) -> Result<Vec<DefectivePixels>> {
    images
        .par_iter()
        .map(|(_, pair)| {
            let (map, mask) = pixels(detector, *pair, options)?;
            let mut marked = DefectivePixels::new();
            marked.add(&map.values, mask.pixels(), map.width)?;
            Ok(marked)
        })
        .collect()
}

/// Those of all classes together, and of each.
fn together<'a>(
    images: &[(&'a str, Pair)],
    marked: &[DefectivePixels],
) -> (NormalPixels, BTreeMap<&'a str, NormalPixels>) {
    let mut all = DefectivePixels::new();
    let mut classes: BTreeMap<&str, DefectivePixels> = BTreeMap::new();
    for ((class, _), marked) in images.iter().zip(marked) {
        all.append(marked);
        classes.entry(class).or_default().append(marked);
    }
    let classes = classes.into_iter().map(|(name, c)| (name, c.finish()));
    (all.finish(), classes.collect())
}

/// The localisation map and the mask at the same resolution.
fn pixels(
    detector: &Detector,
    (sample, image): Pair,
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
