//! Anomaly maps: at the resolutions of an estimator, combined, at that of a photo.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::kernels::map::{upsample_bilinear, weighted_sum};
use crate::{Error, Result};

/// What a map shows; higher is more anomalous in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum MapKind {
    /// `0.5 mean_c z^2` (of CFLOW-AD with the log-determinant: the negative log-likelihood a channel): unbounded, never
    /// saturates.
    Nll,
    /// `-exp(-0.5 mean_c z^2)`, of CFLOW-AD `-exp` of the log-likelihood a channel: the ports'; all beyond a mean z^2 of about
    /// 33 looks alike.
    Exp,
    /// `-mean_c exp(-0.5 z_c^2)`: the paper's section 3.3 read literally.
    Prob,
    /// A distance from what is normal, of the methods that have no latents.
    #[cfg_attr(feature = "cli", value(skip))]
    Distance,
}

impl std::fmt::Display for MapKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nll => "nll",
            Self::Exp => "exp",
            Self::Prob => "prob",
            Self::Distance => "distance",
        })
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

/// The sum of the shares' maps `[B, h, w]`, each bilinearly resampled to `size` (rows, columns): `[B, H, W]`.
///
/// # Errors
/// When there is no share or one of a map that is not there, or the size is zero.
pub fn combine(maps: &[Tensor], shares: &[Share], size: (usize, usize)) -> Result<Tensor> {
    let scale = |share: &Share| {
        let map = maps.get(share.scale).ok_or_else(|| no_scale(share))?;
        Ok((map, share.shift, share.factor))
    };
    let scales = shares.iter().map(scale).collect::<Result<Vec<_>>>()?;
    weighted_sum(scales, size)
}

pub(super) fn no_scale(share: &Share) -> Error {
    Error::Invalid(format!("there is no scale {} to score", share.scale))
}

/// Maps of a batch of images at the estimator's own resolutions, `[B, h, w]` each, finest first: of one image small
/// enough to keep for a whole test set.
#[derive(Debug, Clone)]
pub struct NativeMaps {
    /// For the image score.
    pub image: Vec<Tensor>,
    /// For localisation.
    pub pixel: Vec<Tensor>,
    /// Image scores `[B]` of a method that has its own; the others score by their maps.
    pub scores: Option<Tensor>,
}

impl NativeMaps {
    /// These maps with every tensor replaced.
    fn each(&self, change: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let all = |maps: &[Tensor]| -> Result<Vec<Tensor>> {
            maps.iter().map(|map| Ok(change(map)?)).collect()
        };
        Ok(Self {
            image: all(&self.image)?,
            pixel: all(&self.pixel)?,
            scores: self.scores.as_ref().map(change).transpose()?,
        })
    }

    /// On the CPU: they are small, and what follows is.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn to_cpu(&self) -> Result<Self> {
        self.each(|map| map.to_device(&Device::Cpu))
    }

    /// Those of one image of the batch.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn of_image(&self, image: usize) -> Result<Self> {
        self.each(|map| map.narrow(0, image, 1))
    }
}

/// Scores at the resolution of the photo (or of the network's input), row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyMap {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width` scores.
    pub values: Vec<f32>,
}

impl AnomalyMap {
    /// Of the only map of `maps [1, H, W]`.
    ///
    /// # Errors
    /// When there is more than one.
    pub fn of(maps: &Tensor) -> Result<Self> {
        let (_, height, width) = maps.dims3()?;
        let values = maps.squeeze(0)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(Self {
            width,
            height,
            values,
        })
    }

    /// The map at another resolution, bilinear.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn resized(&self, width: usize, height: usize) -> Result<Self> {
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let map = Tensor::from_slice(&self.values, (1, self.height, self.width), &Device::Cpu)?;
        Self::of(&upsample_bilinear(&map, height, width)?)
    }
}
