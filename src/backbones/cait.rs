//! CaiT (Touvron et al. 2021, "Going deeper with image transformers") with timm's tensor names.
//!
//! Talking-heads attention and LayerScale; the class-attention blocks, which come after every patch block,
//! are never built. Taps are patch blocks, from 0; a map is the tokens after a block and the final norm.

use candle_core::{Device, Tensor};

use super::{
    Backbone, BackboneInfo, Family, FeatureShape,
    row::{APACHE, IMAGENET, Network, Row, Source, Tag},
    taps::Choice,
    transformer::{self, Extras, Sizes, Transformer},
    weights::Weights,
};
use crate::Result;

/// Side of a patch in pixels.
const PATCH: usize = 16;

const TAGS: &[Tag] = &[("fb_dist_in1k", APACHE)];

// The tap is the paper's for 48 blocks, and as deep for fewer.
#[rustfmt::skip] // a table
pub(super) static ROWS: &[Row] = &[
    row("cait_xxs24_224", 224, &[20], &cait(192, 224, 24)),
    row("cait_xxs24_384", 384, &[20], &cait(192, 384, 24)),
    row("cait_xxs36_224", 224, &[30], &cait(192, 224, 36)),
    row("cait_xxs36_384", 384, &[30], &cait(192, 384, 36)),
    row("cait_xs24_384", 384, &[20], &cait(288, 384, 24)),
    row("cait_s24_224", 224, &[20], &cait(384, 224, 24)),
    row("cait_s24_384", 384, &[20], &cait(384, 384, 24)),
    row("cait_s36_384", 384, &[30], &cait(384, 384, 36)),
    row("cait_m36_384", 384, &[30], &cait(768, 384, 36)),
    row("cait_m48_448", 448, &[40], &cait(768, 448, 48)),
];

const fn row(
    arch: &'static str,
    size: usize,
    default_taps: &'static [usize],
    config: &'static Config,
) -> Row {
    Row {
        arch,
        family: Family::Vit,
        size,
        normalisation: IMAGENET,
        tags: TAGS,
        taps: Choice::Among(0..=config.depth - 1),
        default_taps,
        network: config,
        lacks: None,
    }
}

/// A CaiT with heads of 48 channels.
const fn cait(width: usize, input: usize, depth: usize) -> Config {
    Config {
        grid: input / PATCH,
        width,
        heads: width / 48,
        depth,
    }
}

/// A CaiT's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Side of the grid of patches that the position embedding was trained on.
    pub grid: usize,
    /// Channels.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Patch blocks; those behind the last tap are not read.
    pub depth: usize,
}

impl Config {
    fn sizes(&self) -> Sizes {
        Sizes {
            patch: PATCH,
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
        Ok(Box::new(Cait::new(info, self, weights)?))
    }
}

/// A CaiT up to its last tap.
#[derive(Debug)]
pub struct Cait {
    info: BackboneInfo,
    network: Transformer,
}

impl Cait {
    /// Reads the blocks up to the last of `info.taps`, and the final norm.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen, or a tap is not one of the blocks.
    pub fn new(info: BackboneInfo, config: &Config, weights: &Weights) -> Result<Self> {
        let network = Transformer::new(&info, weights, config.sizes(), &[], Extras::Cait)?;
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
        self.network.shapes(height, width)
    }

    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        self.network.maps(images)
    }
}
