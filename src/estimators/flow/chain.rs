//! One scale of a flow: its norm and its steps.

use candle_core::{Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::norm::{self, Norm, Whitening};
use super::scales::Scales;
use super::step::{Kept, Parameters, Step, StepShape};
use super::{Activations, FlowConfig, Latent};
use crate::estimators::tensors::Source;
use crate::estimators::{ChannelCovariance, ChannelStatistics};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// The norm and the coupling steps over one feature map.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    norm: Norm,
    steps: Vec<Step>,
}

impl Chain {
    pub(super) fn init(
        config: &FlowConfig,
        scale: usize,
        shape: &FeatureShape,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Result<Self> {
        let step = |step| {
            let shape = StepShape::of(config, scale, shape, step);
            Step::init(shape, config.clamp, rng, device)
        };
        Ok(Self {
            norm: Norm::init(config.norm, shape, device)?,
            steps: (0..config.steps).map(step).collect::<Result<_>>()?,
        })
    }

    /// Takes its tensors, whose names start with `scales.{scale}.`, out of `source`.
    pub(super) fn take(
        config: &FlowConfig,
        scale: usize,
        shape: &FeatureShape,
        source: &mut Source,
    ) -> Result<Self> {
        let norm = Norm::from_names(config.norm, |name| {
            let dims = norm::dims(config.norm, name, shape);
            source.take(&format!("scales.{scale}.norm.{name}"), &dims)
        })?;
        let step = |step: usize| {
            let prefix = format!("scales.{scale}.steps.{step}");
            let sizes = StepShape::of(config, scale, shape, step);
            let parameters = Parameters::try_from_names(|name| {
                let tensor = source.take(&format!("{prefix}.{name}"), &sizes.dims(name))?;
                Ok(Var::from_tensor(&tensor)?)
            })?;
            let permutation =
                source.take_permutation(&format!("{prefix}.permutation"), shape.channels)?;
            Ok(Step::new(parameters, permutation, sizes, config.clamp))
        };
        let chain = Self {
            norm,
            steps: (0..config.steps).map(step).collect::<Result<_>>()?,
        };
        if let Norm::Standardise { mean, std } = &chain.norm {
            check_statistics(scale, &mean.to_vec1()?, &std.to_vec1()?)?;
        }
        Ok(chain)
    }

    /// Everything it stores, by name.
    pub(super) fn tensors(&self, scale: usize) -> Result<Vec<(String, Tensor)>> {
        let named = self.variables(scale).into_iter();
        let mut all: Vec<_> = named
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        let statistics = self.norm.statistics().into_iter();
        all.extend(
            statistics.map(|(name, tensor)| (format!("scales.{scale}.norm.{name}"), tensor)),
        );
        for (index, step) in self.steps.iter().enumerate() {
            let indices = step.permutation.indices();
            let tensor = Tensor::from_slice(indices, indices.len(), &Device::Cpu)?;
            all.push((format!("scales.{scale}.steps.{index}.permutation"), tensor));
        }
        Ok(all)
    }

    /// Where its tensors are.
    pub(super) fn device(&self) -> Device {
        let first = self.steps.first();
        first.map_or(Device::Cpu, |step| {
            step.parameters.global_scale.device().clone()
        })
    }

    /// Everything it trains, by name.
    pub(super) fn variables(&self, scale: usize) -> Vec<(String, Var)> {
        let norm = self.norm.variables().into_iter();
        let mut all: Vec<_> = norm
            .map(|(name, var)| (format!("scales.{scale}.norm.{name}"), var))
            .collect();
        for (index, step) in self.steps.iter().enumerate() {
            let named = step.parameters.clone().named().into_iter();
            all.extend(
                named.map(|(name, var)| (format!("scales.{scale}.steps.{index}.{name}"), var)),
            );
        }
        all
    }

    pub(super) fn set_statistics(
        &mut self,
        scale: usize,
        statistics: &ChannelStatistics,
    ) -> Result<()> {
        let Norm::Standardise { mean, std } = &mut self.norm else {
            return Err(Error::Invalid(
                "feature statistics belong to the norm `standardise`; this flow has another".into(),
            ));
        };
        let channels = mean.elem_count();
        if statistics.mean.len() != channels || statistics.std.len() != channels {
            return Err(Error::Shape {
                what: format!("feature statistics of map {scale}"),
                expected: format!("{channels} means and deviations"),
                found: format!("{} and {}", statistics.mean.len(), statistics.std.len()),
            });
        }
        check_statistics(scale, &statistics.mean, &statistics.std)?;
        let device = mean.device().clone();
        *mean = Tensor::from_slice(&statistics.mean, channels, &device)?;
        *std = Tensor::from_slice(&statistics.std, channels, &device)?;
        Ok(())
    }

    pub(super) fn set_covariance(
        &mut self,
        scale: usize,
        covariance: &ChannelCovariance,
    ) -> Result<()> {
        let Norm::Whiten(whitening) = &self.norm else {
            return Err(Error::Invalid(
                "feature covariances belong to the norm `whiten`; this flow has another".into(),
            ));
        };
        let channels = whitening.channels();
        if covariance.mean.len() != channels {
            return Err(Error::Shape {
                what: format!("feature covariance of map {scale}"),
                expected: format!("{channels} means"),
                found: covariance.mean.len().to_string(),
            });
        }
        let matrix = covariance
            .whitening()
            .map_err(|error| Error::Invalid(format!("feature map {scale}: {error}")))?;
        let device = self.device();
        let mean = Tensor::from_slice(&covariance.mean, channels, &device)?;
        let matrix = Tensor::from_vec(matrix, (channels, channels), &device)?;
        self.norm = Norm::Whiten(Whitening::new(mean, matrix)?);
        Ok(())
    }

    pub(super) fn forward(&self, features: &Tensor) -> Result<Latent> {
        let scales = Scales::of(&self.steps)?;
        let mut z = self.norm.forward(features)?;
        let mut log_det = scales.log_det()?;
        for (index, step) in self.steps.iter().enumerate() {
            let (y, step_log_det, _) = step.forward(&z, &scales.affine(index)?)?;
            z = y;
            log_det = log_det.broadcast_add(&step_log_det)?;
        }
        Ok(Latent { z, log_det })
    }

    pub(super) fn inverse(&self, z: &Tensor) -> Result<Tensor> {
        self.norm.inverse(&self.inverse_steps(z)?)
    }

    pub(super) fn inverse_steps(&self, z: &Tensor) -> Result<Tensor> {
        let scales = Scales::of(&self.steps)?;
        let mut x = z.clone();
        for (index, step) in self.steps.iter().enumerate().rev() {
            x = step.inverse(&x, &scales.affine(index)?)?;
        }
        Ok(x)
    }

    /// The summed negative log-likelihood of a batch (an f64 scalar), and the gradients of [`Self::variables`] by name.
    pub(super) fn loss_and_gradients(
        &self,
        scale: usize,
        features: &Tensor,
        activations: Activations,
    ) -> Result<(Tensor, Vec<(String, Tensor)>)> {
        let scales = Scales::of(&self.steps)?;
        let mut z = self.norm.forward(features)?;
        let mut log_det = scales.log_det()?;
        let mut kept = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let (y, step_log_det, of_step) = step.forward(&z, &scales.affine(index)?)?;
            z = y;
            log_det = log_det.broadcast_add(&step_log_det)?;
            if activations == Activations::Keep {
                kept.push(of_step);
            }
        }
        let latent = Latent { z, log_det };
        let loss = latent.nll()?.sum_all()?;
        let (input, of_steps) = self.backward(&scales, latent.z, kept)?;
        let mut gradients = Vec::with_capacity(6 * of_steps.len() + 2);
        for (index, of_step) in of_steps.into_iter().enumerate() {
            let prefix = format!("scales.{scale}.steps.{index}");
            let named = of_step.named().into_iter();
            gradients.extend(named.map(|(name, tensor)| (format!("{prefix}.{name}"), tensor)));
        }
        let norm = self.norm.gradients(features, &input)?.into_iter();
        gradients
            .extend(norm.map(|(name, tensor)| (format!("scales.{scale}.norm.{name}"), tensor)));
        Ok((loss, gradients))
    }

