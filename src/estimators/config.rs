//! The one list of methods.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::{
    Fitting, MethodConfig,
    cflow::CFlowConfig,
    flow::FlowConfig,
    gaussian::{MahalanobisConfig, PaDiMConfig},
    memory::PatchCoreConfig,
};
use crate::Error;

/// A method and its settings, tagged by `kind`: what an artifact says about its estimator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EstimatorConfig {
    /// FastFlow (Yu et al. 2021): a normalising flow a feature map.
    FastFlow(FlowConfig),
    /// PatchCore (Roth et al. 2021): distance to the nearest of many normal features.
    PatchCore(PatchCoreConfig),
    /// PaDiM (Defard et al. 2020): a Gaussian a position.
    PaDiM(PaDiMConfig),
    /// Mahalanobis (Rippel et al. 2020): a Gaussian a feature map over whole photos.
    Mahalanobis(MahalanobisConfig),
    /// CFLOW-AD (Gudovskiy et al. 2021): a conditional flow a feature map, over single positions.
    CFlow(CFlowConfig),
}

impl Deref for EstimatorConfig {
    type Target = dyn MethodConfig;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::FastFlow(config) => config,
            Self::PatchCore(config) => config,
            Self::PaDiM(config) => config,
            Self::Mahalanobis(config) => config,
            Self::CFlow(config) => config,
        }
    }
}

/// The methods by the words of flags, names and listings.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[cfg_attr(feature = "cli", value(rename_all = "lower"))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Normalising flows over the feature maps, trained by maximum likelihood
    #[default]
    FastFlow,
    /// A memory of normal features and the distance to the nearest; fitted in a minute
    PatchCore,
    /// A Gaussian at every position: for products that always lie the same way
    PaDiM,
    /// A Gaussian of whole photos' features: no defect is shown, only whether there is one
    Mahalanobis,
    /// Normalising flows over single positions that are told where they lie, trained by maximum likelihood
    CFlow,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::FastFlow,
        Self::PatchCore,
        Self::PaDiM,
        Self::Mahalanobis,
        Self::CFlow,
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::FastFlow => "fastflow",
            Self::PatchCore => "patchcore",
            Self::PaDiM => "padim",
            Self::Mahalanobis => "mahalanobis",
            Self::CFlow => "cflow",
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl EstimatorConfig {
    /// Which method it is.
    pub fn method(&self) -> Method {
        match self {
            Self::FastFlow(_) => Method::FastFlow,
            Self::PatchCore(_) => Method::PatchCore,
            Self::PaDiM(_) => Method::PaDiM,
            Self::Mahalanobis(_) => Method::Mahalanobis,
            Self::CFlow(_) => Method::CFlow,
        }
    }

    /// Whether it is fitted by gradient steps; the others are fitted in closed form, in one pass.
    pub fn is_trained(&self) -> bool {
        matches!(self.fitting(), Fitting::Gradient(_))
    }

    /// The flow's settings, of the method that is one.
    pub fn as_flow(&self) -> Option<&FlowConfig> {
        match self {
            Self::FastFlow(config) => Some(config),
            _ => None,
        }
    }

    /// The error of asking for `what` where a method lacks it.
    pub fn lacks(&self, what: &str) -> Error {
        Error::Invalid(format!("{} has no {what}", self.title()))
    }
}
