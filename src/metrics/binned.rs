//! The pixels of single images in a few hundred bins: what a bootstrap over images draws again. Intervals come from
//! them, never a figure itself.

use super::Ranking;
use super::ranking::Group;
use crate::Result;

/// Bins, each with the same number of the test set's defective pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Bins {
    /// The lowest score of each bin, ascending; what is normal may lie below the first.
    lows: Vec<f64>,
}

impl Bins {
    /// Cuts `groups` into `count` bins, fewer where there are fewer scores.
    pub(super) fn new(groups: &[Group], count: usize) -> Self {
        let total: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
        let (mut lows, mut passed) = (Vec::with_capacity(count), 0);
        for group in groups {
            // The share passed, in bins, has reached a whole number.
            if passed * count as u64 >= lows.len() as u64 * total {
                lows.push(group.score);
            }
            passed += u64::from(group.count);
        }
        Self { lows }
    }

    /// How many of the sorted scores lie below all bins, and in each.
    pub(super) fn count(&self, sorted: &[f32]) -> Vec<u32> {
        let mut below = 0;
        let mut counts = Vec::with_capacity(self.lows.len() + 1);
        for &low in &self.lows {
            let before = sorted[below..].partition_point(|&score| f64::from(score) < low);
            counts.push(before as u32);
            below += before;
        }
        counts.push((sorted.len() - below) as u32);
        counts
    }

    /// The defective pixels' number and sum of 1 / area of their regions in each bin.
    pub(super) fn regions(&self, scores: &[(f64, f64)]) -> Vec<(u32, f64)> {
        let mut bins = vec![(0, 0.0); self.lows.len()];
        for &(score, overlap) in scores {
            let bin = self.lows.partition_point(|&low| low <= score);
            // None lies below the first: the lows are defective pixels' scores.
            if let Some(bin) = bin.checked_sub(1).and_then(|bin| bins.get_mut(bin)) {
                *bin = (bin.0 + 1, bin.1 + overlap);
            }
        }
        bins
    }
}

/// The pixels of one image by [`Bins`].
#[derive(Debug, Clone, PartialEq)]
pub struct BinnedPixels {
    /// Normal pixels below all bins and of each.
    normal: Vec<u32>,
    /// Of each bin; empty of an image without defective pixels.
    defective: Vec<(u32, f64)>,
}

impl BinnedPixels {
    pub(super) fn new(normal: Vec<u32>, defective: Vec<(u32, f64)>) -> Self {
        Self { normal, defective }
    }

    pub(super) fn is_defective(&self) -> bool {
        self.defective.iter().any(|&(count, _)| count > 0)
    }

    /// The order of all pixels of some images (of one and the same bins), those of a bin as if they had one score.
    pub(super) fn ranking<'a>(images: impl Iterator<Item = &'a Self>) -> Result<Ranking> {
        let (mut normal, mut defective): (Vec<u64>, Vec<(u32, f64)>) = (vec![], vec![]);
        for image in images {
            normal.resize(image.normal.len(), 0);
            defective.resize(image.normal.len() - 1, (0, 0.0));
            for (sum, &count) in normal.iter_mut().zip(&image.normal) {
                *sum += u64::from(count);
            }
            for (sum, &(count, overlap)) in defective.iter_mut().zip(&image.defective) {
                *sum = (sum.0 + count, sum.1 + overlap);
            }
        }
        let (mut groups, mut normals) = (Vec::new(), vec![normal.first().copied().unwrap_or(0)]);
        for (bin, (&(count, overlap), &beside)) in
            defective.iter().zip(normal.iter().skip(1)).enumerate()
        {
            let score = bin as f64;
            if count > 0 {
                groups.push(Group {
                    score,
                    count,
                    overlap,
                });
                normals.extend([beside, 0]);
            } else if let Some(between) = normals.last_mut() {
                *between += beside;
            }
        }
        Ranking::from_counts("pixel bootstrap", groups, normals)
    }
}
