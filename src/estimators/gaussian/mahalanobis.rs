//! Mahalanobis (Rippel et al. 2020): one Gaussian a feature map over its means, of whole photos.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::shrunk::ledoit_wolf;
use crate::estimators::{
    ClosedMethod, Estimator, EstimatorConfig, FeatureSource, FitWith, Fitting, ImageScore,
    MethodConfig, NativeMaps, Paper, Scoring, expect_features, tensors::Source,
};
use crate::kernels::{FeatureShape, gaussian::Factorised};
use crate::{Error, Result};

/// Mahalanobis distances of pooled features (Rippel et al. 2020, arXiv 2005.14140).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MahalanobisConfig {}

impl MethodConfig for MahalanobisConfig {
    fn title(&self) -> &'static str {
        "Mahalanobis"
    }

    fn paper(&self) -> Paper {
        Paper {
            url: "https://arxiv.org/abs/2005.14140",
            bibtex: "@inproceedings{rippel2021modeling,
  title     = {Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly Detection},
  author    = {Rippel, Oliver and Mertens, Patrick and Merhof, Dorit},
  booktitle = {ICPR},
  year      = {2021}
}",
        }
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        let words = "one a feature map over its means, the covariance shrunk as Ledoit and Wolf do";
        vec![("Gaussians", words.into())]
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        match shapes.iter().all(|shape| shape.channels <= 4096) && !shapes.is_empty() {
            true => Ok(()),
            false => Err(Error::Invalid(
                "Mahalanobis: needs feature maps of at most 4096 channels".into(),
            )),
        }
    }

    fn map_count(&self, shapes: &[FeatureShape]) -> usize {
        shapes.len()
    }

    fn has_own_score(&self) -> bool {
        true
    }

    fn scoring(&self) -> Scoring {
        Scoring {
            image_score: ImageScore::Own,
            ..Scoring::of_distances()
        }
    }

    fn load(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Estimator>> {
        Ok(Box::new(Mahalanobis::from_tensors(
            self, shapes, tensors, device,
        )?))
    }

    fn fitting(&self) -> Fitting<'_> {
        Fitting::Closed(self)
    }
}

impl ClosedMethod for MahalanobisConfig {
    fn fit(
        &self,
        features: &dyn FeatureSource,
        with: &mut FitWith<'_>,
    ) -> Result<Box<dyn Estimator>> {
        if with.parent.is_some() {
            return Err(Error::Training(
                "Mahalanobis keeps no photos that new ones could be added to; fit it anew on all"
                    .into(),
            ));
        }
        if features.len() < 2 {
            return Err(Error::Training(
                "Mahalanobis needs at least two normal images: a covariance has to be estimated"
                    .into(),
            ));
        }
        let mut tensors = BTreeMap::new();
        for (scale, shape) in features.shapes().iter().enumerate() {
            let area = shape.height * shape.width;
            let pooled = |record: usize| -> Vec<f64> {
                let channels = features.map(record, scale).chunks_exact(area);
                let mean = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
                channels.map(|values| mean(values) / area as f64).collect()
            };
            let samples: Vec<Vec<f64>> = (0..features.len()).map(pooled).collect();
            let (mean, covariance) = ledoit_wolf(&samples);
            let factor = Factorised::of(&covariance, scale)?.rows;
            let mean: Vec<f32> = mean.iter().map(|v| *v as f32).collect();
            let (channels, triangle) = (mean.len(), factor.len());
            let device = &Device::Cpu;
            let name = |part| format!("scales.{scale}.{part}");
            tensors.insert(name("mean"), Tensor::from_vec(mean, channels, device)?);
            tensors.insert(name("factor"), Tensor::from_vec(factor, triangle, device)?);
            with.tell(scale + 1, features.shapes().len())?;
        }
        self.load(features.shapes(), tensors, with.device)
    }
}

