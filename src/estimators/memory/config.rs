//! PatchCore's settings.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{PatchCore, embedding, fit};
use crate::estimators::{
    ClosedMethod, Estimator, FeatureSource, FitWith, Fitting, MethodConfig, Paper,
};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

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
    /// What is near.
    #[serde(skip_serializing_if = "Metric::is_euclidean", default)]
    pub metric: Metric,
    /// How the memory lies in the file.
    #[serde(skip_serializing_if = "Precision::is_full", default)]
    pub precision: Precision,
}

/// What is near.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The Euclidean distance of features.
    #[default]
    Euclidean,
    /// That of features of unit length, which depends on the angle alone: for vision transformers (AnomalyDINO,
    /// Damm et al. 2024, arXiv 2405.14529).
    Cosine,
}

impl Metric {
    fn is_euclidean(&self) -> bool {
        *self == Self::Euclidean
    }
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

impl Default for PatchCoreConfig {
    fn default() -> Self {
        Self {
            neighbourhood: 3,
            memory: 8000,
            neighbours: 9,
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
            (
                "Memory",
                format!("at most {} features, a greedy coreset", self.memory),
            ),
        ]
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        let check = |ok: bool, what: &str| match ok {
            true => Ok(()),
            false => Err(Error::Invalid(format!("PatchCore: {what}"))),
        };
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
            embedding::channels(shapes) <= 1 << 16,
            "more than 65536 channels",
        )
    }

    fn has_own_score(&self) -> bool {
        true
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
        let memory = fit::memory(self, features, with)?;
        let shapes = features.shapes();
        Ok(Box::new(PatchCore::new(self, shapes, memory, with.device)?))
    }
}
