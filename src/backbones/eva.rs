//! EVA-02 (Fang et al. 2023) as candle-transformers implements it: the project's adapter over that crate.
//!
//! Its ViT exposes a block's tokens, names its tensors as timm does and takes its depth as a parameter, so
//! blocks after the tap are not built. What timm's files lack is made here: the rotary position table,
//! and the final norm and classifier that the constructor asks for though no feature passes through them.
//! The input is 448x448 and no other size. Its deviation from timm is kept under 2e-4 by tests/parity_backbones.rs.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};
use candle_transformers::models::eva2::EVA2VisionTransformer;

use super::{Backbone, BackboneInfo, FeatureShape, check_images, weights::Weights};
use crate::{Error, Result};

/// Height and width of the input.
const INPUT: usize = 448;
/// Rows and columns of patches.
const GRID: usize = INPUT / 14;
/// Channels of a head: candle-transformers knows no other.
const HEAD: usize = 64;

/// Shapes of the maps of an input of (height, width) pixels.
pub(super) fn shapes(
    id: &str,
    channels: usize,
    (height, width): (usize, usize),
) -> Result<Vec<FeatureShape>> {
    if (height, width) != (INPUT, INPUT) {
        return Err(Error::Shape {
            what: format!("input of backbone `{id}`"),
            expected: format!("{INPUT}x{INPUT}"),
            found: format!("{height}x{width}"),
        });
    }
    Ok(vec![FeatureShape {
        channels,
        height: GRID,
        width: GRID,
    }])
}

/// An EVA-02 up to its tap.
#[derive(Debug)]
pub struct Eva {
    info: BackboneInfo,
    width: usize,
    tap: usize,
    device: Device,
    network: EVA2VisionTransformer,
}

impl Eva {
    /// Reads the blocks up to `tap` (from 0) of a network with `width` channels, 64 to a head.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen.
    pub fn new(info: BackboneInfo, width: usize, tap: usize, weights: &Weights) -> Result<Self> {
        let device = weights.device().clone();
        let backend = Box::new(TimmFile(weights.clone()));
        let builder = VarBuilder::from_backend(backend, DType::F32, device.clone());
        let network = EVA2VisionTransformer::new(builder, tap + 1, width, width / HEAD)?;
        Ok(Self {
            info,
            width,
            tap,
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
        shapes(&self.info.id, self.width, (height, width))
    }

    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let (batch, height, width) = check_images(images)?;
        self.shapes(height, width)?;
        // One at a time: candle-transformers 0.11 joins a class token of batch 1 to the patches as it is.
        let maps = (0..batch)
            .map(|index| self.map(&images.narrow(0, index, 1)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(vec![Tensor::cat(&maps, 0)?])
    }
}

impl Eva {
    /// The map of one image.
    fn map(&self, image: &Tensor) -> Result<Tensor> {
        let taps = [self.tap];
        let maps = self
            .network
            .get_intermediate_layers(image, &taps, true, false, false)?;
        Ok(maps.get(0)?.contiguous()?)
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
