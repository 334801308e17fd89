//! A test set made of normal images and synthetic defects in them.

use std::collections::HashMap;

use super::{Dataset, Edit, Sample, layout};
use crate::{Result, imaging::SyntheticDefect};

impl Dataset {
    /// The data set with a test set of synthetic defects in `held_out`, training images by their names
    /// ([`Sample::name`]), as a detector's training record lists them.
    ///
    /// # Errors
    /// [`Error::Dataset`](crate::Error::Dataset) when one of them is not a training image of this data set, or there is none.
    pub fn with_synthetic_defects(self, held_out: &[String], seed: u64) -> Result<Self> {
        let named = |sample| (Sample::name(sample, &self.root), sample);
        let by_name: HashMap<String, &Sample> = self.train.iter().map(named).collect();
        let find = |name: &String| {
            by_name.get(name).copied().cloned().ok_or_else(|| {
                let reason = format!(
                    "has no training image {name}, which the detector held out; give the folder it was trained on"
                );
                layout::fault(&self.root, reason)
            })
        };
        let normals: Vec<Sample> = held_out.iter().map(find).collect::<Result<_>>()?;
        if normals.is_empty() {
            let reason = "the detector has no record of held-out images of it";
            return Err(layout::fault(&self.root, reason));
        }
        Ok(Self {
            test: synthetic_defects(&normals, seed),
            ..self
        })
    }
}

/// Each normal image as it is, and once with each kind of [`SyntheticDefect`]: what a choice is made on
/// that must not look at real defects. Defects differ from image to image; the same seed draws the same.
pub fn synthetic_defects(normals: &[Sample], seed: u64) -> Vec<Sample> {
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
