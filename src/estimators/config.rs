//! The one list of methods.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::{
    Fitting, MethodConfig,
    cflow::CFlowConfig,
    differnet::DifferNetConfig,
    ensemble::EnsembleConfig,
    flow::FlowConfig,
    gaussian::{MahalanobisConfig, PaDiMConfig},
    memory::{PatchCoreConfig, SpadeConfig},
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
    /// SPADE (Cohen and Hoshen 2020): the nearest photos, then the nearest positions in them.
    Spade(SpadeConfig),
    /// Mahalanobis (Rippel et al. 2020): a Gaussian a feature map over whole photos.
    Mahalanobis(MahalanobisConfig),
    /// CFLOW-AD (Gudovskiy et al. 2021): a conditional flow a feature map, over single positions.
    CFlow(CFlowConfig),
    /// DifferNet (Rudolph et al. 2021): a flow over whole photos' pooled features.
    DifferNet(DifferNetConfig),
    /// Several of them.
    Ensemble(EnsembleConfig),
}

impl Deref for EstimatorConfig {
    type Target = dyn MethodConfig;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::FastFlow(config) => config,
            Self::PatchCore(config) => config,
            Self::PaDiM(config) => config,
            Self::Spade(config) => config,
            Self::Mahalanobis(config) => config,
            Self::CFlow(config) => config,
            Self::DifferNet(config) => config,
            Self::Ensemble(config) => config,
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
    /// All features of all photos: the nearest photos, then the nearest positions in them
    Spade,
    /// A Gaussian of whole photos' features: no defect is shown, only whether there is one
    Mahalanobis,
    /// Normalising flows over single positions that are told where they lie, trained by maximum likelihood
    CFlow,
    /// A fully connected flow over whole photos' features at three sizes and four turns
    DifferNet,
    /// Several methods over the same features
    #[cfg_attr(feature = "cli", value(skip))]
    Ensemble,
}

impl Method {
    /// All single ones.
    pub const ALL: [Self; 7] = [
        Self::FastFlow,
        Self::PatchCore,
        Self::PaDiM,
        Self::Spade,
        Self::Mahalanobis,
        Self::CFlow,
        Self::DifferNet,
    ];

    /// Whether it is one method, fitted in closed form.
    pub fn is_closed(self) -> bool {
        use Method::{Mahalanobis, PaDiM, PatchCore, Spade};
        matches!(self, PatchCore | PaDiM | Spade | Mahalanobis)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::FastFlow => "fastflow",
            Self::PatchCore => "patchcore",
            Self::PaDiM => "padim",
            Self::Spade => "spade",
            Self::Mahalanobis => "mahalanobis",
            Self::CFlow => "cflow",
            Self::DifferNet => "differnet",
            Self::Ensemble => "ensemble",
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
            Self::Spade(_) => Method::Spade,
            Self::Mahalanobis(_) => Method::Mahalanobis,
            Self::CFlow(_) => Method::CFlow,
            Self::DifferNet(_) => Method::DifferNet,
            Self::Ensemble(_) => Method::Ensemble,
        }
    }

    /// Whether it is fitted by gradient steps; the others are fitted in closed form, in one pass.
    pub fn is_trained(&self) -> bool {
        match self.fitting() {
            Fitting::Gradient(_) => true,
            Fitting::Closed(_) => false,
            Fitting::Members(all) => all.members.iter().any(|m| m.estimator.is_trained()),
        }
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
