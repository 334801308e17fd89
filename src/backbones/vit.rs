//! Vision transformers with timm's tensor names: DeiT (Touvron et al. 2021) and DINOv2 (Oquab et al. 2023).
//!
//! Taps are blocks, from 0. A map is the patch tokens after a block and the final norm, class and distillation
//! tokens dropped.

use candle_core::{Device, Tensor};

use super::{
    Backbone, BackboneInfo, Family, FeatureShape,
    row::{APACHE, IMAGENET, Network, Row, Source, Tag},
    taps::Choice,
    transformer::{self, Extras, Sizes, Transformer},
    weights::Weights,
};
use crate::{Error, Result};

const DEIT: &[Tag] = &[("fb_in1k", APACHE)];
const DINOV2: &[Tag] = &[("lvd142m", APACHE)];

#[rustfmt::skip] // a table
pub(super) static ROWS: &[Row] = &[
    row("deit_tiny_patch16_224", 224, DEIT, &deit(192, 224, false)),
    row("deit_small_patch16_224", 224, DEIT, &deit(384, 224, false)),
    row("deit_base_patch16_224", 224, DEIT, &deit(768, 224, false)),
    row("deit_base_patch16_384", 384, DEIT, &deit(768, 384, false)),
    row("deit_tiny_distilled_patch16_224", 224, DEIT, &deit(192, 224, true)),
    row("deit_small_distilled_patch16_224", 224, DEIT, &deit(384, 224, true)),
    row("deit_base_distilled_patch16_224", 224, DEIT, &deit(768, 224, true)),
    row("deit_base_distilled_patch16_384", 384, DEIT, &deit(768, 384, true)),
    row("vit_small_patch14_dinov2", 448, DINOV2, &dinov2(384)),
    row("vit_base_patch14_dinov2", 448, DINOV2, &dinov2(768)),
];

/// A ViT of 12 blocks, tapped where the paper taps DeiT.
const fn row(
    arch: &'static str,
    size: usize,
    tags: &'static [Tag],
    config: &'static Config,
) -> Row {
    Row {
        arch,
        family: Family::Vit,
        size,
        normalisation: IMAGENET,
        tags,
        taps: Choice::Among(0..=config.depth - 1),
        default_taps: &[7],
        network: config,
        lacks: None,
    }
}

/// A DeiT of patch 16.
const fn deit(width: usize, input: usize, distilled: bool) -> Config {
    Config {
        patch: 16,
        grid: input / 16,
        width,
        heads: width / 64,
        depth: 12,
        distilled,
        layer_scale: false,
    }
}

/// A DINOv2 of patch 14, trained at 518 pixels.
const fn dinov2(width: usize) -> Config {
    Config {
        patch: 14,
        grid: 37,
        width,
        heads: width / 64,
        depth: 12,
        distilled: false,
        layer_scale: true,
    }
}

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
    /// Blocks; those behind the last tap are not read.
    pub depth: usize,
    /// Whether there is a distillation token (DeiT).
    pub distilled: bool,
    /// Whether the blocks have LayerScale (DINOv2).
    pub layer_scale: bool,
}

impl Config {
    fn sizes(&self) -> Sizes {
        Sizes {
            patch: self.patch,
            grid: self.grid,
            width: self.width,
            heads: self.heads,
            depth: self.depth,
        }
    }
}

impl Network for Config {
    fn shapes(&self, taps: &[usize], height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        self.sizes().shapes(taps, height, width)
    }

    fn describe(&self, taps: &[usize]) -> String {
        transformer::described(taps)
    }

    fn build(&self, info: BackboneInfo, source: &Source) -> Result<Box<dyn Backbone>> {
        let weights = source.weights(&info.id)?;
        Ok(Box::new(Vit::new(info, self, weights)?))
    }
}

/// A ViT up to its last tap.
#[derive(Debug)]
pub struct Vit {
    info: BackboneInfo,
    network: Transformer,
}

impl Vit {
    /// Reads the blocks up to the last of `info.taps`, and the final norm.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen, or a tap is not one of the blocks.
    pub fn new(info: BackboneInfo, config: &Config, weights: &Weights) -> Result<Self> {
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
        let network = Transformer::new(&info, weights, config.sizes(), prefix, extras)?;
        Ok(Self { info, network })
    }

    /// All tokens `[B, 1 or 2 + patches, C]` after the last tap and the final norm, the class token first:
    /// what a classification head or a linear probe wants.
    ///
    /// # Errors
    /// When the input has another shape or type.
    pub fn tokens(&self, images: &Tensor) -> Result<Tensor> {
        let last = self.network.tokens(images)?.pop();
        last.ok_or_else(|| Error::Invalid(format!("backbone `{}` has no taps", self.info.id)))
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
        self.network.shapes(height, width)
    }

    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        self.network.maps(images)
    }
}
