//! From latents to maps and scores.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    flow::{Latent, MapKind, scale_maps},
    kernels::map::upsample_bilinear,
};

/// Which map decides about the image, which one shows where, and how a map becomes one number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scoring {
    /// Map behind the image score.
    pub image_map: MapKind,
    /// Map for localisation.
    pub pixel_map: MapKind,
    /// How the image map becomes the image score.
    pub image_score: ImageScore,
    /// Whether every scale is standardised on held-out normal images before the mean over scales.
    pub standardise_scales: bool,
    /// Weights of the scales in the image map, finest first; all alike where none. Fine scales can be too
    /// noisy to say anything about a whole image.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_weights: Option<Vec<f32>>,
}

/// From a map to the image's score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageScore {
    /// The largest value.
    Max,
    /// Mean of the `k` largest values.
    TopK(usize),
}

/// Mean and standard deviation of one scale's map over held-out normal images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleStatistics {
    /// Mean over images and positions.
    pub mean: f32,
    /// Standard deviation over images and positions.
    pub std: f32,
}

/// One image's maps at the resolution of the features, `[1, h, w]` a scale, finest first: small
/// enough to keep for a whole test set.
#[derive(Debug, Clone)]
pub struct NativeMaps {
    /// For the image score.
    pub image: Vec<Tensor>,
    /// For localisation.
    pub pixel: Vec<Tensor>,
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

impl Scoring {
    /// Checks ranges.
    ///
    /// # Errors
    /// When `image_score.top_k` is zero, or a weight is negative, not finite, or all are zero.
    pub fn validate(&self) -> Result<()> {
        if let Some(weights) = &self.image_weights {
            let sum: f32 = weights.iter().sum();
            if weights.iter().any(|w| *w < 0.0) || !(sum > 0.0 && sum.is_finite()) {
                return Err(Error::Invalid(
                    "scoring.image_weights must be zero or positive numbers, not all zero".into(),
                ));
            }
        }
        match self.image_score {
            ImageScore::TopK(0) => Err(Error::Invalid(
                "scoring.image_score.top_k must be at least 1".into(),
            )),
            _ => Ok(()),
        }
    }

    /// Checks that there are as many weights as scales.
    ///
    /// # Errors
    /// When there are not.
    pub fn check_scales(&self, scales: usize) -> Result<()> {
        match &self.image_weights {
            Some(weights) if weights.len() != scales => Err(Error::Invalid(format!(
                "scoring.image_weights has {} numbers; this flow has {scales} scales",
                weights.len()
            ))),
            _ => Ok(()),
        }
    }

    /// Both maps of one image from its latents (batch 1), on the CPU: they are small, and what follows is.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn native_maps(&self, latents: &[Latent]) -> Result<NativeMaps> {
        let maps = |kind| -> Result<Vec<Tensor>> {
            let maps = scale_maps(latents, kind)?.into_iter();
            maps.map(|map| Ok(map.to_device(&candle_core::Device::Cpu)?))
                .collect()
        };
        let image = maps(self.image_map)?;
        let pixel = if self.pixel_map == self.image_map {
            image.clone()
        } else {
            maps(self.pixel_map)?
        };
        Ok(NativeMaps { image, pixel })
    }
}

impl ImageScore {
    /// The score of a map.
    pub fn of(self, values: &[f32]) -> f32 {
        match self {
            Self::Max => values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            Self::TopK(k) => {
                let k = k.clamp(1, values.len().max(1));
                let mut sorted = values.to_vec();
                let descending = |a: &f32, b: &f32| b.total_cmp(a);
                if k < sorted.len() {
                    sorted.select_nth_unstable_by(k - 1, descending);
                }
                let top: f64 = sorted[..k.min(sorted.len())]
                    .iter()
                    .map(|&v| f64::from(v))
                    .sum();
                (top / k as f64) as f32
            }
        }
    }
}

/// Weighted mean over scales of the maps, each brought to `height` x `width`; standardised first where
/// `statistics` (one a scale) are given, and all of the same weight where `weights` are not.
///
/// # Errors
/// When the tensor library fails.
pub fn combine(
    maps: &[Tensor],
    statistics: Option<&[ScaleStatistics]>,
    weights: Option<&[f32]>,
    height: usize,
    width: usize,
) -> Result<AnomalyMap> {
    let mut values = vec![0f32; height * width];
    let total = weights.map_or(maps.len() as f32, |weights| weights.iter().sum());
    for (scale, map) in maps.iter().enumerate() {
        let weight = weights.map_or(1.0, |weights| weights.get(scale).copied().unwrap_or(0.0));
        if weight == 0.0 {
            continue;
        }
        let (shift, factor) = match statistics.and_then(|s| s.get(scale)) {
            Some(s) => (s.mean, 1.0 / s.std.max(f32::MIN_POSITIVE)),
            None => (0.0, 1.0),
        };
        let factor = factor * weight / total;
        let upsampled = upsample_bilinear(map, height, width)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        for (sum, value) in values.iter_mut().zip(upsampled) {
            *sum += (value - shift) * factor;
        }
    }
    Ok(AnomalyMap {
        width,
        height,
        values,
    })
}

impl AnomalyMap {
    /// The map at another resolution, bilinear.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn resized(&self, width: usize, height: usize) -> Result<Self> {
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let map = Tensor::from_slice(
            &self.values,
            (1, self.height, self.width),
            &candle_core::Device::Cpu,
        )?;
        let values = upsample_bilinear(&map, height, width)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        Ok(Self {
            width,
            height,
            values,
        })
    }
}
