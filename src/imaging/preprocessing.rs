//! How a photo becomes a backbone's input; recorded in every artifact.

use serde::{Deserialize, Serialize};

/// Resampling filter, always with antialiasing when it shrinks (as PIL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Cubic convolution, a = -0.5.
    Bicubic,
}

/// Size, filter and normalisation of a backbone's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Height of the input in pixels.
    pub height: usize,
    /// Width of the input in pixels.
    pub width: usize,
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Share of the shorter side that a centre crop keeps; 1 squeezes the whole image to the input size.
    pub crop: f32,
    /// Mean of R, G, B, of values in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B, of values in 0..1.
    pub std: [f32; 3],
}

impl Preprocessing {
    /// ImageNet normalisation, the whole image squeezed to `size` x `size`, bilinear with antialias.
    pub fn imagenet(size: usize) -> Self {
        Self {
            height: size,
            width: size,
            interpolation: Interpolation::Bilinear,
            crop: 1.0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}
