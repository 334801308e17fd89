//! FastFlow: one chain of coupling steps for each feature map, trained by maximum likelihood.

mod chain;
mod changes;
mod config;
mod estimator;
mod norm;
mod preset;
mod scales;
mod step;
#[cfg(test)]
mod tests;
mod whitening;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::chain::Chain;
use crate::estimators::{
    ChannelCovariance, ChannelStatistics, FeatureSource,
    moments::{channel_covariances_of, channel_statistics_of},
    tensors::Source,
};
use crate::kernels::{FeatureShape, map::local_average};
use crate::{Error, Result};

pub use changes::FlowChanges;
pub use config::{Coupling, FeatureNorm, FlowConfig, Kernels};
pub use estimator::{anomaly_map, scale_maps};
pub use preset::Preset;

/// What a flow makes of one feature map.
#[derive(Debug, Clone)]
pub struct Latent {
    /// `[B, C, H, W]`, standard normal where the features are normal.
    pub z: Tensor,
    /// `[B, H, W]`: log|det J| by position; the global scales' part, the same everywhere, is in it.
    pub log_det: Tensor,
}

impl Latent {
    /// `0.5 sum z^2 - log|det J|` of each image, f64 `[B]`.
    fn nll(&self) -> Result<Tensor> {
        let channels = self.z.dim(1)? as f64;
        let energy = crate::kernels::map::negative_log_likelihood(&self.z)?;
        let energy = (energy.flatten_from(1)?.to_dtype(DType::F64)? * channels)?;
        let log_det = self.log_det.flatten_from(1)?.to_dtype(DType::F64)?;
        Ok((energy - log_det)?.sum(1)?)
    }
}

/// Where the reverse pass takes the steps' activations from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activations {
    /// The forward pass leaves them: fastest, and memory grows with the number of steps.
    #[default]
    Keep,
    /// Each step's are rebuilt from its output by its inverse: the subnets run once more, and memory does not
    /// depend on the number of steps. Gradients differ by the inverse's rounding.
    Rebuild,
}

/// A normalising flow over the feature maps of a frozen backbone.
#[derive(Debug)]
pub struct FastFlow {
    config: FlowConfig,
    shapes: Vec<FeatureShape>,
    chains: Vec<Chain>,
    activations: Activations,
}

