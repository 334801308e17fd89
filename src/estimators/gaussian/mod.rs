//! Methods that model features as Gaussian: PaDiM one a position, Mahalanobis one of whole photos.

mod fit;
mod mahalanobis;
mod padim;
mod shrunk;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use mahalanobis::{Mahalanobis, MahalanobisConfig};
pub use padim::PaDiM;

use super::{
    ClosedMethod, Estimator, FeatureSource, FitWith, Fitting, MethodConfig, Paper, Scoring,
    embedding,
};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// PaDiM (Defard et al. 2020, arXiv 2011.08785).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaDiMConfig {
    /// Channels of all maps that are kept, drawn at random (section 3.1: 100 of ResNet18's 448, 550 of a wide
    /// ResNet50's 1792).
    pub channels: usize,
    /// What is added to every variance (section 3.2: 0.01).
    pub regularisation: f64,
}

impl PaDiMConfig {
    /// With the paper's regularisation.
    pub fn new(channels: usize) -> Self {
        Self {
            channels,
            regularisation: 0.01,
        }
    }
}

/// The most channels that are kept: the factors of one position are then 2 MB.
const MAX_CHANNELS: usize = 1024;

impl MethodConfig for PaDiMConfig {
    fn title(&self) -> &'static str {
        "PaDiM"
    }

    fn paper(&self) -> Paper {
        Paper {
            url: "https://arxiv.org/abs/2011.08785",
            bibtex: "@inproceedings{defard2021padim,
  title     = {PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization},
  author    = {Defard, Thomas and Setkov, Aleksandr and Loesch, Angelique and Audigier, Romaric},
  booktitle = {ICPR Workshops},
  year      = {2021}
}",
        }
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        let words = format!(
            "one a position over {} channels drawn at random, {} added to every variance",
            self.channels, self.regularisation
        );
        vec![("Gaussians", words)]
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        let channels = embedding::channels(shapes);
        if !(1..=channels.min(MAX_CHANNELS)).contains(&self.channels) {
            return Err(Error::Invalid(format!(
                "PaDiM: channels must be 1 to {}, the backbone's, and at most {MAX_CHANNELS}",
                channels
            )));
        }
        if !(self.regularisation > 0.0 && self.regularisation.is_finite()) {
            return Err(Error::Invalid(
                "PaDiM: regularisation must be a positive number".into(),
            ));
        }
        Ok(())
    }

    fn scoring(&self) -> Scoring {
        Scoring {
            smoothing: Some(4.0),
            ..Scoring::of_distances()
        }
    }

    fn load(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Estimator>> {
        let padim = PaDiM::from_tensors(self, shapes, tensors, device)?;
        Ok(Box::new(padim))
    }

    fn fitting(&self) -> Fitting<'_> {
        Fitting::Closed(self)
    }
}

impl ClosedMethod for PaDiMConfig {
    fn fit(
        &self,
        features: &dyn FeatureSource,
        with: &mut FitWith<'_>,
    ) -> Result<Box<dyn Estimator>> {
        self.validate(features.shapes())?;
        let tensors = fit::tensors(self, features, with)?;
        self.load(features.shapes(), tensors, with.device)
    }
}
