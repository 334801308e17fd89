//! EVA-02 (Fang et al. 2023), which candle-transformers implements: taps are blocks, from 0, without a final norm
//! (it has none on that way). The input is 448x448 and no other size.

#[cfg(feature = "transformers")]
mod network;

use super::{
    Backbone, BackboneInfo, Family, FeatureShape,
    row::{IMAGENET, MIT, Network, Row, Source, Tag},
    taps::{self, Choice},
};
use crate::{Error, Result};

#[cfg(feature = "transformers")]
pub use network::Eva;

/// Height and width of the input.
const INPUT: usize = 448;
/// Rows and columns of patches.
const GRID: usize = INPUT / 14;

const TAGS: &[Tag] = &[
    ("mim_in22k_ft_in22k_in1k", MIT),
    ("mim_in22k_ft_in1k", MIT),
    ("mim_in22k_ft_in22k", MIT),
];

pub(super) static ROWS: &[Row] = &[row(
    "eva02_base_patch14_448",
    &Config {
        width: 768,
        depth: 12,
    },
)];

const fn row(arch: &'static str, config: &'static Config) -> Row {
    Row {
        arch,
        family: Family::Vit,
        size: INPUT,
        normalisation: IMAGENET,
        tags: TAGS,
        taps: Choice::Among(0..=config.depth - 1),
        default_taps: &[7],
        network: config,
        lacks: if cfg!(feature = "transformers") {
            None
        } else {
            Some("transformers")
        },
    }
}

/// An EVA-02's shape: heads have 64 channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Channels.
    pub width: usize,
    /// Blocks; those behind the last tap are not read.
    pub depth: usize,
}

impl Network for Config {
    fn shapes(&self, taps: &[usize], height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        if (height, width) != (INPUT, INPUT) {
            return Err(Error::Shape {
                what: "input of an EVA-02".into(),
                expected: format!("{INPUT}x{INPUT}"),
                found: format!("{height}x{width}"),
            });
        }
        let shape = FeatureShape {
            channels: self.width,
            height: GRID,
            width: GRID,
        };
        Ok(vec![shape; taps.len()])
    }

    fn describe(&self, taps: &[usize]) -> String {
        format!("{} (from 0)", taps::described("block", taps))
    }

    #[cfg(feature = "transformers")]
    fn build(&self, info: BackboneInfo, source: &Source) -> Result<Box<dyn Backbone>> {
        let weights = source.weights(&info.id)?;
        Ok(Box::new(Eva::new(info, self, weights)?))
    }

    /// The registry asks for no network that this build lacks.
    #[cfg(not(feature = "transformers"))]
    fn build(&self, info: BackboneInfo, _: &Source) -> Result<Box<dyn Backbone>> {
        Err(Error::Invalid(format!(
            "backbone `{}` is not in this build",
            info.id
        )))
    }
}
