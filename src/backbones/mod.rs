//! Frozen feature extractors and their registry.
//!
//! [`list`] says what there is, [`load`] opens one from a safetensors file. Ids are timm's `arch.tag`:
//! any tag of a known architecture loads, a bare architecture means the tag that the project has tested.

pub mod cait;
mod catalogue;
mod dense;
#[cfg(feature = "transformers")]
pub mod eva;
mod positions;
mod registry;
pub mod resnet;
mod transformer;
pub mod vit;
pub mod wavelet;
mod weights;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;

pub use registry::{info, list, load, load_random, needs_weights, resolve_id, shapes};
pub use weights::Weights;

use crate::{Error, Result, imaging::Preprocessing};

pub use crate::kernels::FeatureShape;

/// Kinds of backbone that want flows of different shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Convolutional pyramids with one map a stage.
    ResNet,
    /// Vision transformers: one map.
    Vit,
    /// The embedded wavelet bank.
    Wavelet,
}

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
    /// SPDX id of the weights' licence; `NOASSERTION` for a tag whose licence the project does not know.
    pub licence: &'static str,
    /// The Hub repository with the weights; none when the backbone needs none.
    pub hub_repo: Option<String>,
}

/// A frozen network that turns a batch of images into feature maps.
pub trait Backbone: Send + Sync {
    /// What it is.
    fn info(&self) -> &BackboneInfo;

    /// Where its weights are and its features appear; images must be there too.
    fn device(&self) -> &Device;

    /// Shapes of the maps for an input of `height` x `width` pixels, finest first.
    ///
    /// # Errors
    /// When the input size does not fit the architecture.
    fn shapes(&self, height: usize, width: usize) -> Result<Vec<FeatureShape>>;

    /// Feature maps `[B, C, H, W]`, finest first, of images `[B, 3, H, W]` normalised as
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

/// Feature maps `[1, C, H, W]`, finest first, of one photo.
///
/// # Errors
/// When the photo cannot be preprocessed or the backbone refuses the input size.
pub fn image_features(
    backbone: &dyn Backbone,
    preprocessing: &Preprocessing,
    device: &Device,
    image: &RgbImage,
) -> Result<Vec<Tensor>> {
    let input = preprocessing.to_tensor(image, device)?;
    backbone.features(&input)
}
