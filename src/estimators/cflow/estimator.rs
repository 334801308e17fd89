//! CFLOW-AD as an [`Estimator`]: maps of negative log-likelihoods.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    CFlowConfig,
    scale::{Latent, Scale},
};
use crate::estimators::{
    Estimator, EstimatorConfig, FeatureSource, MapKind, MethodConfig as _, NativeMaps, Scoring,
    Trainable, channel_statistics, expect_features, tensors::Source,
};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// A conditional flow a feature map.
#[derive(Debug)]
pub struct CFlow {
    config: CFlowConfig,
    shapes: Vec<FeatureShape>,
    scales: Vec<Scale>,
    device: Device,
}

impl CFlow {
    /// A fresh flow, all randomness from `seed`.
    ///
    /// # Errors
    /// When the configuration is absurd.
    pub fn init(
        config: &CFlowConfig,
        shapes: &[FeatureShape],
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let scale = |shape| Scale::init(config, shape, &mut rng, device);
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            scales: shapes.iter().map(scale).collect::<Result<_>>()?,
            device: device.clone(),
        })
    }

    /// A flow from the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// When a tensor is missing, unexpected, misshapen, not finite or no rotation; names it.
    pub fn from_tensors(
        config: &CFlowConfig,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let mut source = Source::new(tensors, device);
        let scale = |(scale, shape)| Scale::take(config, scale, shape, &mut source, device);
        let scales = shapes.iter().enumerate().map(scale);
        let scales = scales.collect::<Result<_>>()?;
        source.finish()?;
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            scales,
            device: device.clone(),
        })
    }

    /// Of each feature map `[B, C, h, w]` its latents `z [B h w, C]` and `log|det J| [B h w]` of every position, image by
    /// image and row by row.
    ///
    /// # Errors
    /// When the maps have other shapes than [`Estimator::shapes`].
    pub fn forward(&self, features: &[Tensor]) -> Result<Vec<(Tensor, Tensor)>> {
        let latents = self.latents(features)?.into_iter();
        Ok(latents.map(|latent| (latent.z, latent.log_det)).collect())
    }

    fn latents(&self, features: &[Tensor]) -> Result<Vec<Latent>> {
        expect_features(features, &self.shapes)?;
        let scales = self.scales.iter().zip(features);
        scales
            .map(|(scale, map)| scale.forward(map, false))
            .collect()
    }
}

impl Estimator for CFlow {
    fn config(&self) -> EstimatorConfig {
        EstimatorConfig::CFlow(self.config.clone())
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let scales = self.scales.iter().enumerate();
        Ok(scales
            .flat_map(|(index, scale)| scale.tensors(index))
            .collect())
    }

    fn parameter_count(&self) -> usize {
        self.config.parameter_count(&self.shapes)
    }

    fn native_maps(&self, features: &[Tensor], scoring: &Scoring) -> Result<NativeMaps> {
        let mut image = Vec::with_capacity(features.len());
        for (latent, shape) in self.latents(features)?.iter().zip(&self.shapes) {
            let nll = (latent.nll()? / shape.channels as f64)?;
            image.push(nll.reshape(((), shape.height, shape.width))?);
        }
        let of_kind = |kind: MapKind| {
            let maps = image.iter().map(|nll| shown(nll, kind));
            maps.collect::<Result<Vec<_>>>()
        };
        Ok(NativeMaps {
            pixel: of_kind(scoring.pixel_map)?,
            image: of_kind(scoring.image_map)?,
            scores: None,
        })
    }
}

/// A map of negative log-likelihoods a channel as one of `kind`.
fn shown(nll: &Tensor, kind: MapKind) -> Result<Tensor> {
    match kind {
        MapKind::Nll => Ok(nll.clone()),
        MapKind::Exp => Ok(nll.neg()?.exp()?.neg()?),
        MapKind::Prob | MapKind::Distance => Err(Error::Invalid(format!(
            "CFLOW-AD has no map `{kind}`; it has nll and exp"
        ))),
    }
}

impl Trainable for CFlow {
    fn parameters(&self) -> Vec<(String, Var)> {
        let scales = self.scales.iter().enumerate();
        let mut all: Vec<_> = scales
            .flat_map(|(index, scale)| scale.variables(index))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn prepare(&mut self, features: &dyn FeatureSource) -> Result<()> {
        if features.shapes() != self.shapes {
            return Err(Error::Invalid(
                "the training features have other shapes than the flow's".into(),
            ));
        }
        let statistics = channel_statistics(features)?;
        for (scale, statistics) in self.scales.iter_mut().zip(&statistics) {
            scale.set_statistics(statistics)?;
        }
        Ok(())
    }

    fn nll(&self, features: &[Tensor]) -> Result<Tensor> {
        let mut each = Vec::with_capacity(features.len());
        for (latent, shape) in self.latents(features)?.iter().zip(&self.shapes) {
            let nll = latent.nll()?.to_dtype(DType::F64)?;
            each.push(nll.reshape(((), shape.height * shape.width))?.sum(1)?);
        }
        Ok(Tensor::stack(&each, 0)?.sum(0)?.to_dtype(DType::F32)?)
    }

    fn loss_and_gradients(&self, features: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        expect_features(features, &self.shapes)?;
        let (mut losses, mut gradients) = (Vec::with_capacity(features.len()), Vec::new());
        for (index, (scale, map)) in self.scales.iter().zip(features).enumerate() {
            let (loss, named) = scale.loss_and_gradients(index, map)?;
            losses.push(loss);
            gradients.extend(named);
        }
        gradients.sort_by(|a, b| a.0.cmp(&b.0));
        let gradients = gradients.into_iter().map(|(_, gradient)| gradient);
        Ok((Tensor::stack(&losses, 0)?.sum_all()?, gradients.collect()))
    }
}