/// A Gaussian a feature map.
#[derive(Debug)]
pub struct Mahalanobis {
    config: MahalanobisConfig,
    shapes: Vec<FeatureShape>,
    scales: Vec<Scale>,
    device: Device,
}

/// One map's Gaussian.
#[derive(Debug)]
struct Scale {
    /// `[C]`.
    mean: Tensor,
    /// The inverse Cholesky factor of the covariance, `[C, C]`.
    factor: Tensor,
}

impl Mahalanobis {
    /// From the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// When a tensor is missing, unexpected, misshapen or not finite.
    pub fn from_tensors(
        config: &MahalanobisConfig,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let mut source = Source::new(tensors, device);
        let mut scales = Vec::with_capacity(shapes.len());
        for (scale, shape) in shapes.iter().enumerate() {
            let channels = shape.channels;
            let mut take = |part, len| source.take(&format!("scales.{scale}.{part}"), &[len]);
            let mean = take("mean", channels)?;
            let packed = take("factor", channels * (channels + 1) / 2)?.to_vec1::<f32>()?;
            let mut factor = vec![0f32; channels * channels];
            let mut packed = packed.into_iter();
            for row in 0..channels {
                let own = &mut factor[row * channels..][..=row];
                own.iter_mut()
                    .zip(packed.by_ref())
                    .for_each(|(to, v)| *to = v);
            }
            scales.push(Scale {
                mean,
                factor: Tensor::from_vec(factor, (channels, channels), device)?,
            });
        }
        source.finish()?;
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            scales,
            device: device.clone(),
        })
    }
}

impl Scale {
    /// Each position's part of the squared distance of the map's mean, `[B, h, w]`, and the distance, `[B]`. The
    /// distance `|L^-1 (mean_p f_p - m)|^2` is a mean over positions of `(f_p - m) L^-T L^-1 (mean f - m)`.
    fn look(&self, map: &Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, channels, height, width) = map.dims4()?;
        let flat = map.reshape((batch, channels, height * width))?;
        let centred = flat.broadcast_sub(&self.mean.reshape((1, channels, 1))?)?;
        let pooled = (centred.sum(2)? / (height * width) as f64)?;
        let white = pooled.matmul(&self.factor.t()?)?;
        let distance = white.sqr()?.sum(1)?.sqrt()?;
        let back = white.matmul(&self.factor)?.unsqueeze(1)?;
        let parts = back.contiguous()?.matmul(&centred.contiguous()?)?;
        Ok((parts.reshape((batch, height, width))?, distance))
    }
}

impl Estimator for Mahalanobis {
    fn config(&self) -> EstimatorConfig {
        EstimatorConfig::Mahalanobis(self.config.clone())
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (index, scale) in self.scales.iter().enumerate() {
            let rows = scale.factor.to_vec2::<f32>()?;
            let packed = rows.iter().enumerate().flat_map(|(row, all)| &all[..=row]);
            let packed: Vec<f32> = packed.copied().collect();
            let triangle = packed.len();
            let packed = Tensor::from_vec(packed, triangle, &Device::Cpu)?;
            tensors.insert(format!("scales.{index}.mean"), scale.mean.clone());
            tensors.insert(format!("scales.{index}.factor"), packed);
        }
        Ok(tensors)
    }

    /// The score is the sum over the maps of their distances (section III); the paper has no map, and what is shown
    /// here are the positions' parts of it.
    fn native_maps(&self, features: &[Tensor], _: &Scoring) -> Result<NativeMaps> {
        expect_features(features, &self.shapes)?;
        let (mut maps, mut total) = (Vec::with_capacity(features.len()), None);
        for (scale, map) in self.scales.iter().zip(features) {
            let (parts, distance) = scale.look(map)?;
            maps.push(parts);
            total = Some(match total {
                None => distance,
                Some(sum) => (sum + distance)?,
            });
        }
        Ok(NativeMaps {
            image: maps.clone(),
            pixel: maps,
            scores: total,
        })
    }
}
