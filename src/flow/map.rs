//! Anomaly maps from latents.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Latent;
use crate::Result;
use crate::kernels::map::{self, ScaleMap, Statistic};

/// How latents become a map; higher is more anomalous in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapKind {
    /// `0.5 mean_c z^2`: unbounded, never saturates.
    Nll,
    /// `-exp(-0.5 mean_c z^2)`: the ports'; all beyond a mean z^2 of about 33 looks alike.
    Exp,
    /// `-mean_c exp(-0.5 z_c^2)`: the paper's section 3.3 read literally.
    Prob,
}

/// One map `[B, h, w]` a scale, at the scale's own resolution.
///
/// # Errors
/// Only when candle fails.
pub fn scale_maps(latents: &[Latent], kind: MapKind) -> Result<Vec<Tensor>> {
    let one = |latent: &Latent| match kind {
        MapKind::Nll => map::negative_log_likelihood(&latent.z),
        MapKind::Exp => map::exponential(&map::negative_log_likelihood(&latent.z)?),
        MapKind::Prob => map::probability(&latent.z),
    };
    latents.iter().map(one).collect()
}

/// The mean over the scales of [`scale_maps`], each bilinearly resampled to `(height, width)`: `[B, H, W]`.
///
/// # Errors
/// When there is no latent, or the size is zero.
pub fn anomaly_map(
    latents: &[Latent],
    kind: MapKind,
    (height, width): (usize, usize),
) -> Result<Tensor> {
    let statistic = match kind {
        MapKind::Nll => Statistic::Nll,
        MapKind::Exp => Statistic::Exponential,
        MapKind::Prob => Statistic::Probability,
    };
    let scale = |latent| ScaleMap {
        z: latent,
        shift: 0.0,
        factor: 1.0 / latents.len() as f32,
    };
    let scales: Vec<ScaleMap> = latents.iter().map(|latent| scale(&latent.z)).collect();
    map::anomaly_map(&scales, statistic, (height, width))
}
