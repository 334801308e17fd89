//! Linear layers of a frozen network: read, folded with their neighbours, then used.

use super::weights::Weights;
use crate::{Result, kernels::linear::PreparedLinear};

/// A layer in host memory, before it is finished.
pub(super) struct Draft {
    weight: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Draft {
    /// Reads `weight` (of this shape in the file, `[outputs, ...inputs]`) and `bias`.
    pub(super) fn read(weights: &Weights, shape: &[usize]) -> Result<Self> {
        Ok(Self {
            weight: weights.values("weight", shape)?,
            bias: weights.values("bias", &shape[..1])?,
            inputs: shape[1..].iter().product(),
        })
    }

    /// Takes over the scale and shift of the norm before it: `W (g n + s) + b = (W g) n + (W s + b)`.
    pub(super) fn fold_norm(&mut self, norm: &Weights) -> Result<()> {
        let scale = norm.values("weight", &[self.inputs])?;
        let shift = norm.values("bias", &[self.inputs])?;
        for (row, bias) in self
            .weight
            .chunks_exact_mut(self.inputs)
            .zip(&mut self.bias)
        {
            let mut added = 0f64;
            for ((weight, scale), shift) in row.iter_mut().zip(&scale).zip(&shift) {
                added += f64::from(*weight) * f64::from(*shift);
                *weight *= scale;
            }
            *bias += added as f32;
        }
        Ok(())
    }

    /// Takes over a scale of each output (LayerScale) behind it.
    pub(super) fn fold_scale(&mut self, weights: &Weights, name: &str) -> Result<()> {
        let scale = weights.values(name, &[self.bias.len()])?;
        for (index, row) in self.weight.chunks_exact_mut(self.inputs).enumerate() {
            row.iter_mut().for_each(|weight| *weight *= scale[index]);
            self.bias[index] *= scale[index];
        }
        Ok(())
    }

    /// The layer on the weights' device.
    pub(super) fn finish(self, weights: &Weights) -> Result<PreparedLinear> {
        PreparedLinear::new(self.weight, self.bias, weights.device())
    }
}
