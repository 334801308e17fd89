//! Frozen feature extractors and their registry.
//!
//! [`list`] says what there is, [`load`] opens one from a safetensors file. Ids are timm's `arch.tag`:
//! any tag of a known architecture loads, a bare architecture means the tag that the project has tested.
//! Where features leave the network is data too: [`load_with`] takes other [`Taps`] than the default ones.
//!
//! A family is one file: its networks, and a table of rows that says what timm calls them, what input and
//! taps they have and under which licence their weights are. The registry joins the tables.

pub mod cait;
mod dense;
pub mod eva;
mod positions;
mod registry;
pub mod resnet;
mod row;
mod taps;
mod transformer;
pub mod vit;
pub mod wavelet;
mod weights;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;

pub use registry::{
    all_taps, default_taps, info, info_with, list, load, load_random, load_random_with, load_with,
    needs_weights, resolve_id, shapes, shapes_with,
};
pub use taps::Taps;
pub use weights::Weights;

use crate::{Error, Result, imaging::Preprocessing};

pub use crate::kernels::{Family, FeatureShape};

/// What a backbone is, as data.
#[derive(Debug, Clone, PartialEq)]
pub struct BackboneInfo {
    /// timm's `arch.tag`, for example `resnet18.tv_in1k`.
    pub id: String,
    /// The architecture alone, for example `resnet18`.
    pub arch: &'static str,
    /// What kind of network it is.
    pub family: Family,
    /// The input it expects by default.
    pub preprocessing: Preprocessing,
    /// Where features are taken, in words for a listing.
    pub tap: String,
    /// The same as numbers, ascending, one map each: see [`Taps`].
    pub taps: Vec<usize>,
    /// Where they are taken unless others are asked for.
    pub default_taps: Vec<usize>,
    /// SPDX id of the weights' licence; `NOASSERTION` for a tag whose licence the project does not know.
    pub licence: &'static str,
    /// The Hub repository with the weights; none when the backbone needs none.
    pub hub_repo: Option<String>,
}

impl BackboneInfo {
    /// The taps in force where they are not the default ones: what a record has to keep.
    pub fn chosen_taps(&self) -> Option<Taps> {
        if self.taps == self.default_taps {
            return None;
        }
        Taps::new(self.taps.clone()).ok()
    }
}

/// A frozen network that turns a batch of images into feature maps.
pub trait Backbone: Send + Sync {
    /// What it is.
    fn info(&self) -> &BackboneInfo;

    /// Where its weights are and its features appear; images must be there too.
    fn device(&self) -> &Device;

    /// Shapes of the maps for an input of `height` x `width` pixels, in the order of the taps: finest first.
    ///
    /// # Errors
    /// When the input size does not fit the architecture.
    fn shapes(&self, height: usize, width: usize) -> Result<Vec<FeatureShape>>;

    /// Feature maps `[B, C, H, W]`, one a tap, finest first, of images `[B, 3, H, W]` normalised as
    /// [`BackboneInfo::preprocessing`] says.
    ///
    /// # Errors
    /// When the input has another shape or type.
    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>>;
}

/// Batch, height and width of f32 images `[B, 3, H, W]`.
fn check_images(images: &Tensor) -> Result<(usize, usize, usize)> {
    match *images.dims() {
        [batch, 3, height, width] if images.dtype() == DType::F32 => Ok((batch, height, width)),
        _ => Err(Error::Shape {
            what: "images".into(),
            expected: "[batch, 3, height, width] of f32".into(),
            found: format!("{:?} of {:?}", images.dims(), images.dtype()),
        }),
    }
}

/// Shapes of the maps that `preprocessing` lets a backbone make: those of one input after the other.
///
/// # Errors
/// When an input's size does not fit the architecture.
pub fn input_shapes(
    backbone: &dyn Backbone,
    preprocessing: &Preprocessing,
) -> Result<Vec<FeatureShape>> {
    let of_inputs = preprocessing.inputs().into_iter();
    let of_inputs = of_inputs.map(|input| backbone.shapes(input.height, input.width));
    Ok(of_inputs.collect::<Result<Vec<_>>>()?.concat())
}

/// Feature maps `[B, C, H, W]` of every input `[B, 3, h, w]`, one input's after the other's.
///
/// # Errors
/// When the backbone refuses an input.
pub fn input_features(backbone: &dyn Backbone, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let maps = inputs.iter().map(|input| backbone.features(input));
    Ok(maps.collect::<Result<Vec<_>>>()?.concat())
}

/// Feature maps `[1, C, H, W]` of one photo, as [`input_shapes`] has them.
///
/// # Errors
/// When the photo cannot be preprocessed or the backbone refuses the input size.
pub fn image_features(
    backbone: &dyn Backbone,
    preprocessing: &Preprocessing,
    device: &Device,
    image: &RgbImage,
) -> Result<Vec<Tensor>> {
    input_features(backbone, &preprocessing.to_tensors(image, device)?)
}
