//! From latents to anomaly maps.

mod average;
mod blur;
#[cfg(feature = "cuda")]
mod cuda;
mod positions;
mod score;
mod turned;
mod upsample;

pub use average::local_average;
pub use blur::gaussian_blur;
pub use positions::{negative_log_likelihood, probability};
pub use score::{image_scores, top_mean};
pub use turned::quarter_turned;
pub use upsample::upsample_bilinear;

use candle_core::Tensor;

use crate::{Error, Result};

/// The ports' map of a [`negative_log_likelihood`] map: `-exp(-nll)`, elementwise. It saturates.
///
/// # Errors
/// Only when candle fails.
pub fn exponential(nll: &Tensor) -> Result<Tensor> {
    Ok(nll.neg()?.exp()?.neg()?)
}

/// A statistic over the channels at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)] // as map.h numbers them
pub enum Statistic {
    /// [`negative_log_likelihood`].
    Nll = 0,
    /// [`exponential`] of it.
    Exponential = 1,
    /// [`probability`].
    Probability = 2,
}

impl Statistic {
    /// Of `z [B, C, H, W]`: `[B, H, W]`.
    ///
    /// # Errors
    /// When `z` has another shape or type.
    pub fn of(self, z: &Tensor) -> Result<Tensor> {
        match self {
            Self::Nll => negative_log_likelihood(z),
            Self::Exponential => exponential(&negative_log_likelihood(z)?),
            Self::Probability => probability(z),
        }
    }
}

/// One scale's part in [`anomaly_map`].
#[derive(Debug, Clone, Copy)]
pub struct ScaleMap<'a> {
    /// Latents `[B, C, h, w]`.
    pub z: &'a Tensor,
    /// Taken off the scale's map first.
    pub shift: f32,
    /// Multiplies the rest.
    pub factor: f32,
}

/// `sum_i factor_i (map_i - shift_i)` over the scales, where `map_i` is the statistic's map resampled to
/// `(height, width)`: `[B, height, width]`. On a GPU this is one kernel.
///
/// # Errors
/// When there is no scale, the size is zero, or shapes or types do not fit.
pub fn anomaly_map(
    scales: &[ScaleMap],
    statistic: Statistic,
    size: (usize, usize),
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if scales.iter().all(|scale| scale.z.device().is_cuda())
        && let Some(map) = cuda::anomaly_map(scales, statistic, size)?
    {
        return Ok(map);
    }
    let map = |scale: &ScaleMap| Ok((statistic.of(scale.z)?, scale.shift, scale.factor));
    let maps = scales.iter().map(map).collect::<Result<Vec<_>>>()?;
    weighted_sum(
        maps.iter()
            .map(|(map, shift, factor)| (map, *shift, *factor)),
        size,
    )
}

/// [`anomaly_map`] of maps `[B, h, w]` that are there already: `(map, shift, factor)` a scale.
///
/// # Errors
/// When there is no scale, the size is zero, or shapes or types do not fit.
pub fn weighted_sum<'a>(
    maps: impl IntoIterator<Item = (&'a Tensor, f32, f32)>,
    (height, width): (usize, usize),
) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (map, shift, factor) in maps {
        let (shift, factor) = (f64::from(shift), f64::from(factor));
        let map = upsample_bilinear(map, height, width)?.affine(factor, -shift * factor)?;
        sum = Some(match sum {
            Some(sum) => (sum + map)?,
            None => map,
        });
    }
    sum.ok_or_else(|| Error::Invalid("an anomaly map needs at least one scale".into()))
}
