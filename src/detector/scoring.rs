//! From latents to maps and scores.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    flow::{Latent, MapKind, Share, anomaly_map, scale_maps},
    kernels::map::{image_scores, upsample_bilinear},
};

use super::Calibration;

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

    /// The scales' shares of the image map; `statistics` of the scales count where they are to be standardised.
    pub fn image_shares(
        &self,
        scales: usize,
        statistics: Option<&[ScaleStatistics]>,
    ) -> Vec<Share> {
        self.shares(scales, statistics, self.image_weights.as_deref())
    }

    /// The scales' shares of the localisation map.
    pub fn pixel_shares(
        &self,
        scales: usize,
        statistics: Option<&[ScaleStatistics]>,
    ) -> Vec<Share> {
        self.shares(scales, statistics, None)
    }

    fn shares(
        &self,
        scales: usize,
        statistics: Option<&[ScaleStatistics]>,
        weights: Option<&[f32]>,
    ) -> Vec<Share> {
        let statistics = statistics.filter(|_| self.standardise_scales);
        let total = weights.map_or(scales as f32, |weights| weights.iter().sum());
        let share = |scale: usize| {
            let weight = weights.map_or(1.0, |weights| weights.get(scale).copied().unwrap_or(0.0));
            let (shift, over) = match statistics.and_then(|all| all.get(scale)) {
                Some(own) => (own.mean, 1.0 / own.std.max(f32::MIN_POSITIVE)),
                None => (0.0, 1.0),
            };
            // A scale that does not count is not looked at, whatever its values.
            (weight != 0.0).then_some(Share {
                scale,
                shift,
                factor: over * weight / total,
            })
        };
        (0..scales).filter_map(share).collect()
    }

    /// Image scores `[B]` of image maps `[B, H, W]`.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn scores(&self, maps: &Tensor) -> Result<Tensor> {
        let k = match self.image_score {
            ImageScore::Max => 1,
            ImageScore::TopK(k) => k,
        };
        let (_, height, width) = maps.dims3()?;
        image_scores(maps, k.clamp(1, (height * width).max(1)))
    }

    /// The image score of one image map `[1, H, W]`.
    ///
    /// # Errors
    /// As [`Self::scores`], and when there are several maps.
    pub fn score(&self, map: &Tensor) -> Result<f32> {
        Ok(self.scores(map)?.squeeze(0)?.to_scalar()?)
    }

    /// Image scores `[B]` and localisation maps `[B, H, W]` of latents, computed where these are.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn inspect(
        &self,
        latents: &[Latent],
        calibration: Option<&Calibration>,
        size: (usize, usize),
    ) -> Result<(Tensor, Tensor)> {
        let scales = latents.len();
        let of_image = self.image_shares(scales, calibration.map(|c| &*c.image_scales));
        let of_pixels = self.pixel_shares(scales, calibration.map(|c| &*c.pixel_scales));
        let map = anomaly_map(latents, self.image_map, &of_image, size)?;
        let scores = self.scores(&map)?;
        if self.image_map == self.pixel_map && of_image == of_pixels {
            return Ok((scores, map));
        }
        Ok((
            scores,
            anomaly_map(latents, self.pixel_map, &of_pixels, size)?,
        ))
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
        let map = Tensor::from_slice(
            &self.values,
            (1, self.height, self.width),
            &candle_core::Device::Cpu,
        )?;
        Self::of(&upsample_bilinear(&map, height, width)?)
    }
}
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;
    use crate::flow::combine;

    fn latents() -> Vec<Latent> {
        let z = |channels: usize, height: usize, width: usize| {
            let len = 2 * channels * height * width;
            let values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin() * 2.0).collect();
            let z = Tensor::from_vec(values, (2, channels, height, width), &Device::Cpu).unwrap();
            let log_det = Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap();
            Latent { z, log_det }
        };
        vec![z(3, 8, 6), z(5, 4, 3), z(4, 2, 2)]
    }

    fn scoring(image_weights: Option<Vec<f32>>, standardise_scales: bool) -> Scoring {
        Scoring {
            image_map: MapKind::Nll,
            pixel_map: MapKind::Prob,
            image_score: ImageScore::TopK(7),
            standardise_scales,
            image_weights,
        }
    }

    /// By hand: weights over their sum, standardised maps.
    #[test]
    fn shares_are_weights_over_their_sum() {
        let statistics =
            [(1.0, 2.0), (3.0, 4.0), (5.0, 0.5)].map(|(mean, std)| ScaleStatistics { mean, std });
        let share = |scale, shift, factor| Share {
            scale,
            shift,
            factor,
        };
        let weighted = scoring(Some(vec![0.0, 1.0, 3.0]), true);
        let found = weighted.image_shares(3, Some(&statistics));
        assert_eq!(found, [share(1, 3.0, 0.0625), share(2, 5.0, 1.5)]);
        let plain = scoring(Some(vec![0.0, 1.0, 3.0]), false);
        let found = plain.image_shares(3, Some(&statistics));
        assert_eq!(found, [share(1, 0.0, 0.25), share(2, 0.0, 0.75)]);
        assert_eq!(plain.pixel_shares(3, None), Share::mean(3));
    }

    #[test]
    fn latents_and_kept_maps_say_the_same() {
        let (latents, size) = (latents(), (16, 12));
        for scoring in [
            scoring(None, false),
            scoring(Some(vec![0.0, 1.0, 3.0]), false),
        ] {
            let (scores, pixels) = scoring.inspect(&latents, None, size).unwrap();
            let maps = scoring.native_maps(&latents).unwrap();
            let of_image = combine(&maps.image, &scoring.image_shares(3, None), size).unwrap();
            let of_pixels = combine(&maps.pixel, &scoring.pixel_shares(3, None), size).unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(&scores), flat(&scoring.scores(&of_image).unwrap()));
            assert_eq!(flat(&pixels), flat(&of_pixels));
            assert_ne!(flat(&of_image), flat(&of_pixels));
        }
    }

    #[test]
    fn a_map_with_nan_has_no_finite_score() {
        let map = Tensor::new(&[[[1f32, f32::NAN], [3.0, 2.0]]], &Device::Cpu).unwrap();
        for image_score in [ImageScore::Max, ImageScore::TopK(2), ImageScore::TopK(9)] {
            let scoring = Scoring {
                image_score,
                ..scoring(None, false)
            };
            let score = scoring.scores(&map).unwrap().to_vec1::<f32>().unwrap();
            assert!(score[0].is_nan(), "{image_score:?}");
        }
    }
}
