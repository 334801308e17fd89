//! CaiT (Touvron et al. 2021, "Going deeper with image transformers") with timm's tensor names.
//!
//! Talking-heads attention and LayerScale; the class-attention blocks, which come after every patch block,
//! are never built. The map is the tokens after one block and the final norm.

use candle_core::{Device, Tensor};

use super::{
    Backbone, BackboneInfo, FeatureShape,
    transformer::{Extras, Sizes, Transformer},
    weights::Weights,
};
use crate::Result;

/// Side of a patch in pixels.
pub(super) const PATCH: usize = 16;

/// A CaiT's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Side of the grid of patches that the position embedding was trained on.
    pub grid: usize,
    /// Channels.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Index of the block, from 0, whose output is taken; later ones are not read.
    pub tap: usize,
}

/// A CaiT up to its tap.
#[derive(Debug)]
pub struct Cait {
    info: BackboneInfo,
    network: Transformer,
}

impl Cait {
    /// Reads the blocks up to the tap and the final norm.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen.
    pub fn new(info: BackboneInfo, config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = Sizes {
            patch: PATCH,
            grid: config.grid,
            width: config.width,
            heads: config.heads,
            depth: config.tap + 1,
        };
        let network = Transformer::new(weights, sizes, &[], Extras::Cait)?;
        Ok(Self { info, network })
    }
}

impl Backbone for Cait {
    fn info(&self) -> &BackboneInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        self.network.device()
    }

    fn shapes(&self, height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        Ok(vec![self.network.shape(height, width)?])
    }

    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![self.network.map(images)?])
    }
}
