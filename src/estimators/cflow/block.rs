//! One coupling block: a small network looks at the first channels and at where the position lies, and moves the others;
//! then all are scaled, shifted and rotated.
//!
//! ```text
//! a     = 0.1 subnet(x1, condition)
//! log_s = clamp * tanh(a[first half]),   t = a[second half]
//! y     = R (concat(x1, x2 * exp(log_s) + t) * scale + offset),   scale = 0.1 softplus(g), beta 0.5
//! ```

use candle_core::{D, DType, Device, Tensor, Var};
use nalgebra::DMatrix;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::config::Sizes;
use crate::estimators::tensors::Source;
use crate::{Error, Result};

/// The subnet's output is scaled by this before it is used (for a gentle start).
const SUBNET_SCALE: f64 = 0.1;
/// How far the rows of a rotation may be from orthonormal: f32's rounding, with room.
const ORTHONORMAL: f32 = 1e-3;

/// A block's trainable tensors.
#[derive(Debug, Clone)]
pub(super) struct Parameters<T> {
    /// `[C]`.
    pub(super) global_offset: T,
    /// `g [C]`.
    pub(super) global_scale: T,
    /// `[H]`.
    pub(super) linear1_bias: T,
    /// `[H, C - C/2 + condition]`: of the channels, then of the position.
    pub(super) linear1_weight: T,
    /// `[2 (C/2)]`.
    pub(super) linear2_bias: T,
    /// `[2 (C/2), H]`.
    pub(super) linear2_weight: T,
}

