//! Pixel metrics in two passes over the maps, so that no map needs to stay in memory.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::ranking::{Group, group};
use super::{BinnedPixels, Bins, Ranking, regions};
use crate::{Error, Result};

const METRIC: &str = "pixel metrics";
/// Pixels that one thread takes at a time.
const CHUNK: usize = 1 << 18;

/// The first pass: the scores of all defective pixels, with their regions' areas.
///
/// Memory: 16 bytes a defective pixel here, at most 40 in the second pass.
#[derive(Debug, Default)]
pub struct DefectivePixels {
    scores: Vec<(f64, f64)>,
}

impl DefectivePixels {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the map of one image, `width` pixels wide, at the mask's resolution. Maps of normal
    /// images may be left out of this pass, or come with a mask that is `false` everywhere.
    ///
    /// # Errors
    /// [`Error::Metric`] when the sizes differ or a defective pixel's score is NaN.
    pub fn add(&mut self, scores: &[f32], mask: &[bool], width: usize) -> Result<()> {
        check_sizes(scores, mask)?;
        if width == 0 || !mask.len().is_multiple_of(width) {
            return Err(fault(format!(
                "{} pixels are not rows of {width}",
                mask.len()
            )));
        }
        for region in regions(mask, width)? {
            let share = 1.0 / region.len() as f64;
            for pixel in region {
                if scores[pixel].is_nan() {
                    return Err(fault("a score is not a number"));
                }
                self.scores.push((f64::from(scores[pixel]), share));
            }
        }
        Ok(())
    }

    /// Takes over what another has seen.
    pub fn append(&mut self, other: &Self) {
        self.scores.extend_from_slice(&other.scores);
    }

    /// Ends the first pass; all maps, also those of normal images, must now be added again.
    pub fn finish(self) -> NormalPixels {
        let groups = group(self.scores);
        let counts = std::iter::repeat_with(AtomicU64::default)
            .take(2 * groups.len() + 1)
            .collect();
        NormalPixels { groups, counts }
    }
}

/// The second pass: counts the normal pixels' scores between those of the defective.
#[derive(Debug)]
pub struct NormalPixels {
    groups: Vec<Group>,
    counts: Vec<AtomicU64>,
}

impl NormalPixels {
    /// Takes in the map of one image, as in the first pass; several threads may do so at once.
    ///
    /// # Errors
    /// [`Error::Metric`] when the sizes differ or a normal pixel's score is NaN.
    pub fn add(&self, scores: &[f32], mask: &[bool]) -> Result<()> {
        self.in_sorted_chunks(scores, mask, |_| ())?;
        Ok(())
    }

    /// [`NormalPixels::add`], and the image's pixels by `bins`; `marked` is what its first pass saw of this image
    /// alone, nothing where it was left out.
    ///
    /// # Errors
    /// As [`NormalPixels::add`]'s.
    pub fn add_binned(
        &self,
        scores: &[f32],
        mask: &[bool],
        marked: Option<&DefectivePixels>,
        bins: &Bins,
    ) -> Result<BinnedPixels> {
        let chunks = self.in_sorted_chunks(scores, mask, |sorted| bins.count(sorted))?;
        let mut normal = bins.count(&[]);
        for chunk in chunks {
            normal.iter_mut().zip(chunk).for_each(|(sum, n)| *sum += n);
        }
        let defective = marked.map_or(vec![], |marked| bins.regions(&marked.scores));
        Ok(BinnedPixels::new(normal, defective))
    }

    /// At most `count` bins of the defective pixels' scores.
    pub fn bins(&self, count: usize) -> Bins {
        Bins::new(&self.groups, count)
    }

    /// Counts the normal pixels, and gives what `look` finds in each sorted chunk of them.
    fn in_sorted_chunks<T: Send>(
        &self,
        scores: &[f32],
        mask: &[bool],
        look: impl Fn(&[f32]) -> T + Sync,
    ) -> Result<Vec<T>> {
        check_sizes(scores, mask)?;
        let chunks = scores.par_chunks(CHUNK).zip(mask.par_chunks(CHUNK));
        let sorted = chunks.map(|(scores, mask)| {
            let normal = scores
                .iter()
                .zip(mask)
                .filter(|(_, defective)| !**defective);
            let mut normal: Vec<f32> = normal.map(|(score, _)| *score).collect();
            if normal.iter().any(|score| score.is_nan()) {
                return Err(fault("a score is not a number"));
            }
            // Sorted scores walk through the groups once; searching for each alone would miss the
            // cache at every step.
            normal.sort_unstable_by(f32::total_cmp);
            self.count(&normal);
            Ok(look(&normal))
        });
        sorted.collect()
    }

    /// Takes over all counts of `finer`, whose defective pixels include all of this one's: the normal images
    /// of a test set are counted once, for all classes of defects.
    ///
    /// # Errors
    /// [`Error::Metric`] when a defective pixel here is none there.
    pub fn add_counts_of(&self, finer: &Self) -> Result<()> {
        let mut passed = 0;
        for (group, counts) in finer.groups.iter().zip(finer.counts.chunks(2)) {
            self.counts[2 * passed].fetch_add(load(&counts[0]), Ordering::Relaxed);
            let own = self
                .groups
                .get(passed)
                .is_some_and(|g| g.score == group.score);
            self.counts[2 * passed + usize::from(own)]
                .fetch_add(load(&counts[1]), Ordering::Relaxed);
            passed += usize::from(own);
        }
        if passed < self.groups.len() {
            return Err(fault(
                "a class has a defective pixel that the test set has not",
            ));
        }
        if let Some(above) = finer.counts.last() {
            self.counts[2 * passed].fetch_add(load(above), Ordering::Relaxed);
        }
        Ok(())
    }

    fn count(&self, sorted: &[f32]) {
        let mut group = 0;
        for same in sorted.chunk_by(|a, b| a == b) {
            let score = f64::from(same[0]);
            group += behind(&self.groups[group..], score);
            let tied = self.groups.get(group).is_some_and(|g| g.score == score);
            self.counts[2 * group + usize::from(tied)]
                .fetch_add(same.len() as u64, Ordering::Relaxed);
        }
    }

    /// Ends the second pass.
    ///
    /// # Errors
    /// [`Error::Metric`] when no pixel is defective, or none is normal.
    pub fn finish(self) -> Result<Ranking> {
        let counts = self.counts.into_iter().map(AtomicU64::into_inner).collect();
        Ranking::from_counts(METRIC, self.groups, counts)
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// How many groups score lower, if it is few: doubling steps, then a search inside the last.
fn behind(groups: &[Group], score: f64) -> usize {
    let mut step = 1;
    while step <= groups.len() && groups[step - 1].score < score {
        step *= 2;
    }
    let (from, to) = (step / 2, step.min(groups.len()));
    from + groups[from..to].partition_point(|g| g.score < score)
}

fn check_sizes(scores: &[f32], mask: &[bool]) -> Result<()> {
    if scores.len() == mask.len() {
        return Ok(());
    }
    Err(fault(format!(
        "the map has {} pixels, the mask {}",
        scores.len(),
        mask.len()
    )))
}

fn fault(reason: impl Into<String>) -> Error {
    Error::Metric {
        metric: METRIC,
        reason: reason.into(),
    }
}
