//! From an estimator's maps to an image score and a localisation map.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{EstimatorConfig, MapKind, NativeMaps, Share, combine};
use crate::kernels::{
    FeatureShape,
    map::{gaussian_blur, image_scores},
};
use crate::{Error, Result};

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
    /// Standard deviation, in pixels of the network's input, of a Gaussian that the maps are smoothed with before
    /// anything is read off them; none for not at all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smoothing: Option<f32>,
}

/// From a map to the image's score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageScore {
    /// The largest value.
    Max,
    /// Mean of the `k` largest values.
    TopK(usize),
    /// The method's own, which is not read off its map.
    Own,
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

impl ScaleStatistics {
    /// Of values, summed in f64 in their order.
    pub fn of(values: impl IntoIterator<Item = f32>) -> Self {
        let (mut sum, mut squares, mut count) = (0f64, 0f64, 0usize);
        for value in values.into_iter().map(f64::from) {
            (sum, squares, count) = (sum + value, squares + value * value, count + 1);
        }
        let count = count.max(1) as f64;
        let mean = sum / count;
        Self {
            mean: mean as f32,
            std: (squares / count - mean * mean).max(0.0).sqrt() as f32,
        }
    }
}

/// Statistics of the maps of held-out normal images, one a scale and finest first.
#[derive(Debug, Clone, Copy)]
pub struct MapStatistics<'a> {
    /// Of the maps behind the image score.
    pub image: &'a [ScaleStatistics],
    /// Of the localisation maps.
    pub pixel: &'a [ScaleStatistics],
}

impl Scoring {
    /// The largest value of a map of distances, as it is.
    pub fn of_distances() -> Self {
        Self {
            image_map: MapKind::Distance,
            pixel_map: MapKind::Distance,
            image_score: ImageScore::Max,
            standardise_scales: false,
            image_weights: None,
            smoothing: None,
        }
    }

    /// The largest smoothing that makes sense, in pixels.
    const MAX_SMOOTHING: f32 = 64.0;

    /// Checks ranges, and that the estimator makes these maps of feature maps of these shapes.
    ///
    /// # Errors
    /// When `image_score.top_k` is zero, a weight is negative, not finite, or all are zero, there are not as many
    /// weights as maps, or the method has no such map or no image score of its own.
    pub fn check(&self, estimator: &EstimatorConfig, shapes: &[FeatureShape]) -> Result<()> {
        self.validate()?;
        let kinds = estimator.map_kinds();
        for map in [self.image_map, self.pixel_map] {
            if !kinds.contains(&map) {
                return Err(estimator.lacks(&format!("map `{map}`")));
            }
        }
        if self.image_score == ImageScore::Own && !estimator.has_own_score() {
            return Err(estimator.lacks("image score of its own"));
        }
        self.check_scales(estimator.map_count(shapes))
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// When `image_score.top_k` is zero, the smoothing is out of range, or a weight is negative, not finite, or all
    /// are zero.
    pub fn validate(&self) -> Result<()> {
        if let Some(sigma) = self.smoothing
            && !(sigma > 0.0 && sigma <= Self::MAX_SMOOTHING)
        {
            return Err(Error::Invalid(format!(
                "scoring.smoothing must be more than 0 and at most {} pixels",
                Self::MAX_SMOOTHING
            )));
        }
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

    /// The scales' shares of the image map and of the localisation map; `statistics` of the scales count where they
    /// are to be standardised.
    pub fn all_shares(
        &self,
        scales: usize,
        statistics: Option<MapStatistics<'_>>,
    ) -> (Vec<Share>, Vec<Share>) {
        let weights = self.image_weights.as_deref();
        (
            self.shares(scales, statistics.map(|s| s.image), weights),
            self.shares(scales, statistics.map(|s| s.pixel), None),
        )
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

    /// Image scores `[B]` and localisation maps `[B, H, W]` of `size` (rows, columns) from native maps.
    ///
    /// # Errors
    /// When the maps are fewer than the scoring's, or the method has no image score of its own.
    pub fn finish(
        &self,
        maps: &NativeMaps,
        statistics: Option<MapStatistics<'_>>,
        size: (usize, usize),
    ) -> Result<(Tensor, Tensor)> {
        let (of_image, of_pixels) = self.all_shares(maps.image.len(), statistics);
        let one_map = self.image_map == self.pixel_map
            && of_image == of_pixels
            && self.image_score != ImageScore::Own;
        if one_map {
            return self.of_one_map(&combine(&maps.image, &of_image, size)?);
        }
        Ok((
            self.image_scores(maps, statistics, size)?,
            self.localisation(maps, statistics, size)?,
        ))
    }

    /// The image scores `[B]` of [`Self::finish`] alone.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn image_scores(
        &self,
        maps: &NativeMaps,
        statistics: Option<MapStatistics<'_>>,
        size: (usize, usize),
    ) -> Result<Tensor> {
        if self.image_score == ImageScore::Own {
            let own = maps.scores.clone();
            return own.ok_or_else(|| Error::Invalid("this method has no image score".into()));
        }
        let (shares, _) = self.all_shares(maps.image.len(), statistics);
        self.scores(&self.smoothed(&combine(&maps.image, &shares, size)?)?)
    }

    /// The localisation maps `[B, H, W]` of [`Self::finish`] alone.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn localisation(
        &self,
        maps: &NativeMaps,
        statistics: Option<MapStatistics<'_>>,
        size: (usize, usize),
    ) -> Result<Tensor> {
        let (_, shares) = self.all_shares(maps.pixel.len(), statistics);
        self.smoothed(&combine(&maps.pixel, &shares, size)?)
    }

    /// Image scores `[B]` of image maps `[B, H, W]`, which are smoothed already.
    ///
    /// # Errors
    /// When the tensor library fails, or the image score is the method's own.
    pub(super) fn scores(&self, maps: &Tensor) -> Result<Tensor> {
        let k = match self.image_score {
            ImageScore::Max => 1,
            ImageScore::TopK(k) => k,
            ImageScore::Own => {
                return Err(Error::Invalid("this method has no image score".into()));
            }
        };
        let (_, height, width) = maps.dims3()?;
        image_scores(maps, k.clamp(1, (height * width).max(1)))
    }

    /// Scores and localisation where both are read off the same map.
    pub(super) fn of_one_map(&self, map: &Tensor) -> Result<(Tensor, Tensor)> {
        let map = self.smoothed(map)?;
        Ok((self.scores(&map)?, map))
    }

    pub(super) fn smoothed(&self, map: &Tensor) -> Result<Tensor> {
        match self.smoothing {
            None => Ok(map.clone()),
            Some(sigma) => gaussian_blur(map, sigma),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    fn scoring(image_weights: Option<Vec<f32>>, standardise_scales: bool) -> Scoring {
        Scoring {
            image_map: MapKind::Nll,
            pixel_map: MapKind::Prob,
            image_score: ImageScore::TopK(7),
            standardise_scales,
            image_weights,
            smoothing: None,
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
        let statistics = MapStatistics {
            image: &statistics,
            pixel: &statistics,
        };
        let (found, _) = weighted.all_shares(3, Some(statistics));
        assert_eq!(found, [share(1, 3.0, 0.0625), share(2, 5.0, 1.5)]);
        let plain = scoring(Some(vec![0.0, 1.0, 3.0]), false);
        let (found, pixels) = plain.all_shares(3, Some(statistics));
        assert_eq!(found, [share(1, 0.0, 0.25), share(2, 0.0, 0.75)]);
        assert_eq!(pixels, Share::mean(3));
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
