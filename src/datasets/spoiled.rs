//! A test set made of normal images and synthetic defects in them.

use super::{Edit, Sample};
use crate::imaging::SyntheticDefect;

/// Each normal image as it is, and once with each kind of [`SyntheticDefect`]: what a choice is made on
/// that must not look at real defects. Defects differ from image to image; the same seed draws the same.
pub fn spoiled(normals: &[Sample], seed: u64) -> Vec<Sample> {
    let with = |sample: &Sample, kind: SyntheticDefect, index: usize| {
        // Far apart for any two seeds, images and kinds.
        let mixed =
            (seed ^ ((index as u64 + 1) << 8) ^ kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Sample {
            defect: Some(kind.name().to_string()),
            ..sample.edited(Edit::Defect(kind, mixed))
        }
    };
    let versions = |(index, sample): (usize, &Sample)| {
        let defects = SyntheticDefect::ALL.map(|kind| with(sample, kind, index));
        std::iter::once(sample.clone())
            .chain(defects)
            .collect::<Vec<_>>()
    };
    normals.iter().enumerate().flat_map(versions).collect()
}
