//! The norm between a backbone's features and the first step.

use candle_core::{Device, Tensor, Var};

use super::FeatureNorm;
use crate::Result;
use crate::kernels::FeatureShape;
use crate::kernels::norm::{layer_norm, layer_norm_affine, standardise};

/// As torch's LayerNorm.
const EPS: f32 = 1e-5;

/// Mean and standard deviation of every channel of one feature map, over the training images.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStatistics {
    /// `[C]`.
    pub mean: Vec<f32>,
    /// `[C]`, all above zero.
    pub std: Vec<f32>,
}

/// One scale's norm with its tensors.
#[derive(Debug, Clone)]
pub(super) enum Norm {
    None,
    Standardise { mean: Tensor, std: Tensor },
    Layer,
    LayerAffine { weight: Var, bias: Var },
}

impl Norm {
    /// Starts as the identity after normalisation.
    pub(super) fn init(kind: FeatureNorm, shape: &FeatureShape, device: &Device) -> Result<Self> {
        let full = |name| {
            let value = if matches!(name, "mean" | "bias") {
                0f32
            } else {
                1f32
            };
            Ok(Tensor::full(value, dims(kind, shape), device)?)
        };
        Self::from_names(kind, full)
    }

    /// Builds the norm from its tensors' names.
    pub(super) fn from_names(
        kind: FeatureNorm,
        mut make: impl FnMut(&'static str) -> Result<Tensor>,
    ) -> Result<Self> {
        Ok(match kind {
            FeatureNorm::None => Norm::None,
            FeatureNorm::LayerNorm => Norm::Layer,
            FeatureNorm::Standardise => Norm::Standardise {
                mean: make("mean")?,
                std: make("std")?,
            },
            FeatureNorm::LayerNormAffine => Norm::LayerAffine {
                weight: Var::from_tensor(&make("weight")?)?,
                bias: Var::from_tensor(&make("bias")?)?,
            },
        })
    }

    /// What is stored but not trained.
    pub(super) fn statistics(&self) -> Vec<(&'static str, Tensor)> {
        match self {
            Norm::Standardise { mean, std } => vec![("mean", mean.clone()), ("std", std.clone())],
            _ => vec![],
        }
    }

    /// What is trained.
    pub(super) fn variables(&self) -> Vec<(&'static str, Var)> {
        match self {
            Norm::LayerAffine { weight, bias } => {
                vec![("bias", bias.clone()), ("weight", weight.clone())]
            }
            _ => vec![],
        }
    }

    /// Whether it learns, so that the first step's input gradient is needed.
    pub(super) fn is_trainable(&self) -> bool {
        matches!(self, Norm::LayerAffine { .. })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Norm::None => Ok(x.clone()),
            Norm::Standardise { mean, std } => standardise(x, mean, std),
            Norm::Layer => layer_norm(x, EPS),
            Norm::LayerAffine { weight, bias } => {
                let (weight, bias) = (weight.as_detached_tensor(), bias.as_detached_tensor());
                layer_norm_affine(x, &weight, &bias, EPS)
            }
        }
    }

    /// Undoes standardising; a LayerNorm's moments are not known any more, so it is left as it is.
    pub(super) fn inverse(&self, y: &Tensor) -> Result<Tensor> {
        match self {
            Norm::Standardise { mean, std } => {
                let (mean, std) = (mean.reshape((1, (), 1, 1))?, std.reshape((1, (), 1, 1))?);
                Ok(y.broadcast_mul(&std)?.broadcast_add(&mean)?)
            }
            _ => Ok(y.clone()),
        }
    }

    /// Gradients of what is trained, by name, given the norm's input and the gradient of its output.
    pub(super) fn gradients(&self, x: &Tensor, dy: &Tensor) -> Result<Vec<(&'static str, Tensor)>> {
        if !self.is_trainable() {
            return Ok(vec![]);
        }
        let normalised = layer_norm(x, EPS)?;
        Ok(vec![
            ("bias", dy.sum(0)?),
            ("weight", (dy * normalised)?.sum(0)?),
        ])
    }
}

/// Dimensions of a norm's tensors.
pub(super) fn dims(kind: FeatureNorm, shape: &FeatureShape) -> Vec<usize> {
    match kind {
        FeatureNorm::LayerNormAffine => vec![shape.channels, shape.height, shape.width],
        _ => vec![shape.channels],
    }
}
