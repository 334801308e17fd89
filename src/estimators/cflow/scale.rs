//! The flow over one feature map's positions.

use candle_core::{D, DType, Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::{
    block::Block,
    config::{CFlowConfig, Sizes},
    positions::encoding,
};
use crate::Result;
use crate::estimators::{ChannelStatistics, embedding::rows_of, tensors::Source};
use crate::kernels::{FeatureShape, norm::standardise};

/// Deviations below this are those of a channel that does not vary: it is not divided by them.
const CONSTANT: f32 = 1e-6;

/// One scale.
#[derive(Debug)]
pub(super) struct Scale {
    /// Of the training features, `[C]` each.
    mean: Tensor,
    std: Tensor,
    blocks: Vec<Block>,
    /// Of the positions, `[P, condition]`.
    encoding: Tensor,
}

/// What a flow makes of a map's positions, image by image and row by row.
pub(super) struct Latent {
    /// `[B P, C]`.
    pub(super) z: Tensor,
    /// log|det J| of the blocks, `[B P]`; standardising has the same for all and is left out.
    pub(super) log_det: Tensor,
}

impl Latent {
    /// `0.5 sum z^2 - log|det J|` of every position, `[B P]`.
    pub(super) fn nll(&self) -> Result<Tensor> {
        let energy = (self.z.sqr()?.sum(D::Minus1)? * 0.5)?;
        Ok((energy - &self.log_det)?)
    }
}

impl Scale {
    pub(super) fn init(
        config: &CFlowConfig,
        shape: &FeatureShape,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Result<Self> {
        let sizes = Sizes::of(config, shape.channels);
        let block = |_| Block::init(&sizes, config.clamp, rng, device);
        Ok(Self {
            mean: Tensor::zeros(shape.channels, DType::F32, device)?,
            std: Tensor::ones(shape.channels, DType::F32, device)?,
            blocks: (0..config.steps).map(block).collect::<Result<_>>()?,
            encoding: encodings(config, shape, device)?,
        })
    }

    /// Takes its tensors, whose names start with `scales.{scale}.`, out of `source`.
    pub(super) fn take(
        config: &CFlowConfig,
        scale: usize,
        shape: &FeatureShape,
        source: &mut Source,
        device: &Device,
    ) -> Result<Self> {
        let sizes = Sizes::of(config, shape.channels);
        let mean = source.take(&format!("scales.{scale}.mean"), &[shape.channels])?;
        let std = source.take_deviations(&format!("scales.{scale}.std"), shape.channels)?;
        let block = |index| {
            let prefix = format!("scales.{scale}.blocks.{index}");
            Block::take(&sizes, config.clamp, &prefix, source)
        };
        Ok(Self {
            mean,
            std,
            blocks: (0..config.steps).map(block).collect::<Result<_>>()?,
            encoding: encodings(config, shape, device)?,
        })
    }

    /// What features are standardised by.
    pub(super) fn set_statistics(&mut self, statistics: &ChannelStatistics) -> Result<()> {
        let device = self.mean.device().clone();
        let std = statistics.std.iter();
        let std: Vec<f32> = std.map(|&s| if s > CONSTANT { s } else { 1.0 }).collect();
        let channels = std.len();
        self.mean = Tensor::from_slice(&statistics.mean, channels, &device)?;
        self.std = Tensor::from_vec(std, channels, &device)?;
        Ok(())
    }

    /// Everything it stores, by name.
    pub(super) fn tensors(&self, scale: usize) -> Vec<(String, Tensor)> {
        let variables = self.variables(scale).into_iter();
        let mut all: Vec<_> = variables
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        all.push((format!("scales.{scale}.mean"), self.mean.clone()));
        all.push((format!("scales.{scale}.std"), self.std.clone()));
        for (index, block) in self.blocks.iter().enumerate() {
            let name = format!("scales.{scale}.blocks.{index}.rotation");
            all.push((name, block.rotation.clone()));
        }
        all
    }

    /// Everything it trains, by name.
    pub(super) fn variables(&self, scale: usize) -> Vec<(String, Var)> {
        let mut all = Vec::with_capacity(6 * self.blocks.len());
        for (index, block) in self.blocks.iter().enumerate() {
            let named = block.parameters.named().into_iter();
            all.extend(named.map(|(name, var)| {
                let name = format!("scales.{scale}.blocks.{index}.{name}");
                (name, var.clone())
            }));
        }
        all
    }

    /// The latents of `map [B, C, h, w]`; `tracked`, they can be traced back to the variables.
    pub(super) fn forward(&self, map: &Tensor, tracked: bool) -> Result<Latent> {
        let mut z = rows_of(&standardise(map, &self.mean, &self.std)?)?;
        let mut log_det = Tensor::zeros(z.dim(0)?, DType::F32, z.device())?;
        for block in &self.blocks {
            let (y, of_block) = block.forward(&z, &self.encoding, tracked)?;
            z = y;
            log_det = (log_det + of_block)?;
        }
        Ok(Latent { z, log_det })
    }

    /// The summed negative log-likelihood of a batch (an f64 scalar) and its gradients by name.
    pub(super) fn loss_and_gradients(
        &self,
        scale: usize,
        map: &Tensor,
    ) -> Result<(Tensor, Vec<(String, Tensor)>)> {
        let nll = self.forward(map, true)?.nll()?;
        let loss = nll.to_dtype(DType::F64)?.sum_all()?;
        let mut gradients = loss.backward()?;
        let mut named = Vec::with_capacity(6 * self.blocks.len());
        for (name, var) in self.variables(scale) {
            let gradient = match gradients.remove(&var) {
                Some(gradient) => gradient,
                None => var.zeros_like()?,
            };
            named.push((name, gradient));
        }
        Ok((loss.detach(), named))
    }
}

fn encodings(config: &CFlowConfig, shape: &FeatureShape, device: &Device) -> Result<Tensor> {
    let (length, positions) = (config.condition, shape.height * shape.width);
    let values = encoding(length, shape.height, shape.width);
    Ok(Tensor::from_vec(values, (positions, length), device)?)
}
