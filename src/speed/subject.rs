//! What a speed is measured of: a backbone and an estimator that need not know anything.

use std::path::Path;

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Speed, feature_store, input_pattern, photo};
use crate::{
    Error, Result,
    backbones::{self, Backbone, image_features, input_features, input_shapes},
    estimators::{Estimator, EstimatorConfig, FitWith, Fitting, Method, Trainable},
    features::{FeatureStore, FeatureWriter},
    imaging::Preprocessing,
    training::{Settings, TrainConfig},
};

/// A detector's parts, as fast as those of a trained one.
pub struct Subject {
    /// The frozen network.
    pub backbone: Box<dyn Backbone>,
    /// Where its weights are from: `file`, `embedded`, or `random`, which does not change the speed.
    pub weights: &'static str,
    /// What the settings came to.
    pub config: TrainConfig,
    /// What looks at the features.
    pub fitted: Fitted,
}

impl Subject {
    /// The parts that `settings` make on a backbone (any spelling of its id), with weights from a file or, without
    /// one, seeded random ones where the backbone needs any.
    ///
    /// # Errors
    /// When settings and backbone do not fit, or the file cannot be read.
    pub fn new(
        settings: &Settings,
        id: &str,
        weights: Option<&Path>,
        device: &Device,
    ) -> Result<Self> {
        let id = backbones::resolve_id(id)?;
        let taps = settings.backbone_taps(&id)?;
        let taps = taps.as_ref();
        let (backbone, weights) = match weights {
            Some(file) => (backbones::load_with(&id, taps, Some(file), device)?, "file"),
            None if !backbones::needs_weights(&id) => {
                (backbones::load_with(&id, taps, None, device)?, "embedded")
            }
            None => (backbones::load_random_with(&id, taps, 0, device)?, "random"),
        };
        let config = settings.resolve(&id, 0)?;
        let input = &config.preprocessing;
        let fitted = Fitted::new(&config.estimator, backbone.as_ref(), input, device)?;
        Ok(Self {
            backbone,
            weights,
            config,
            fitted,
        })
    }

    /// Medians over `repeat` rounds of `batch` images.
    ///
    /// # Errors
    /// When backbone and estimator do not fit.
    pub fn speed(&self, batch: usize, repeat: usize, device: &Device) -> Result<Speed> {
        let (backbone, estimator) = (self.backbone.as_ref(), self.fitted.estimator());
        let (scoring, input) = (&self.config.scoring, &self.config.preprocessing);
        Speed::measure(backbone, estimator, scoring, input, batch, repeat, device)
    }
}

/// An estimator that has seen patterns: enough for its speed, which does not depend on what it has seen.
pub enum Fitted {
    /// One that gradient steps train, before the first.
    Trained(Box<dyn Trainable>),
    /// One that was fitted in closed form.
    Closed(Box<dyn Estimator>),
}

impl Fitted {
    fn new(
        config: &EstimatorConfig,
        backbone: &dyn Backbone,
        input: &Preprocessing,
        device: &Device,
    ) -> Result<Self> {
        match config.fitting() {
            Fitting::Gradient(method) => {
                let shapes = input_shapes(backbone, input)?;
                let mut model = method.init(&shapes, 0, device)?;
                let features = input_features(backbone, &input_pattern(input, 1, device)?)?;
                model.prepare(&feature_store(&features, 1)?)?;
                Ok(Self::Trained(model))
            }
            Fitting::Members(_) => Err(Error::Invalid(
                "speed is measured of one method at a time".into(),
            )),
            Fitting::Closed(method) => {
                let features = patterns(pattern_count(config), backbone, input, device)?;
                let mut with = FitWith {
                    seed: 0,
                    device,
                    parent: None,
                    progress: &mut |_, _| true,
                };
                Ok(Self::Closed(method.fit(&features, &mut with)?))
            }
        }
    }

    /// The estimator.
    pub fn estimator(&self) -> &dyn Estimator {
        match self {
            Self::Trained(model) => model.as_ref(),
            Self::Closed(estimator) => estimator.as_ref(),
        }
    }
}

/// Photos that a method fitted in closed form sees. A coreset is full of 16, and chosen for minutes from more; others may
/// look at the nearest 50.
fn pattern_count(config: &EstimatorConfig) -> usize {
    match config.method() {
        Method::PatchCore => 16,
        _ => 64,
    }
}

/// Features of photos that differ: those of one pattern with noise of half their size. The network, which may take
/// minutes a photo, is run once.
fn patterns(
    count: usize,
    backbone: &dyn Backbone,
    input: &Preprocessing,
    device: &Device,
) -> Result<FeatureStore> {
    let shapes = input_shapes(backbone, input)?;
    let mut writer = FeatureWriter::new(shapes, count, u64::MAX, &std::env::temp_dir())?;
    let maps = image_features(backbone, input, device, &photo(input))?;
    let maps = maps.iter().map(|map| map.to_device(&Device::Cpu));
    let maps = maps.collect::<candle_core::Result<Vec<_>>>()?;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for _ in 0..count {
        let noisy = maps.iter().map(|map| noisy(map, &mut rng));
        writer.push(&noisy.collect::<Result<Vec<_>>>()?)?;
    }
    writer.finish()
}

fn noisy(map: &Tensor, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let mut values = map.flatten_all()?.to_vec1::<f32>()?;
    let size = values.iter().map(|value| value.abs()).sum::<f32>() / values.len() as f32;
    for value in &mut values {
        *value += size * rng.random_range(-0.5..0.5f32);
    }
    Ok(Tensor::from_vec(values, map.shape(), map.device())?)
}
