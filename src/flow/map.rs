//! Anomaly maps from latents.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Latent;
use crate::kernels::map::{self, ScaleMap, Statistic};
use crate::{Error, Result};

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

impl MapKind {
    fn statistic(self) -> Statistic {
        match self {
            Self::Nll => Statistic::Nll,
            Self::Exp => Statistic::Exponential,
            Self::Prob => Statistic::Probability,
        }
    }
}

/// A scale's share of a map over all scales: `factor (map - shift)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Which scale.
    pub scale: usize,
    /// Taken off its map.
    pub shift: f32,
    /// Multiplies the rest.
    pub factor: f32,
}

impl Share {
    /// Of a plain mean over `scales`.
    pub fn mean(scales: usize) -> Vec<Self> {
        let one = |scale| Self {
            scale,
            shift: 0.0,
            factor: 1.0 / scales as f32,
        };
        (0..scales).map(one).collect()
    }
}

/// One map `[B, h, w]` a scale, at the scale's own resolution.
///
/// # Errors
/// Only when candle fails.
pub fn scale_maps(latents: &[Latent], kind: MapKind) -> Result<Vec<Tensor>> {
    let statistic = kind.statistic();
    latents
        .iter()
        .map(|latent| statistic.of(&latent.z))
        .collect()
}

/// The sum of the shares' [`scale_maps`], each bilinearly resampled to `(height, width)`: `[B, H, W]`.
///
/// # Errors
/// When there is no share or one of a scale that is not there, or the size is zero.
pub fn anomaly_map(
    latents: &[Latent],
    kind: MapKind,
    shares: &[Share],
    size: (usize, usize),
) -> Result<Tensor> {
    let scale = |share: &Share| {
        let latent = latents.get(share.scale).ok_or_else(|| no_scale(share))?;
        Ok(ScaleMap {
            z: &latent.z,
            shift: share.shift,
            factor: share.factor,
        })
    };
    let scales = shares.iter().map(scale).collect::<Result<Vec<_>>>()?;
    map::anomaly_map(&scales, kind.statistic(), size)
}

/// [`anomaly_map`] from the maps of [`scale_maps`].
///
/// # Errors
/// As [`anomaly_map`].
pub fn combine(maps: &[Tensor], shares: &[Share], size: (usize, usize)) -> Result<Tensor> {
    let scale = |share: &Share| {
        let map = maps.get(share.scale).ok_or_else(|| no_scale(share))?;
        Ok((map, share.shift, share.factor))
    };
    let scales = shares.iter().map(scale).collect::<Result<Vec<_>>>()?;
    map::weighted_sum(scales, size)
}

fn no_scale(share: &Share) -> Error {
    Error::Invalid(format!("there is no scale {} to score", share.scale))
}