impl FastFlow {
    /// A fresh flow: torch's convolution initialisation and random permutations, all from `seed`.
    ///
    /// # Errors
    /// When the configuration is absurd.
    pub fn init(
        config: &FlowConfig,
        shapes: &[FeatureShape],
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let chain = |(scale, shape)| Chain::init(config, scale, shape, &mut rng, device);
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            chains: shapes
                .iter()
                .enumerate()
                .map(chain)
                .collect::<Result<_>>()?,
            activations: Activations::default(),
        })
    }

    /// A flow from the tensors of [`Self::tensors`].
    ///
    /// # Errors
    /// When a tensor is missing, unexpected, misshapen, not finite or no permutation; names it.
    pub fn from_tensors(
        config: &FlowConfig,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let mut source = Source::new(tensors, device);
        let chain = |(scale, shape)| Chain::take(config, scale, shape, &mut source);
        let chains = shapes
            .iter()
            .enumerate()
            .map(chain)
            .collect::<Result<_>>()?;
        source.finish()?;
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            chains,
            activations: Activations::default(),
        })
    }

    /// Everything an artifact needs, by name: parameters, permutations and feature statistics. They share
    /// memory with the flow.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut all = BTreeMap::new();
        for (scale, chain) in self.chains.iter().enumerate() {
            all.extend(chain.tensors(scale)?);
        }
        Ok(all)
    }

    /// The trainable tensors, sorted by name.
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let chains = self.chains.iter().enumerate();
        let mut all: Vec<_> = chains
            .flat_map(|(scale, chain)| chain.variables(scale))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// How many numbers are trained.
    pub fn parameter_count(&self) -> usize {
        self.config.parameter_count(&self.shapes)
    }

    /// Stores the training images' feature statistics, one for each map (norm `standardise` only; until
    /// then it is the identity).
    ///
    /// # Errors
    /// When the norm is another one, or the statistics do not fit or are not usable.
    pub fn set_statistics(&mut self, statistics: Vec<ChannelStatistics>) -> Result<()> {
        self.expect_maps("feature statistics", statistics.len())?;
        for (scale, (chain, statistics)) in self.chains.iter_mut().zip(&statistics).enumerate() {
            chain.set_statistics(scale, statistics)?;
        }
        Ok(())
    }

    /// Whitens the features by the training images' covariances, one for each map (norm `whiten` only; until then
    /// it is the identity).
    ///
    /// # Errors
    /// When the norm is another one, or the covariances do not fit or are not usable.
    pub fn set_covariances(&mut self, covariances: &[ChannelCovariance]) -> Result<()> {
        self.expect_maps("feature covariances", covariances.len())?;
        for (scale, (chain, covariance)) in self.chains.iter_mut().zip(covariances).enumerate() {
            chain.set_covariance(scale, covariance)?;
        }
        Ok(())
    }

    /// Gives the norm what it has to know of the training features, where it is one that does.
    ///
    /// # Errors
    /// When the shapes do not fit or the features do not vary.
    pub fn fit_norm(&mut self, features: &dyn FeatureSource) -> Result<()> {
        let averaged = |maps: Vec<Tensor>| self.averaged(&maps);
        match self.config.norm {
            FeatureNorm::Standardise => {
                self.set_statistics(channel_statistics_of(features, &averaged)?)
            }
            FeatureNorm::Whiten => {
                self.set_covariances(&channel_covariances_of(features, &averaged)?)
            }
            FeatureNorm::None | FeatureNorm::LayerNorm | FeatureNorm::LayerNormAffine => Ok(()),
        }
    }

    /// Where [`Self::loss_and_gradients`] takes activations from.
    pub fn set_activations(&mut self, activations: Activations) {
        self.activations = activations;
    }

    /// Shapes of the feature maps it takes.
    pub fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    /// Where its tensors are.
    pub fn device(&self) -> Device {
        let first = self.chains.first().map(Chain::device);
        first.unwrap_or(Device::Cpu)
    }

    /// What it was built from.
    pub fn config(&self) -> &FlowConfig {
        &self.config
    }

    /// Feature maps `[B, C, H, W]` to latents. Tracks no gradients; see [`Self::loss_and_gradients`].
    ///
    /// # Errors
    /// When the maps have other shapes than [`Self::shapes`].
    pub fn forward(&self, features: &[Tensor]) -> Result<Vec<Latent>> {
        self.chains
            .iter()
            .zip(&self.averaged(features)?)
            .map(|(chain, map)| chain.forward(map))
            .collect()
    }

    /// The maps that the chains take: [`FlowConfig::neighbourhood`]'s averages.
    fn averaged(&self, features: &[Tensor]) -> Result<Vec<Tensor>> {
        self.expect_features(features)?;
        let side = self.config.neighbourhood;
        features
            .iter()
            .map(|map| local_average(map, side))
            .collect()
    }

    /// Latents `z [B, C, H, W]` back to feature maps; of a neighbourhood to its averages. A LayerNorm is not undone (it forgets the moments):
    /// its output is what comes back.
    ///
    /// # Errors
    /// When the latents have other shapes than [`Self::shapes`].
    pub fn inverse(&self, latents: &[Tensor]) -> Result<Vec<Tensor>> {
        self.expect_features(latents)?;
        self.chains
            .iter()
            .zip(latents)
            .map(|(chain, z)| chain.inverse(z))
            .collect()
    }

    /// [`Self::inverse`] without the norm's: the normalised features that the first steps take.
    ///
    /// # Errors
    /// When the latents have other shapes than [`Self::shapes`].
    pub fn inverse_steps(&self, latents: &[Tensor]) -> Result<Vec<Tensor>> {
        self.expect_features(latents)?;
        let chains = self.chains.iter().zip(latents);
        chains.map(|(chain, z)| chain.inverse_steps(z)).collect()
    }

    /// Negative log-likelihood of each image `[B]`: the sum over the scales of `0.5 sum z^2 - log|det J|`.
    ///
    /// # Errors
    /// When the maps have other shapes than [`Self::shapes`].
    pub fn nll(&self, features: &[Tensor]) -> Result<Tensor> {
        let mut total = None;
        for (chain, map) in self.chains.iter().zip(&self.averaged(features)?) {
            let nll = chain.forward(map)?.nll()?;
            total = Some(match total {
                None => nll,
                Some(sum) => (sum + nll)?,
            });
        }
        let total = total.ok_or_else(|| Error::Invalid("a flow needs feature maps".into()))?;
        Ok(total.to_dtype(DType::F32)?)
    }

    /// The sum of [`Self::nll`] over the images, and its gradients in the order of [`Self::parameters`].
    /// May be called from several threads at once.
    ///
    /// # Errors
    /// When the maps have other shapes than [`Self::shapes`].
    pub fn loss_and_gradients(&self, features: &[Tensor]) -> Result<(f64, Vec<Tensor>)> {
        let (loss, gradients) = self.device_loss_and_gradients(features)?;
        Ok((loss.to_scalar::<f64>()?, gradients))
    }

    /// [`Self::loss_and_gradients`] with the loss as an f64 scalar on the features' device, which is not waited for.
    ///
    /// # Errors
    /// When the maps have other shapes than [`Self::shapes`].
    pub fn device_loss_and_gradients(&self, features: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let features = &self.averaged(features)?;
        let mut losses = Vec::with_capacity(self.chains.len());
        let mut gradients = Vec::new();
        for (scale, (chain, map)) in self.chains.iter().zip(features).enumerate() {
            let (scale_loss, named) = chain.loss_and_gradients(scale, map, self.activations)?;
            losses.push(scale_loss);
            gradients.extend(named);
        }
        gradients.sort_by(|a, b| a.0.cmp(&b.0));
        Ok((
            Tensor::stack(&losses, 0)?.sum_all()?,
            gradients.into_iter().map(|(_, tensor)| tensor).collect(),
        ))
    }

    fn expect_maps(&self, what: &str, found: usize) -> Result<()> {
        if found == self.shapes.len() {
            return Ok(());
        }
        Err(Error::Shape {
            what: what.into(),
            expected: format!("{} maps", self.shapes.len()),
            found: format!("{found}"),
        })
    }

    fn expect_features(&self, features: &[Tensor]) -> Result<()> {
        crate::estimators::expect_features(features, &self.shapes)
    }
}