impl<T> Parameters<T> {
    /// With their names in an artifact.
    pub(super) fn named(&self) -> [(&'static str, &T); 6] {
        [
            ("global_offset", &self.global_offset),
            ("global_scale", &self.global_scale),
            ("linear1.bias", &self.linear1_bias),
            ("linear1.weight", &self.linear1_weight),
            ("linear2.bias", &self.linear2_bias),
            ("linear2.weight", &self.linear2_weight),
        ]
    }

    /// Builds every tensor from its name and its shape.
    fn try_from_names(
        sizes: &Sizes,
        mut make: impl FnMut(&'static str, &[usize]) -> Result<T>,
    ) -> Result<Self> {
        let (channels, hidden) = (sizes.channels(), sizes.hidden());
        let (inputs, outputs) = (sizes.passive + sizes.condition, 2 * sizes.active);
        Ok(Self {
            global_offset: make("global_offset", &[channels])?,
            global_scale: make("global_scale", &[channels])?,
            linear1_bias: make("linear1.bias", &[hidden])?,
            linear1_weight: make("linear1.weight", &[hidden, inputs])?,
            linear2_bias: make("linear2.bias", &[outputs])?,
            linear2_weight: make("linear2.weight", &[outputs, hidden])?,
        })
    }
}

impl Parameters<Var> {
    /// To compute with: as variables that gradients are wanted of, or as plain tensors, of which no graph is kept.
    pub(super) fn tensors(&self, tracked: bool) -> Parameters<Tensor> {
        let of = |var: &Var| match tracked {
            true => var.as_tensor().clone(),
            false => var.as_detached_tensor(),
        };
        Parameters {
            global_offset: of(&self.global_offset),
            global_scale: of(&self.global_scale),
            linear1_bias: of(&self.linear1_bias),
            linear1_weight: of(&self.linear1_weight),
            linear2_bias: of(&self.linear2_bias),
            linear2_weight: of(&self.linear2_weight),
        }
    }
}

/// A block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) parameters: Parameters<Var>,
    /// `R [C, C]`, orthogonal; not trained.
    pub(super) rotation: Tensor,
    clamp: f64,
}

impl Block {
    /// torch's initialisation of linear layers, a global scale of 1, and a random rotation.
    pub(super) fn init(
        sizes: &Sizes,
        clamp: f32,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Result<Self> {
        let (inputs, hidden) = (sizes.passive + sizes.condition, sizes.hidden());
        let parameters = Parameters::try_from_names(sizes, |name, dims| {
            let mut uniform = |fan_in: usize| {
                let bound = 1.0 / (fan_in as f32).sqrt();
                let count = dims.iter().product();
                let values: Vec<f32> = (0..count)
                    .map(|_| rng.random_range(-bound..bound))
                    .collect();
                Tensor::from_vec(values, dims, device)
            };
            let tensor = match name {
                "linear1.weight" | "linear1.bias" => uniform(inputs)?,
                "linear2.weight" | "linear2.bias" => uniform(hidden)?,
                // 0.1 softplus of it is 1.
                "global_scale" => Tensor::full((2.0 * 5f64.exp_m1().ln()) as f32, dims, device)?,
                _ => Tensor::zeros(dims, DType::F32, device)?,
            };
            Ok(Var::from_tensor(&tensor)?)
        })?;
        Ok(Self {
            parameters,
            rotation: rotation(sizes.channels(), rng, device)?,
            clamp: f64::from(clamp),
        })
    }

    /// Takes its tensors, whose names start with `prefix`, out of `source`.
    pub(super) fn take(
        sizes: &Sizes,
        clamp: f32,
        prefix: &str,
        source: &mut Source,
    ) -> Result<Self> {
        let parameters = Parameters::try_from_names(sizes, |name, dims| {
            let tensor = source.take(&format!("{prefix}.{name}"), dims)?;
            Ok(Var::from_tensor(&tensor)?)
        })?;
        let name = format!("{prefix}.rotation");
        let rotation = source.take(&name, &[sizes.channels(); 2])?;
        expect_orthonormal(&name, &rotation)?;
        Ok(Self {
            parameters,
            rotation,
            clamp: f64::from(clamp),
        })
    }

    /// `x [B P, C]`, image by image, and the positions' encodings `[P, condition]` to `y [B P, C]` and `log|det J| [B P]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        condition: &Tensor,
        tracked: bool,
    ) -> Result<(Tensor, Tensor)> {
        let weights = self.parameters.tensors(tracked);
        block(x, condition, &weights, &self.rotation, self.clamp)
    }
}

/// What [`Block::forward`] computes.
pub(super) fn block(
    x: &Tensor,
    condition: &Tensor,
    weights: &Parameters<Tensor>,
    rotation: &Tensor,
    clamp: f64,
) -> Result<(Tensor, Tensor)> {
    let channels = x.dim(1)?;
    let active = channels / 2;
    let passive = channels - active;
    let x1 = x.narrow(1, 0, passive)?.contiguous()?;
    let a = (subnet(&x1, condition, weights)? * SUBNET_SCALE)?;
    let log_scale = (a.narrow(1, 0, active)?.tanh()? * clamp)?;
    let moved = x.narrow(1, passive, active)?.mul(&log_scale.exp()?)?;
    let moved = (moved + a.narrow(1, active, active)?)?;
    let scale = global_scale(&weights.global_scale)?;
    // R (y scale + offset) = (R scale) y + R offset: scaling a matrix is less work than scaling all positions.
    let matrix = rotation.broadcast_mul(&scale)?;
    let shift = rotation.matmul(&weights.global_offset.unsqueeze(1)?)?;
    let y = Tensor::cat(&[&x1, &moved], 1)?.matmul(&matrix.t()?)?;
    let log_det = log_scale
        .sum(D::Minus1)?
        .broadcast_add(&scale.log()?.sum_all()?)?;
    Ok((y.broadcast_add(&shift.squeeze(1)?)?, log_det))
}

/// `linear2(relu(linear1(x1, condition)))`, `[B P, 2 (C/2)]`. What the first layer makes of the encodings is the same for
/// every image and is computed once.
fn subnet(x1: &Tensor, condition: &Tensor, weights: &Parameters<Tensor>) -> Result<Tensor> {
    let (rows, passive) = x1.dims2()?;
    let (positions, encoded) = condition.dims2()?;
    let weight = &weights.linear1_weight;
    let of_channels = weight.narrow(1, 0, passive)?.contiguous()?;
    let of_condition = weight.narrow(1, passive, encoded)?.contiguous()?;
    let at = condition
        .matmul(&of_condition.t()?)?
        .broadcast_add(&weights.linear1_bias)?;
    let hidden = x1.matmul(&of_channels.t()?)?;
    let width = hidden.dim(1)?;
    let hidden = hidden
        .reshape((rows / positions, positions, width))?
        .broadcast_add(&at)?
        .relu()?
        .reshape((rows, width))?;
    let out = hidden.matmul(&weights.linear2_weight.t()?)?;
    Ok(out.broadcast_add(&weights.linear2_bias)?)
}

/// `0.1 softplus(g)` with beta 0.5: `0.2 log(1 + exp(g / 2))`, without overflow.
fn global_scale(g: &Tensor) -> Result<Tensor> {
    let half = (g * 0.5)?;
    let rest = (half.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok(((half.relu()? + rest)? * 0.2)?)
}

/// A random orthogonal matrix `[C, C]`, uniform (Haar): Q of the QR decomposition of normal numbers, its columns' signs
/// those of R's diagonal. It may mirror, which a determinant's magnitude does not see.
fn rotation(channels: usize, rng: &mut ChaCha8Rng, device: &Device) -> Result<Tensor> {
    let normal = DMatrix::<f64>::from_fn(channels, channels, |_, _| StandardNormal.sample(rng));
    let (q, r) = normal.qr().unpack();
    let value = |at: usize| {
        let (row, column) = (at / channels, at % channels);
        (q[(row, column)] * r[(column, column)].signum()) as f32
    };
    let values: Vec<f32> = (0..channels * channels).map(value).collect();
    Ok(Tensor::from_vec(values, (channels, channels), device)?)
}

/// Log-determinants leave rotations out, which is right only for those that are.
fn expect_orthonormal(name: &str, rotation: &Tensor) -> Result<()> {
    let product = rotation.matmul(&rotation.t()?)?;
    let unit = Tensor::eye(rotation.dim(0)?, DType::F32, rotation.device())?;
    let largest = (product - unit)?.abs()?.max_all()?.to_scalar::<f32>()?;
    match largest < ORTHONORMAL {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "tensor `{name}` is not orthogonal (by {largest})"
        ))),
    }
}
