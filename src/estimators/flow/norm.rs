//! The norm between a backbone's features and the first step.

use candle_core::{DType, Device, Tensor, Var};

use super::FeatureNorm;
use super::whitening;
use crate::Result;
use crate::kernels::FeatureShape;
use crate::kernels::conv::conv2d;
use crate::kernels::norm::{layer_norm, layer_norm_affine, standardise};

/// As torch's LayerNorm.
const EPS: f32 = 1e-5;

/// One scale's norm with its tensors.
#[derive(Debug, Clone)]
pub(super) enum Norm {
    None,
    Standardise { mean: Tensor, std: Tensor },
    Whiten(Whitening),
    Layer,
    LayerAffine { weight: Var, bias: Var },
}

impl Norm {
    /// Starts as the identity after normalisation.
    pub(super) fn init(kind: FeatureNorm, shape: &FeatureShape, device: &Device) -> Result<Self> {
        let full = |name| {
            let dims = dims(kind, name, shape);
            Ok(match name {
                "mean" | "bias" => Tensor::zeros(dims, DType::F32, device)?,
                "matrix" => Tensor::eye(shape.channels, DType::F32, device)?,
                _ => Tensor::ones(dims, DType::F32, device)?,
            })
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
            FeatureNorm::Whiten => Norm::Whiten(Whitening::new(make("mean")?, make("matrix")?)?),
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
            Norm::Whiten(whitening) => vec![
                ("matrix", whitening.matrix.clone()),
                ("mean", whitening.mean.clone()),
            ],
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
            Norm::Whiten(whitening) => whitening.forward(x),
            Norm::Layer => layer_norm(x, EPS),
            Norm::LayerAffine { weight, bias } => {
                let (weight, bias) = (weight.as_detached_tensor(), bias.as_detached_tensor());
                layer_norm_affine(x, &weight, &bias, EPS)
            }
        }
    }

    /// Undoes standardising and whitening; a LayerNorm's moments are not known any more, so it is left as it is.
    pub(super) fn inverse(&self, y: &Tensor) -> Result<Tensor> {
        match self {
            Norm::Standardise { mean, std } => {
                let (mean, std) = (mean.reshape((1, (), 1, 1))?, std.reshape((1, (), 1, 1))?);
                Ok(y.broadcast_mul(&std)?.broadcast_add(&mean)?)
            }
            Norm::Whiten(whitening) => whitening.inverse(y),
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

/// `W (x - mean)` at every position, as a convolution with 1x1 kernels.
#[derive(Debug, Clone)]
pub(super) struct Whitening {
    /// `[C]`.
    mean: Tensor,
    /// W, `[C, C]`.
    matrix: Tensor,
    /// `-W mean`, `[C]`.
    bias: Tensor,
}

impl Whitening {
    pub(super) fn new(mean: Tensor, matrix: Tensor) -> Result<Self> {
        let bias = matrix.matmul(&mean.unsqueeze(1)?)?.squeeze(1)?.neg()?;
        Ok(Self { mean, matrix, bias })
    }

    pub(super) fn channels(&self) -> usize {
        self.mean.elem_count()
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        pointwise(x, &self.matrix, &self.bias)
    }

    fn inverse(&self, y: &Tensor) -> Result<Tensor> {
        let channels = self.channels();
        let inverse = whitening::inverse(&self.matrix.flatten_all()?.to_vec1()?, channels)?;
        let inverse = Tensor::from_vec(inverse, (channels, channels), y.device())?;
        pointwise(y, &inverse, &self.mean)
    }
}

/// `matrix x + bias` over the channels of `x [B, C, H, W]`.
fn pointwise(x: &Tensor, matrix: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    conv2d(x, &matrix.reshape((rows, columns, 1, 1))?, Some(bias), 1, 0)
}

/// Dimensions of the tensor called `name` of a norm.
pub(super) fn dims(kind: FeatureNorm, name: &str, shape: &FeatureShape) -> Vec<usize> {
    match kind {
        FeatureNorm::Whiten if name == "matrix" => vec![shape.channels, shape.channels],
        FeatureNorm::LayerNormAffine => vec![shape.channels, shape.height, shape.width],
        _ => vec![shape.channels],
    }
}
