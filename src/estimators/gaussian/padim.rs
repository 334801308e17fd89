//! PaDiM: the Mahalanobis distance of a position's feature to what is usual there.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::PaDiMConfig;
use crate::Result;
use crate::estimators::{
    Estimator, EstimatorConfig, MethodConfig as _, NativeMaps, Scoring, embedding, expect_features,
    memory::Grid, tensors::Source,
};
use crate::kernels::{FeatureShape, gaussian::Gaussians};

/// Numbers of the kept channels, u32 `[D]`, ascending.
pub(super) const CHANNELS: &str = "channels";
/// `[P, D]`.
pub(super) const MEANS: &str = "means";
/// Of each position the lower triangle of the inverse Cholesky factor of its covariance, row by row:
/// `[P, D (D + 1) / 2]`.
pub(super) const FACTORS: &str = "factors";

/// A Gaussian a position.
#[derive(Debug)]
pub struct PaDiM {
    config: PaDiMConfig,
    shapes: Vec<FeatureShape>,
    channels: Vec<u32>,
    gaussians: Gaussians,
    tensors: BTreeMap<String, Tensor>,
    device: Device,
}

impl PaDiM {
    /// From the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// When the settings are out of range, or a tensor is missing, unexpected, misshapen or not finite.
    pub fn from_tensors(
        config: &PaDiMConfig,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let (rows, columns) = embedding::grid(shapes, Grid::Finest);
        let (positions, kept) = (rows * columns, config.channels);
        let triangle = kept * (kept + 1) / 2;
        let mut source = Source::new(tensors.clone(), device);
        let channels = source.take_ascending(CHANNELS, kept, embedding::channels(shapes))?;
        let means = source.take_values(MEANS, positions..=positions, kept)?;
        let factors = source.take_values(FACTORS, positions..=positions, triangle)?;
        source.finish()?;
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            channels,
            gaussians: Gaussians::new(&means, &factors)?,
            tensors,
            device: device.clone(),
        })
    }
}

impl Estimator for PaDiM {
    fn config(&self) -> EstimatorConfig {
        EstimatorConfig::PaDiM(self.config.clone())
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.tensors.clone())
    }

    fn native_maps(&self, features: &[Tensor], _: &Scoring) -> Result<NativeMaps> {
        expect_features(features, &self.shapes)?;
        let (rows, columns) = embedding::grid(&self.shapes, Grid::Finest);
        let vectors = embedding::embed_channels(features, &self.channels)?;
        let positions = rows * columns;
        let batch = vectors.dim(0)? / positions;
        let vectors = vectors.reshape((batch, positions, self.channels.len()))?;
        let map = self.gaussians.distances(&vectors)?;
        let map = map.reshape((batch, rows, columns))?;
        Ok(NativeMaps {
            image: vec![map.clone()],
            pixel: vec![map],
            scores: None,
        })
    }
}
