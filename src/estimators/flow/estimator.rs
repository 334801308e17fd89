//! FastFlow as an [`Estimator`]: maps from latents, in one fused pass where nothing else is asked for.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use super::{Activations, FastFlow, FlowConfig, Latent, config::word};
use crate::estimators::{
    Estimator, EstimatorConfig, FeatureSource, Fitting, GradientMethod, MapKind, MapStatistics,
    MethodConfig, NativeMaps, Paper, Scoring, Share, Trainable, maps::no_scale,
};
use crate::kernels::{
    FeatureShape,
    map::{self, ScaleMap, Statistic},
};
use crate::{Error, Result};

impl MapKind {
    fn statistic(self) -> Result<Statistic> {
        match self {
            Self::Nll => Ok(Statistic::Nll),
            Self::Exp => Ok(Statistic::Exponential),
            Self::Prob => Ok(Statistic::Probability),
            Self::Distance => Err(Error::Invalid(
                "a flow has no map `distance`; it has prob, exp and nll".into(),
            )),
        }
    }
}

impl MethodConfig for FlowConfig {
    fn title(&self) -> &'static str {
        "FastFlow"
    }

    fn paper(&self) -> Paper {
        Paper {
            url: "https://arxiv.org/abs/2111.07677",
            bibtex: "@article{yu2021fastflow,
  title   = {FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows},
  author  = {Yu, Jiawei and Zheng, Ye and Wang, Xiang and Li, Wei and Wu, Yushuang and Zhao, Rui and Wu, Liwei},
  journal = {arXiv preprint arXiv:2111.07677},
  year    = {2021}
}",
        }
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        let hidden: Vec<String> = self.hidden.iter().map(ToString::to_string).collect();
        let mut words = format!(
            "{} steps a scale, kernels {}, hidden channels {}",
            self.steps,
            word(&self.kernels),
            hidden.join(", ")
        );
        if !self.coupling.is_affine() {
            words += &format!(", {} coupling", word(&self.coupling));
        }
        vec![("Flow", words)]
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        FlowConfig::validate(self, shapes)
    }

    fn map_count(&self, shapes: &[FeatureShape]) -> usize {
        shapes.len()
    }

    fn map_kinds(&self) -> &'static [MapKind] {
        &[MapKind::Prob, MapKind::Exp, MapKind::Nll]
    }

    fn load(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Estimator>> {
        Ok(self.load_trainable(shapes, tensors, device)?)
    }

    fn fitting(&self) -> Fitting<'_> {
        Fitting::Gradient(self)
    }
}

impl GradientMethod for FlowConfig {
    fn init(
        &self,
        shapes: &[FeatureShape],
        seed: u64,
        device: &Device,
    ) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(FastFlow::init(self, shapes, seed, device)?))
    }

    fn load_trainable(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Trainable>> {
        let flow = FastFlow::from_tensors(self, shapes, tensors, device)?;
        Ok(Box::new(flow))
    }
}

impl Estimator for FastFlow {
    fn config(&self) -> EstimatorConfig {
        EstimatorConfig::FastFlow(self.config.clone())
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn device(&self) -> Device {
        FastFlow::device(self)
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        FastFlow::tensors(self)
    }

    fn parameter_count(&self) -> usize {
        FastFlow::parameter_count(self)
    }

    fn native_maps(&self, features: &[Tensor], scoring: &Scoring) -> Result<NativeMaps> {
        native_maps(&self.forward(features)?, scoring)
    }

    fn inspect(
        &self,
        features: &[Tensor],
        scoring: &Scoring,
        statistics: Option<MapStatistics<'_>>,
        size: (usize, usize),
    ) -> Result<(Tensor, Tensor)> {
        inspect(&self.forward(features)?, scoring, statistics, size)
    }

    fn as_flow(&self) -> Option<&FastFlow> {
        Some(self)
    }
}

impl Trainable for FastFlow {
    fn parameters(&self) -> Vec<(String, Var)> {
        FastFlow::parameters(self)
    }

    fn prepare(&mut self, features: &dyn FeatureSource) -> Result<()> {
        self.fit_norm(features)
    }

    fn nll(&self, features: &[Tensor]) -> Result<Tensor> {
        FastFlow::nll(self, features)
    }

    fn loss_and_gradients(&self, features: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        self.device_loss_and_gradients(features)
    }

    fn set_activations(&mut self, activations: Activations) {
        FastFlow::set_activations(self, activations);
    }
}

/// The maps of latents, each at its scale's own resolution.
fn native_maps(latents: &[Latent], scoring: &Scoring) -> Result<NativeMaps> {
    let image = scale_maps(latents, scoring.image_map)?;
    let pixel = if scoring.pixel_map == scoring.image_map {
        image.clone()
    } else {
        scale_maps(latents, scoring.pixel_map)?
    };
    Ok(NativeMaps {
        image,
        pixel,
        scores: None,
    })
}

/// Image scores `[B]` and localisation maps `[B, H, W]` of latents, computed where these are.
fn inspect(
    latents: &[Latent],
    scoring: &Scoring,
    statistics: Option<MapStatistics<'_>>,
    size: (usize, usize),
) -> Result<(Tensor, Tensor)> {
    let (of_image, of_pixels) = scoring.all_shares(latents.len(), statistics);
    let map = anomaly_map(latents, scoring.image_map, &of_image, size)?;
    if scoring.image_map == scoring.pixel_map && of_image == of_pixels {
        return scoring.of_one_map(&map);
    }
    let pixels = anomaly_map(latents, scoring.pixel_map, &of_pixels, size)?;
    Ok((
        scoring.scores(&scoring.smoothed(&map)?)?,
        scoring.smoothed(&pixels)?,
    ))
}

/// One map `[B, h, w]` a scale, at the scale's own resolution.
///
/// # Errors
/// For a kind that no flow has; else only when candle fails.
pub fn scale_maps(latents: &[Latent], kind: MapKind) -> Result<Vec<Tensor>> {
    let statistic = kind.statistic()?;
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
    map::anomaly_map(&scales, kind.statistic()?, size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::{DType, Device};

    use super::*;
    use crate::estimators::{ImageScore, combine};

    fn latents() -> Vec<Latent> {
        let z = |channels: usize, height: usize, width: usize| {
            let len = 2 * channels * height * width;
            let values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin() * 2.0).collect();
            let z = Tensor::from_vec(values, (2, channels, height, width), &Device::Cpu).unwrap();
            let log_det = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
            Latent { z, log_det }
        };
        vec![z(3, 8, 6), z(5, 4, 3), z(4, 2, 2)]
    }

    #[test]
    fn latents_and_kept_maps_say_the_same() {
        let (latents, size) = (latents(), (16, 12));
        for (image_weights, smoothing) in [
            (None, None),
            (Some(vec![0.0, 1.0, 3.0]), None),
            (None, Some(1.5)),
        ] {
            let scoring = Scoring {
                image_map: MapKind::Nll,
                pixel_map: MapKind::Prob,
                image_score: ImageScore::TopK(7),
                standardise_scales: false,
                image_weights,
                smoothing,
            };
            let (scores, pixels) = inspect(&latents, &scoring, None, size).unwrap();
            let maps = native_maps(&latents, &scoring).unwrap();
            let (kept_scores, kept) = scoring.finish(&maps, None, size).unwrap();
            let (shares, _) = scoring.all_shares(3, None);
            let of_image = combine(&maps.image, &shares, size).unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(&scores), flat(&kept_scores));
            assert_eq!(flat(&pixels), flat(&kept));
            assert_ne!(flat(&of_image), flat(&kept));
        }
    }
}
