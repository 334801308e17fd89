//! What a flow sees in one photo: section 4.5 of the paper (figure 4), and the way back from it.
//!
//! The flow is invertible, so a change of its latents can be looked at as a change of the features. The paper
//! adds noise to a region of z and finds a defect in the features. The useful direction is the opposite one:
//! latents too far out are pulled back to where those of normal features lie, and what that changes in the
//! features is the evidence for the anomaly.

use candle_core::{DType, Tensor};
use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::Detector;
use crate::{Error, Result, backbones::image_features, estimators::AnomalyMap};

/// Noise that is put into a region of z.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Left, top, width and height of the region as shares of the network's input, each 0 to 1.
    pub region: [f64; 4],
    /// Standard deviation; those of normal latents is 1.
    pub deviation: f32,
    /// Seed of the noise.
    pub seed: u64,
}

/// What the flow sees at one scale; maps are at the features' resolution.
#[derive(Debug, Clone)]
pub struct ScaleExplanation {
    /// Root mean square over the channels of the features, as the flow takes them (normalised).
    pub features: AnomalyMap,
    /// The same of the latents z; near 1 where a feature is normal.
    pub latents: AnomalyMap,
    /// `0.5 mean_c z^2`.
    pub likelihood: AnomalyMap,
    /// How far the features are from those of the latents pulled back to the typical set, root mean square
    /// over the channels: the evidence.
    pub residual: AnomalyMap,
    /// How far the noise moves the features, root mean square over the channels.
    pub disturbed: AnomalyMap,
    /// Share of positions whose latents lie outside the typical set.
    pub untypical: f64,
}

/// A vector of `C` standard normal values has a squared length of `C` with a deviation of `sqrt(2 C)`; this
/// many deviations above count as untypical.
const DEVIATIONS: f64 = 3.0;

impl Detector {
    /// Looks at one photo scale by scale, finest first.
    ///
    /// # Errors
    /// When the photo cannot be preprocessed, or the noise has no region inside the photo.
    pub fn explain(&self, image: &RgbImage, noise: &Noise) -> Result<Vec<ScaleExplanation>> {
        noise.validate()?;
        let features = image_features(
            self.backbone(),
            &self.config().preprocessing,
            self.device(),
            image,
        )?;
        let flow = self.estimator().as_flow().ok_or_else(|| {
            self.config()
                .estimator
                .lacks("latents to explain a photo by; `explain` is for FastFlow")
        })?;
        let latents: Vec<Tensor> = flow
            .forward(&features)?
            .into_iter()
            .map(|latent| latent.z)
            .collect();
        let mut rng = ChaCha8Rng::seed_from_u64(noise.seed);
        let typical: Vec<Tensor> = latents.iter().map(pulled_back).collect::<Result<_>>()?;
        let noisy: Vec<Tensor> = latents
            .iter()
            .map(|z| disturbed(z, noise, &mut rng))
            .collect::<Result<_>>()?;
        // Not the backbone's own features: a LayerNorm cannot be undone, and standardised channels count alike.
        let (own, typical) = (flow.inverse_steps(&latents)?, flow.inverse_steps(&typical)?);
        let noisy = flow.inverse_steps(&noisy)?;
        (0..latents.len())
            .map(|scale| {
                Ok(ScaleExplanation {
                    features: root_mean_square(&own[scale])?,
                    latents: root_mean_square(&latents[scale])?,
                    likelihood: AnomalyMap::of(&(latents[scale].sqr()?.mean(1)? * 0.5)?)?,
                    residual: root_mean_square(&(&own[scale] - &typical[scale])?)?,
                    disturbed: root_mean_square(&(&noisy[scale] - &own[scale])?)?,
                    untypical: untypical(&latents[scale])?,
                })
            })
            .collect()
    }
}

impl Noise {
    fn validate(&self) -> Result<()> {
        let [left, top, width, height] = self.region;
        let inside =
            |from: f64, length: f64| from >= 0.0 && length > 0.0 && from + length <= 1.0 + 1e-9;
        if inside(left, width) && inside(top, height) && self.deviation.is_finite() {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "noise of deviation {} at {:?}: needs a finite deviation and a region inside the photo",
            self.deviation, self.region
        )))
    }
}

