//! EVA-02 as candle-transformers implements it: the project's adapter over that crate.
//!
//! Its ViT exposes a block's tokens, names its tensors as timm does and takes its depth as a parameter, so
//! blocks behind the last tap are not built. What timm's files lack is made here: the rotary position table,
//! and the final norm and classifier that the constructor asks for though no feature passes through them.
//! Its deviation from timm is kept under 2e-4 by tests/parity_backbones.rs.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};
use candle_transformers::models::eva2::EVA2VisionTransformer;

use super::{
    super::{
        Backbone, BackboneInfo, FeatureShape, check_images, row::Network, taps, weights::Weights,
    },
    Config, GRID,
};
use crate::Result;

/// Channels of a head: candle-transformers knows no other.
const HEAD: usize = 64;

/// An EVA-02 up to its last tap.
#[derive(Debug)]
pub struct Eva {
    info: BackboneInfo,
    config: Config,
    device: Device,
    network: EVA2VisionTransformer,
}

impl Eva {
    /// Reads the blocks up to the last of `info.taps`.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen, or a tap is not one of the blocks.
    pub fn new(info: BackboneInfo, config: &Config, weights: &Weights) -> Result<Self> {
        let last = taps::last(&info, 0..=config.depth.saturating_sub(1))?;
        let device = weights.device().clone();
        let backend = Box::new(TimmFile(weights.clone()));
        let builder = VarBuilder::from_backend(backend, DType::F32, device.clone());
        let (width, heads) = (config.width, config.width / HEAD);
        let network = EVA2VisionTransformer::new(builder, last + 1, width, heads)?;
        Ok(Self {
            info,
            config: config.clone(),
            device,
            network,
        })
    }
}

impl Backbone for Eva {
    fn info(&self) -> &BackboneInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn shapes(&self, height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        self.config.shapes(&self.info.taps, height, width)
    }

    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let (batch, height, width) = check_images(images)?;
        self.shapes(height, width)?;
        // One at a time: candle-transformers 0.11 joins a class token of batch 1 to the patches as it is.
        let images = (0..batch)
            .map(|index| self.maps(&images.narrow(0, index, 1)?))
            .collect::<Result<Vec<_>>>()?;
        (0..self.info.taps.len())
            .map(|tap| {
                let maps: Vec<_> = images.iter().map(|maps| &maps[tap]).collect();
                Ok(Tensor::cat(&maps, 0)?)
            })
            .collect()
    }
}

impl Eva {
    /// The maps of one image.
    fn maps(&self, image: &Tensor) -> Result<Vec<Tensor>> {
        let maps =
            self.network
                .get_intermediate_layers(image, &self.info.taps, true, false, false)?;
        (0..self.info.taps.len())
            .map(|tap| Ok(maps.get(tap)?.contiguous()?))
            .collect()
    }
}

/// A timm file as candle-transformers expects it.
struct TimmFile(Weights);

impl SimpleBackend for TimmFile {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        match name {
            "rot_pos_embed" => rotary_table(device),
            "norm.weight" => Tensor::ones(shape, dtype, device),
            "norm.bias" | "head.weight" | "head.bias" => Tensor::zeros(shape, dtype, device),
            _ => self
                .0
                .tensor(name, shape.dims())
                .map_err(candle_core::Error::wrap),
        }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("tensor `{name}` was asked for without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Sines, then cosines, of the rotations `[patches, 2 * 64]`: for each patch 16 frequencies of its row,
/// then of its column, each twice; positions are those of a 16x16 grid stretched over the image.
fn rotary_table(device: &Device) -> candle_core::Result<Tensor> {
    const FREQUENCIES: usize = HEAD / 4;
    let position = |index: usize| index as f64 / GRID as f64 * 16.0;
    let mut table = Vec::with_capacity(GRID * GRID * 2 * HEAD);
    for patch in 0..GRID * GRID {
        let angles: Vec<f64> = [patch / GRID, patch % GRID]
            .into_iter()
            .flat_map(|index| {
                (0..2 * FREQUENCIES).map(move |twice| {
                    let exponent = (twice / 2) as f64 / FREQUENCIES as f64;
                    position(index) / 10_000f64.powf(exponent)
                })
            })
            .collect();
        table.extend(angles.iter().map(|angle| angle.sin() as f32));
        table.extend(angles.iter().map(|angle| angle.cos() as f32));
    }
    Tensor::from_vec(table, (GRID * GRID, 2 * HEAD), device)
}