    /// The gradient of the first step's input (of a later one's output where no norm wants it), and those of all
    /// steps, from the latents; what is not `kept` is rebuilt.
    fn backward(
        &self,
        scales: &Scales,
        z: Tensor,
        mut kept: Vec<Kept>,
    ) -> Result<(Tensor, Vec<Parameters<Tensor>>)> {
        let (batch, _, height, width) = z.dims4()?;
        // The gradient of 0.5 z^2 is z.
        let mut gradient = z.clone();
        let mut output = z;
        let mut of_steps = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate().rev() {
            let affine = scales.affine(index)?;
            let of_step = match kept.pop() {
                Some(of_step) => of_step,
                None => step.rebuild(&output, &affine)?,
            };
            let wanted = index > 0 || self.norm.is_trainable();
            let (input, parameters) = step.backward(&of_step, &affine, &gradient, wanted)?;
            output = of_step.input;
            of_steps.push(parameters);
            if let Some(input) = input {
                gradient = input;
            }
        }
        of_steps.reverse();
        let of_scales: Vec<Tensor> = of_steps
            .iter()
            .map(|parameters| parameters.global_scale.clone())
            .collect();
        let of_scales = scales.gradients(&of_scales, batch * height * width)?;
        for (parameters, of_scale) in of_steps.iter_mut().zip(of_scales) {
            parameters.global_scale = of_scale;
        }
        Ok((gradient, of_steps))
    }
}

/// Standardising divides by the deviations.
fn check_statistics(scale: usize, mean: &[f32], std: &[f32]) -> Result<()> {
    let bad = |(mean, std): (&f32, &f32)| !(mean.is_finite() && std.is_finite() && *std > 0.0);
    match mean.iter().zip(std).position(bad) {
        None => Ok(()),
        Some(channel) => Err(Error::Invalid(format!(
            "feature statistics of map {scale}, channel {channel}: mean {} and deviation {} must be finite, the \
             deviation above 0 (is the channel constant over the training images?)",
            mean[channel], std[channel]
        ))),
    }
}