/// Squared length of the latents at every position, `[1, 1, h, w]`.
fn squared_length(z: &Tensor) -> Result<Tensor> {
    Ok(z.sqr()?.sum_keepdim(1)?)
}

/// The largest squared length in the typical set.
fn limit(z: &Tensor) -> Result<f64> {
    let channels = z.dim(1)? as f64;
    Ok(channels + DEVIATIONS * (2.0 * channels).sqrt())
}

/// Every vector outside the typical set, shortened to its edge: typical ones are no evidence, not even faint.
fn pulled_back(z: &Tensor) -> Result<Tensor> {
    let limit = limit(z)?;
    let factor = (squared_length(z)?.clamp(limit, f64::MAX)?.recip()? * limit)?.sqrt()?;
    Ok(z.broadcast_mul(&factor)?)
}

fn untypical(z: &Tensor) -> Result<f64> {
    let outside = squared_length(z)?.gt(limit(z)?)?.to_dtype(DType::F32)?;
    Ok(f64::from(outside.mean_all()?.to_scalar::<f32>()?))
}

/// z with noise in the region; at least one position of every scale lies in it.
fn disturbed(z: &Tensor, noise: &Noise, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let (_, channels, height, width) = z.dims4()?;
    let [left, top, columns, rows] = noise.region;
    let span = |from: f64, length: f64, cells: usize| {
        let first = ((from * cells as f64).floor() as usize).min(cells - 1);
        first..(((from + length) * cells as f64).ceil() as usize).clamp(first + 1, cells)
    };
    let (columns, rows) = (span(left, columns, width), span(top, rows, height));
    let mut values = vec![0f32; channels * height * width];
    for channel in 0..channels {
        for row in rows.clone() {
            for column in columns.clone() {
                let draw: f32 = StandardNormal.sample(rng);
                values[(channel * height + row) * width + column] = noise.deviation * draw;
            }
        }
    }
    let values = Tensor::from_vec(values, z.shape(), z.device())?;
    Ok((z + values)?)
}

fn root_mean_square(tensor: &Tensor) -> Result<AnomalyMap> {
    AnomalyMap::of(&tensor.sqr()?.mean(1)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    fn latents() -> Tensor {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let values: Vec<f32> = (0..8 * 4 * 6)
            .map(|i| {
                let draw: f32 = StandardNormal.sample(&mut rng);
                // One far-out position.
                if i % 24 == 7 { 9.0 } else { draw }
            })
            .collect();
        Tensor::from_vec(values, (1, 8, 4, 6), &Device::Cpu).unwrap()
    }

    #[test]
    fn only_untypical_positions_are_pulled_back() {
        let z = latents();
        let (before, after) = (
            squared_length(&z).unwrap(),
            squared_length(&pulled_back(&z).unwrap()).unwrap(),
        );
        let [before, after] =
            [before, after].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        for (before, after) in before.iter().zip(&after) {
            // 8 channels; three deviations of 4 above.
            let expected = before.min(20.0);
            assert!(
                (after - expected).abs() < 1e-4 * expected,
                "{before} {after}"
            );
        }
        assert!((untypical(&z).unwrap() - 1.0 / 24.0).abs() < 1e-6);
    }

    #[test]
    fn noise_stays_in_its_region() {
        let z = latents();
        let noise = Noise {
            region: [0.5, 0.0, 0.5, 0.5],
            deviation: 2.0,
            seed: 1,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let moved =
            root_mean_square(&(disturbed(&z, &noise, &mut rng).unwrap() - &z).unwrap()).unwrap();
        for (at, value) in moved.values.iter().enumerate() {
            let inside = at % 6 >= 3 && at / 6 < 2;
            assert_eq!(*value > 0.0, inside, "{at}");
        }
        let nowhere = Noise {
            region: [0.8, 0.0, 0.5, 0.5],
            ..noise
        };
        assert!(nowhere.validate().is_err());
    }
}
