//! PatchCore's settings.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Grid, Metric, PatchCore, fit};
use crate::Result;
use crate::estimators::{
    ClosedMethod, Estimator, FeatureSource, FitWith, Fitting, ImageScore, MethodConfig, Paper,
    Scoring, embedding, method::expect,
};
use crate::kernels::FeatureShape;

/// PatchCore (Roth et al. 2021, arXiv 2106.08265).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchCoreConfig {
    /// Side of the square of positions that a feature is averaged over (section 3.1: 3).
    pub neighbourhood: usize,
    /// The most features that are remembered, chosen greedily (section 3.2).
    pub memory: usize,
    /// Neighbours in the memory that weigh the image score (section 3.3, equation 7: 9).
    pub neighbours: usize,
    /// On which map's grid the maps of an input are joined.
    #[serde(skip_serializing_if = "Grid::is_finest", default)]
    pub grid: Grid,
    /// Inputs of different sizes that the features come from, each with a memory and a map of its own.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub inputs: usize,
    /// Neighbours that say how densely the memory is filled around a remembered feature: a distance counts for less
    /// where features lie far apart. 0: it counts as it is, as in the paper.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub density: usize,
    /// Whether distances are divided by what they are among training photos, so that maps of different inputs are
    /// comparable and 1 is usual.
    #[serde(skip_serializing_if = "is_false", default)]
    pub normalised: bool,
    /// What is near.
    #[serde(skip_serializing_if = "Metric::is_euclidean", default)]
    pub metric: Metric,
    /// How the memory lies in the file.
    #[serde(skip_serializing_if = "Precision::is_full", default)]
    pub precision: Precision,
}

fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// How numbers lie in a file; computing is in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Half the size.
    F16,
}

impl Precision {
    fn is_full(&self) -> bool {
        *self == Self::F32
    }
}

impl PatchCoreConfig {
    /// Whether a distance counts differently from one remembered feature to another, or is divided by something.
    pub(super) fn weighs(&self) -> bool {
        self.density > 0 || self.normalised
    }

    /// The maps of one input.
    pub(super) fn of_input<'a, T>(&self, input: usize, maps: &'a [T]) -> &'a [T] {
        let each = maps.len() / self.inputs;
        &maps[input * each..(input + 1) * each]
    }
}

impl Default for PatchCoreConfig {
    fn default() -> Self {
        Self {
            neighbourhood: 3,
            memory: 8000,
            neighbours: 9,
            grid: Grid::Finest,
            inputs: 1,
            density: 0,
            normalised: false,
            metric: Metric::Euclidean,
            precision: Precision::F32,
        }
    }
}

/// The most features that a memory may hold: 3 GB of 768 channels.
const MAX_MEMORY: usize = 1_000_000;

impl MethodConfig for PatchCoreConfig {
    fn title(&self) -> &'static str {
        "PatchCore"
    }

    fn paper(&self) -> Paper {
        Paper {
            url: "https://arxiv.org/abs/2106.08265",
            bibtex: "@inproceedings{roth2022patchcore,
  title     = {Towards Total Recall in Industrial Anomaly Detection},
  author    = {Roth, Karsten and Pemula, Latha and Zepeda, Joaquin and Sch{\\\"o}lkopf, Bernhard and Brox, Thomas and Gehler, Peter},
  booktitle = {CVPR},
  year      = {2022}
}",
        }
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        let metric = match self.metric {
            Metric::Euclidean => "Euclidean",
            Metric::Cosine => "cosine",
        };
        vec![
            ("Features", {
                let side = self.neighbourhood;
                format!("averaged over {side}x{side} positions, {metric} distances")
            }),
            ("Memory", {
                let memory = format!("at most {} features, a greedy coreset", self.memory);
                match self.inputs {
                    1 => memory,
                    inputs => format!("{memory}, for each of {inputs} input sizes"),
                }
            }),
        ]
    }

    fn map_count(&self, _: &[FeatureShape]) -> usize {
        self.inputs
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        let check = |ok, must: &str| expect(self.title(), ok, must);
        check(!shapes.is_empty(), "needs feature maps")?;
        check(
            self.neighbourhood % 2 == 1 && self.neighbourhood <= 15,
            "neighbourhood must be an odd number up to 15",
        )?;
        check(
            (1..=MAX_MEMORY).contains(&self.memory),
            "memory must be 1 to 1000000 features",
        )?;
        check(
            (1..=100).contains(&self.neighbours),
            "neighbours must be 1 to 100",
        )?;
        check(
            (1..=16).contains(&self.inputs) && shapes.len().is_multiple_of(self.inputs.max(1)),
            "inputs must be 1 to 16, each with as many feature maps",
        )?;
        check(
            self.density <= 100,
            "density must be at most 100 neighbours",
        )?;
        check(
            embedding::channels(shapes) <= 1 << 16,
            "more than 65536 channels",
        )
    }

    /// Section 3.3: the reweighted score, and a map smoothed with a deviation of 4 pixels.
    fn scoring(&self) -> Scoring {
        Scoring {
            image_score: if self.has_own_score() {
                ImageScore::Own
            } else {
                ImageScore::Max
            },
            smoothing: Some(4.0),
            ..Scoring::of_distances()
        }
    }

    fn has_own_score(&self) -> bool {
        self.inputs == 1 && !self.normalised
    }

    fn load(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Estimator>> {
        Ok(Box::new(PatchCore::from_tensors(
            self, shapes, tensors, device,
        )?))
    }

    fn fitting(&self) -> Fitting<'_> {
        Fitting::Closed(self)
    }
}

impl ClosedMethod for PatchCoreConfig {
    fn fit(
        &self,
        features: &dyn FeatureSource,
        with: &mut FitWith<'_>,
    ) -> Result<Box<dyn Estimator>> {
        self.validate(features.shapes())?;
        let mut tensors = BTreeMap::new();
        for input in 0..self.inputs {
            fit::bank(self, input, features, with)?.name(input, &mut tensors);
        }
        self.load(features.shapes(), tensors, with.device)
    }
}
