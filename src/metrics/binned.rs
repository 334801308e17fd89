//! The pixels of single images in a few hundred bins: what a bootstrap over images draws again. Intervals come from
//! them, never a figure itself.

use super::Ranking;
use super::ranking::Group;
use crate::Result;

/// Bins, each with the same number of the test set's defective pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Bins {
    /// The highest score of each bin, ascending; one more bin lies above the last.
    tops: Vec<f64>,
}

impl Bins {
    /// Cuts `groups` into `count` bins, fewer where there are fewer scores.
    pub(super) fn new(groups: &[Group], count: usize) -> Self {
        let total: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
        let (mut tops, mut passed) = (Vec::with_capacity(count), 0);
        for group in groups {
            passed += u64::from(group.count);
            // The share passed, in bins, has reached a whole number.
            if passed * count as u64 >= (tops.len() as u64 + 1) * total {
                tops.push(group.score);
            }
        }
        Self { tops }
    }

    /// How many of the sorted scores fall into each bin.
    pub(super) fn count(&self, sorted: &[f32]) -> Vec<u32> {
        let mut below = 0;
        let mut counts = Vec::with_capacity(self.tops.len() + 1);
        for &top in &self.tops {
            let inside = sorted[below..].partition_point(|&score| f64::from(score) <= top);
            counts.push(inside as u32);
            below += inside;
        }
        counts.push((sorted.len() - below) as u32);
        counts
    }

    /// The defective pixels' number and sum of 1 / area of their regions in each bin.
    pub(super) fn regions(&self, scores: &[(f64, f64)]) -> Vec<(u32, f64)> {
        let mut bins = vec![(0, 0.0); self.tops.len()];
        for &(score, overlap) in scores {
            // None is above the last: the tops are defective pixels' scores.
            if let Some(bin) = bins.get_mut(self.tops.partition_point(|&top| top < score)) {
                *bin = (bin.0 + 1, bin.1 + overlap);
            }
        }
        bins
    }
}

/// The pixels of one image by [`Bins`].
#[derive(Debug, Clone, PartialEq)]
pub struct BinnedPixels {
    /// Normal pixels of each bin.
    normal: Vec<u32>,
    /// Of each but the last; empty of an image without defective pixels.
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
        let mut normals: Vec<u64> = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for image in images {
            if groups.is_empty() {
                normals = vec![0; 2 * image.normal.len() - 1];
                groups = (0..image.normal.len() - 1)
                    .map(|bin| Group {
                        score: bin as f64,
                        count: 0,
                        overlap: 0.0,
                    })
                    .collect();
            }
            for (bin, &count) in image.normal.iter().enumerate() {
                // Beside the group of its bin; those of the last bin above all groups.
                let slot = (2 * bin + 1).min(normals.len() - 1);
                normals[slot] += u64::from(count);
            }
            for (group, &(count, overlap)) in groups.iter_mut().zip(&image.defective) {
                group.count += count;
                group.overlap += overlap;
            }
        }
        Ranking::from_counts("pixel bootstrap", groups, normals)
    }
}
