//! Vision transformers with timm's tensor names: DeiT (Touvron et al. 2021) and DINOv2 (Oquab et al. 2023).
//!
//! The map is the patch tokens after one block and the final norm, class and distillation tokens dropped.

use candle_core::{Device, Tensor};

use super::{
    Backbone, BackboneInfo, FeatureShape,
    transformer::{Extras, Sizes, Transformer},
    weights::Weights,
};
use crate::Result;

/// A ViT's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side of the grid of patches that the position embedding was trained on.
    pub grid: usize,
    /// Channels.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Index of the block, from 0, whose output is taken; later ones are not read.
    pub tap: usize,
    /// Whether there is a distillation token (DeiT).
    pub distilled: bool,
    /// Whether the blocks have LayerScale (DINOv2).
    pub layer_scale: bool,
}

/// A ViT up to its tap.
#[derive(Debug)]
pub struct Vit {
    info: BackboneInfo,
    network: Transformer,
}

impl Vit {
    /// Reads the blocks up to the tap and the final norm.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen.
    pub fn new(info: BackboneInfo, config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = Sizes {
            patch: config.patch,
            grid: config.grid,
            width: config.width,
            heads: config.heads,
            depth: config.tap + 1,
        };
        let prefix: &[&str] = if config.distilled {
            &["cls_token", "dist_token"]
        } else {
            &["cls_token"]
        };
        let extras = if config.layer_scale {
            Extras::LayerScale
        } else {
            Extras::None
        };
        let network = Transformer::new(weights, sizes, prefix, extras)?;
        Ok(Self { info, network })
    }

    /// All tokens `[B, 1 or 2 + patches, C]` after the tap and the final norm, the class token first: what a
    /// classification head or a linear probe wants.
    ///
    /// # Errors
    /// When the input has another shape or type.
    pub fn tokens(&self, images: &Tensor) -> Result<Tensor> {
        self.network.tokens(images)
    }
}

impl Backbone for Vit {
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
