//! Frozen feature extractors and their registry.

use candle_core::Tensor;

use crate::{Result, imaging::Preprocessing};

pub use crate::kernels::FeatureShape;

/// What a backbone is, as data.
#[derive(Debug, Clone, PartialEq)]
pub struct BackboneInfo {
    /// timm's `arch.tag`, for example `resnet18.tv_in1k`.
    pub id: String,
    /// The input it expects by default.
    pub preprocessing: Preprocessing,
    /// Where features are taken, in words for a listing.
    pub tap: String,
    /// SPDX id of the weights' licence.
    pub licence: &'static str,
}

/// A frozen network that turns a batch of images into feature maps.
pub trait Backbone: Send + Sync {
    /// What it is.
    fn info(&self) -> &BackboneInfo;

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
