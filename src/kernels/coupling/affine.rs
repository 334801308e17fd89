//! The global affine of one step.

use candle_core::Tensor;

use crate::kernels::shape::expect_f32;
use crate::{Error, Result};

/// Scale and offset of every channel, one behind the other: an op takes no more than three tensors.
#[derive(Debug, Clone)]
pub struct Affine(Tensor);

impl Affine {
    /// Of `scale [C]` and `offset [C]`; differentiable.
    ///
    /// # Errors
    /// When one is no f32 vector, or they differ in length.
    pub fn new(scale: &Tensor, offset: &Tensor) -> Result<Self> {
        let channels = scale.elem_count();
        expect_f32("coupling scale", scale, &[channels])?;
        expect_f32("coupling offset", offset, &[channels])?;
        Ok(Self(Tensor::cat(&[scale, offset], 0)?))
    }

    /// Of a contiguous `[2 C]`, the scales first.
    pub fn packed(values: Tensor) -> Self {
        Self(values)
    }

    /// Its values `[2 C]`.
    ///
    /// # Errors
    /// When there are not two for each of `channels`, or they are scattered.
    pub(super) fn values(&self, channels: usize) -> Result<&Tensor> {
        expect_f32("coupling scales and offsets", &self.0, &[2 * channels])?;
        match self.0.is_contiguous() {
            true => Ok(&self.0),
            false => Err(Error::Invalid(
                "coupling scales and offsets must be contiguous".into(),
            )),
        }
    }
}
