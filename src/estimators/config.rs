//! The one list of methods: what an artifact says about its estimator.

use serde::{Deserialize, Serialize};

use super::{MapKind, flow::FlowConfig};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// A method and its settings, tagged by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EstimatorConfig {
    /// FastFlow (Yu et al. 2021): a normalising flow a feature map.
    FastFlow(FlowConfig),
}

impl EstimatorConfig {
    /// The word for it in flags, names and listings.
    pub fn method(&self) -> &'static str {
        match self {
            Self::FastFlow(_) => "fastflow",
        }
    }

    /// Its name in sentences.
    pub fn title(&self) -> &'static str {
        match self {
            Self::FastFlow(_) => "FastFlow",
        }
    }

    /// Checks sizes before anything is allocated.
    ///
    /// # Errors
    /// The first setting that is out of range or does not fit the feature maps.
    pub fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        match self {
            Self::FastFlow(config) => config.validate(shapes),
        }
    }

    /// Whether it is fitted by gradient steps; the others are fitted in closed form, in one pass.
    pub fn is_trained(&self) -> bool {
        match self {
            Self::FastFlow(_) => true,
        }
    }

    /// How many maps it makes of these feature maps.
    pub fn map_count(&self, shapes: &[FeatureShape]) -> usize {
        match self {
            Self::FastFlow(_) => shapes.len(),
        }
    }

    /// Whether it has an image score that is not read off its map ([`super::ImageScore::Own`]).
    pub fn has_own_score(&self) -> bool {
        match self {
            Self::FastFlow(_) => false,
        }
    }

    /// The maps it can make, the default first.
    pub fn map_kinds(&self) -> &'static [MapKind] {
        match self {
            Self::FastFlow(_) => &[MapKind::Prob, MapKind::Exp, MapKind::Nll],
        }
    }

    /// The flow's settings, of the method that is one.
    pub fn as_flow(&self) -> Option<&FlowConfig> {
        match self {
            Self::FastFlow(config) => Some(config),
        }
    }

    /// The error of asking for `what` where a method lacks it.
    pub fn lacks(&self, what: &str) -> Error {
        Error::Invalid(format!("{} has no {what}", self.title()))
    }
}
