//! The affine coupling of one flow step, with the global affine and the channel permutation, in one pass
//! over memory each way (PAPER.md, "One step"; FrEIA 0.2's AllInOneBlock).
//!
//! `x [B, C, H, W]` is split into `C - C/2` and `C/2` channels; `a [B, 2 (C/2), H, W]` is what the subnet
//! made of the first part:
//!
//! ```text
//! log_s = clamp * tanh(0.1 a[first half]),   t = 0.1 a[second half]
//! y     = (concat(x1, x2 * exp(log_s) + t) * scale + offset)[:, permutation]
//! ```

mod affine;
mod backward;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod forward;
mod inverse;
mod permutation;
#[cfg(test)]
mod tests;

pub use affine::Affine;
pub use backward::{CouplingGradients, LogDetGradient, backward};
pub use forward::forward;
pub use inverse::{uncouple, undo_affine};
pub use permutation::Permutation;

use candle_core::Tensor;

use super::shape::expect_f32;
use crate::{Error, Result};

/// The subnet's output is scaled by this before it is used (for a gentle start).
const SUBNET_SCALE: f32 = 0.1;
/// Positions a task works on: its rows of one channel stay in the first-level cache.
const SPAN: usize = 1024;

/// What does not vary along a row.
#[derive(Clone, Copy)]
struct Constants {
    scale: f32,
    offset: f32,
    clamp: f32,
}

/// The sizes of one coupling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl Sizes {
    /// Of a batch that must be permuted.
    fn of(x: &Tensor, permutation: &Permutation) -> Result<Self> {
        let sizes = Self::of_batch(x)?;
        let dims = [sizes.batch, permutation.len(), sizes.height, sizes.width];
        expect_f32("coupling input", x, &dims)?;
        Ok(sizes)
    }

    fn of_batch(x: &Tensor) -> Result<Self> {
        let [batch, channels, height, width] = *x.dims() else {
            return Err(Error::Shape {
                what: "coupling input".into(),
                expected: "[B, C, H, W]".into(),
                found: format!("{:?}", x.dims()),
            });
        };
        expect_f32("coupling input", x, x.dims())?;
        Ok(Self {
            batch,
            channels,
            height,
            width,
        })
    }

    fn expect_subnet(&self, a: &Tensor) -> Result<()> {
        let dims = [self.batch, 2 * self.active(), self.height, self.width];
        expect_f32("subnet output", a, &dims)
    }

    /// Channels that pass unchanged.
    fn passive(&self) -> usize {
        self.channels - self.active()
    }

    /// Channels that are transformed.
    fn active(&self) -> usize {
        self.channels / 2
    }

    fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Values of one image.
    fn image(&self) -> usize {
        self.channels * self.positions()
    }

    fn grid(&self) -> super::grid::Grid {
        super::grid::Grid::new(self.batch, self.positions(), SPAN)
    }
}
