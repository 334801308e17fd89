//! From latents to anomaly maps.

mod positions;
mod upsample;

pub use positions::{negative_log_likelihood, probability};
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

/// `sum_i weights[i] maps[i] / sum_i weights[i]`.
///
/// # Errors
/// When there is no map, their shapes differ, or the weights are not one positive number a map.
pub fn weighted_mean(maps: &[Tensor], weights: &[f64]) -> Result<Tensor> {
    let total: f64 = weights.iter().sum();
    if maps.is_empty() || maps.len() != weights.len() || !(total > 0.0 && total.is_finite()) {
        return Err(Error::Invalid(format!(
            "cannot average {} maps with the weights {weights:?}: give one positive weight a map",
            maps.len()
        )));
    }
    let mut mean = (&maps[0] * (weights[0] / total))?;
    for (map, weight) in maps.iter().zip(weights).skip(1) {
        mean = (mean + (map * (weight / total))?)?;
    }
    Ok(mean)
}
