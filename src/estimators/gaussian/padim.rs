//! PaDiM: the Mahalanobis distance of a position's feature to what is usual there.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::PaDiMConfig;
use crate::estimators::{
    Estimator, EstimatorConfig, MethodConfig as _, NativeMaps, Scoring, embedding, expect_features,
    memory::Grid,
};
use crate::kernels::{FeatureShape, gaussian::Gaussians};
use crate::{Error, Result};

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
        let expected = [
            (CHANNELS, vec![kept]),
            (MEANS, vec![positions, kept]),
            (FACTORS, vec![positions, kept * (kept + 1) / 2]),
        ];
        if let Some(name) = tensors
            .keys()
            .find(|name| expected.iter().all(|(n, _)| n != name))
        {
            return Err(Error::Invalid(format!("tensor `{name}` is not PaDiM's")));
        }
        for (name, dims) in expected {
            let tensor = named(&tensors, name)?;
            if tensor.dims() != dims {
                return Err(Error::Shape {
                    what: format!("tensor `{name}` (is it of another backbone or input?)"),
                    expected: format!("{dims:?}"),
                    found: format!("{:?}", tensor.dims()),
                });
            }
        }
        let channels = named(&tensors, CHANNELS)?.to_dtype(DType::U32)?.to_vec1()?;
        let all = embedding::channels(shapes) as u32;
        if !channels.windows(2).all(|pair| pair[0] < pair[1]) || channels.iter().any(|&c| c >= all)
        {
            return Err(Error::Invalid(format!(
                "tensor `{CHANNELS}` must ascend and stay below {all}"
            )));
        }
        let [means, factors] = [MEANS, FACTORS].map(|name| finite(&tensors, name));
        let (means, factors) = (means?.to_device(device)?, factors?.to_device(device)?);
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

fn named<'a>(tensors: &'a BTreeMap<String, Tensor>, name: &str) -> Result<&'a Tensor> {
    let tensor = tensors.get(name);
    tensor.ok_or_else(|| Error::Invalid(format!("tensor `{name}` is missing")))
}

fn finite(tensors: &BTreeMap<String, Tensor>, name: &str) -> Result<Tensor> {
    let tensor = named(tensors, name)?.to_dtype(DType::F32)?;
    let largest = tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    // A maximum passes NaN by; a sum does not.
    let sum = tensor.sum_all()?.to_scalar::<f32>()?;
    if largest.is_finite() && !sum.is_nan() {
        return Ok(tensor);
    }
    Err(Error::Invalid(format!(
        "tensor `{name}` holds a number that is not finite"
    )))
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
