//! DifferNet as an [`Estimator`] that is trained.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    DifferNetConfig,
    coupling::{Block, Sizes},
    vectors,
};
use crate::estimators::{
    Estimator, EstimatorConfig, FeatureSource, MethodConfig as _, NativeMaps, Scoring, Trainable,
    expect_features, tensors::Source,
};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// What is usual of the pooled features, `[D]` each.
const MEAN: &str = "mean";
const STD: &str = "std";

/// A flow over pooled features. They are standardised by the training photos' means and deviations, which the paper
/// leaves to the flow to learn.
#[derive(Debug)]
pub struct DifferNet {
    config: DifferNetConfig,
    shapes: Vec<FeatureShape>,
    mean: Tensor,
    std: Tensor,
    blocks: Vec<Block>,
}

/// Latents `[N, D]` and log-determinants `[N]`.
struct Latents {
    z: Tensor,
    log_det: Tensor,
}

impl DifferNet {
    /// A fresh flow, all randomness from `seed`.
    ///
    /// # Errors
    /// When the settings are out of range or do not fit the feature maps.
    pub fn init(
        config: &DifferNetConfig,
        shapes: &[FeatureShape],
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let sizes = sizes(config, shapes);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let block = |_| Block::init(sizes, &mut rng, device);
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            mean: Tensor::zeros(sizes.channels, DType::F32, device)?,
            std: Tensor::ones(sizes.channels, DType::F32, device)?,
            blocks: (0..config.steps).map(block).collect::<Result<_>>()?,
        })
    }

    /// From the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// When the settings are out of range, or a tensor is missing, unexpected, misshapen or not usable.
    pub fn from_tensors(
        config: &DifferNetConfig,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let sizes = sizes(config, shapes);
        let mut source = Source::new(tensors, device);
        let mean = source.take(MEAN, &[sizes.channels])?;
        let std = source.take_deviations(STD, sizes.channels)?;
        let mut blocks = Vec::with_capacity(config.steps);
        for step in 0..config.steps {
            let permutation =
                source.take_permutation(&name(step, "permutation"), sizes.channels)?;
            let order = permutation.indices();
            let order = Tensor::from_slice(order, order.len(), device)?;
            let mut take = |layer: String, (from, to): (usize, usize)| {
                let weight = source.take(&name(step, &format!("{layer}.weight")), &[to, from])?;
                let bias = source.take(&name(step, &format!("{layer}.bias")), &[to])?;
                Ok((weight, bias))
            };
            blocks.push(Block::new(sizes, order, &mut take)?);
        }
        source.finish()?;
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            mean,
            std,
            blocks,
        })
    }

    /// Latents of pooled vectors `[N, D]`.
    fn latents(&self, vectors: &Tensor) -> Result<Latents> {
        let mut z = vectors
            .broadcast_sub(&self.mean)?
            .broadcast_div(&self.std)?;
        let mut log_det = Tensor::zeros(z.dim(0)?, DType::F32, z.device())?;
        for block in &self.blocks {
            let (next, own) = block.forward(&z)?;
            (z, log_det) = (next, (log_det + own)?);
        }
        // What the standardisation adds is the same for every photo and left out.
        Ok(Latents { z, log_det })
    }

    /// Mean over the turns of `0.5 sum z^2 - log|det J|`, `[B]`.
    fn photo_nll(&self, features: &[Tensor]) -> Result<Tensor> {
        expect_features(features, &self.shapes)?;
        let vectors = vectors::pooled(&self.config, features)?;
        let Latents { z, log_det } = self.latents(&vectors)?;
        let nll = ((z.sqr()?.sum(1)? * 0.5)? - log_det)?;
        Ok(self.by_photo(&nll)?.mean(1)?)
    }

    /// `[B * turns]` as `[B, turns]`.
    fn by_photo(&self, values: &Tensor) -> Result<Tensor> {
        let turns = self.config.turns;
        Ok(values.reshape((values.dim(0)? / turns, turns))?)
    }
}

fn sizes(config: &DifferNetConfig, shapes: &[FeatureShape]) -> Sizes {
    Sizes {
        channels: config.channels(shapes),
        hidden: config.hidden,
        clamp: config.clamp,
    }
}

fn name(step: usize, part: &str) -> String {
    format!("steps.{step}.{part}")
}

impl Estimator for DifferNet {
    fn config(&self) -> EstimatorConfig {
        EstimatorConfig::DifferNet(self.config.clone())
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn device(&self) -> Device {
        self.mean.device().clone()
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut all = BTreeMap::from([
            (MEAN.to_string(), self.mean.clone()),
            (STD.to_string(), self.std.clone()),
        ]);
        for (step, block) in self.blocks.iter().enumerate() {
            all.insert(name(step, "permutation"), block.permutation.clone());
            let own = block.variables();
            all.extend(own.map(|(part, var)| (name(step, &part), var.as_tensor().clone())));
        }
        Ok(all)
    }

    fn parameter_count(&self) -> usize {
        self.config.steps * sizes(&self.config, &self.shapes).parameter_count()
    }

    /// The score is the mean over the turns of `0.5 mean z^2` (section 3.2); the maps, one a size, show what it rises
    /// by. The paper takes the gradient back to the pixels; the backbone's is not kept here, and so each position
    /// counts by the score's gradient times how far its feature is from the training photos' mean.
    fn native_maps(&self, features: &[Tensor], _: &Scoring) -> Result<NativeMaps> {
        expect_features(features, &self.shapes)?;
        let vectors = Var::from_tensor(&vectors::pooled(&self.config, features)?)?;
        let energy = (self.latents(vectors.as_tensor())?.z.sqr()?.mean(1)? * 0.5)?;
        let gradients = energy.sum_all()?.backward()?;
        let gradient = gradients.get(vectors.as_tensor());
        let gradient =
            gradient.ok_or_else(|| Error::Invalid("the score has no gradient".into()))?;
        let maps = vectors::parts(&self.config, features, gradient, &self.mean)?;
        Ok(NativeMaps {
            image: maps.clone(),
            pixel: maps,
            scores: Some(self.by_photo(&energy)?.mean(1)?.detach()),
        })
    }
}

impl Trainable for DifferNet {
    fn parameters(&self) -> Vec<(String, Var)> {
        let blocks = self.blocks.iter().enumerate();
        let all = blocks.flat_map(|(step, block)| {
            let own = block.variables();
            own.map(move |(part, var)| (name(step, &part), var.clone()))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn prepare(&mut self, features: &dyn FeatureSource) -> Result<()> {
        let device = self.device();
        let channels = sizes(&self.config, &self.shapes).channels;
        let (mut sum, mut squares) = (vec![0f64; channels], vec![0f64; channels]);
        let views = (features.len() * self.config.turns) as f64;
        for record in 0..features.len() {
            let maps = features.batch(&[record], &Device::Cpu)?;
            for view in vectors::pooled(&self.config, &maps)?.to_vec2::<f32>()? {
                for (channel, value) in view.into_iter().map(f64::from).enumerate() {
                    sum[channel] += value;
                    squares[channel] += value * value;
                }
            }
        }
        let mean: Vec<f64> = sum.iter().map(|sum| sum / views).collect();
        let spread =
            |(squares, mean): (&f64, &f64)| (squares / views - mean * mean).max(0.0).sqrt();
        let std: Vec<f64> = squares.iter().zip(&mean).map(spread).collect();
        let usual = std.iter().sum::<f64>() / channels as f64;
        if !(usual > 0.0 && usual.is_finite()) {
            return Err(Error::Training(
                "the features of all photos are the same; are the photos?".into(),
            ));
        }
        // A channel that hardly varies must not count for more than the others.
        let std = std.iter().map(|std| std.max(0.1 * usual) as f32);
        self.std = Tensor::from_iter(std, &device)?;
        self.mean = Tensor::from_iter(mean.iter().map(|mean| *mean as f32), &device)?;
        Ok(())
    }

    fn nll(&self, features: &[Tensor]) -> Result<Tensor> {
        Ok(self.photo_nll(features)?.detach())
    }

    fn loss_and_gradients(&self, features: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let loss = self.photo_nll(features)?.sum_all()?;
        let gradients = loss.backward()?;
        let of = |(name, var): (String, Var)| {
            let gradient = gradients.get(var.as_tensor()).cloned();
            gradient.ok_or_else(|| Error::Training(format!("`{name}` has no gradient")))
        };
        let gradients = self.parameters().into_iter().map(of);
        Ok((
            loss.detach().to_dtype(DType::F64)?,
            gradients.collect::<Result<_>>()?,
        ))
    }

    /// Vectors are small: many photos at a time.
    fn images_at_once(&self) -> usize {
        64
    }

    fn values(&self) -> usize {
        sizes(&self.config, &self.shapes).channels
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::estimators::source::tests::Fixed;

    fn config() -> DifferNetConfig {
        DifferNetConfig {
            steps: 2,
            hidden: 8,
            inputs: 2,
            ..DifferNetConfig::default()
        }
    }

    /// Two sizes in four turns.
    fn shapes() -> Vec<FeatureShape> {
        let shape = |side| FeatureShape {
            channels: 3,
            height: side,
            width: side,
        };
        [[shape(4); 4], [shape(2); 4]].concat()
    }

    fn features() -> Fixed {
        let shapes = shapes();
        let map = |image: usize, map: usize| -> Vec<f32> {
            let wave = |i: usize| ((i * 5 + image * 17 + map * 3) as f32 * 0.61).sin();
            (0..shapes[map].values()).map(wave).collect()
        };
        let records = (0..6).map(|i| (0..8).map(|m| map(i, m)).collect());
        Fixed {
            records: records.collect(),
            shapes,
        }
    }

    fn fitted() -> DifferNet {
        let mut model = DifferNet::init(&config(), &shapes(), 5, &Device::Cpu).unwrap();
        model.prepare(&features()).unwrap();
        model
    }

    #[test]
    fn gradients_are_the_differences_of_the_loss() {
        let model = fitted();
        let batch = features().batch(&[0, 1, 2], &Device::Cpu).unwrap();
        let (loss, gradients) = model.loss_and_gradients(&batch).unwrap();
        let nll: f64 = model
            .nll(&batch)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .map(|v| f64::from(*v))
            .sum();
        let loss = loss.to_scalar::<f64>().unwrap();
        assert!((loss - nll).abs() < 1e-4 * nll.abs(), "{loss} {nll}");
        for ((name, var), gradient) in model.parameters().into_iter().zip(&gradients) {
            let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let at = values.len() / 2;
            let loss = |shift: f32| {
                let mut moved = values.clone();
                moved[at] += shift;
                var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap())
                    .unwrap();
                let nll = model.nll(&batch).unwrap().to_vec1::<f32>().unwrap();
                nll.iter().map(|v| f64::from(*v)).sum::<f64>()
            };
            let expected = (loss(2e-3) - loss(-2e-3)) / 4e-3;
            loss(0.0);
            let found = f64::from(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap()[at]);
            assert!(
                (found - expected).abs() < 2e-2 * (1.0 + expected.abs()),
                "{name}: {found} {expected}"
            );
        }
    }

    /// The positions' parts of a map sum to the linear part of the score around the mean.
    #[test]
    fn maps_are_shares_of_the_score() {
        let model = fitted();
        let batch = features().batch(&[0, 3], &Device::Cpu).unwrap();
        let maps = model.native_maps(&batch, &config().scoring()).unwrap();
        assert_eq!(maps.pixel[0].dims(), [2, 4, 4]);
        assert_eq!(maps.pixel[1].dims(), [2, 2, 2]);
        let pooled = Var::from_tensor(&vectors::pooled(&config(), &batch).unwrap()).unwrap();
        let energy = model
            .latents(pooled.as_tensor())
            .unwrap()
            .z
            .sqr()
            .unwrap()
            .mean(1)
            .unwrap();
        let gradients = (energy.sum_all().unwrap() * 0.5)
            .unwrap()
            .backward()
            .unwrap();
        let gradient = gradients.get(pooled.as_tensor()).unwrap();
        let away = pooled.broadcast_sub(&model.mean).unwrap();
        let expected = (gradient * away)
            .unwrap()
            .sum(1)
            .unwrap()
            .reshape((2, 4))
            .unwrap()
            .mean(1)
            .unwrap();
        let means: Vec<Tensor> = maps
            .pixel
            .iter()
            .map(|m| m.flatten_from(1).unwrap().mean(1).unwrap())
            .collect();
        let found = (&means[0] + &means[1]).unwrap().to_vec1::<f32>().unwrap();
        for (found, expected) in found.iter().zip(expected.to_vec1::<f32>().unwrap()) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn it_comes_back_from_its_tensors() {
        let model = fitted();
        let tensors = Estimator::tensors(&model).unwrap();
        let load = |tensors| DifferNet::from_tensors(&config(), &shapes(), tensors, &Device::Cpu);
        let loaded = load(tensors.clone()).unwrap();
        let batch = features().batch(&[1], &Device::Cpu).unwrap();
        let nll = |model: &DifferNet| model.nll(&batch).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(nll(&model), nll(&loaded));
        let mut bad = tensors;
        bad.insert(
            STD.into(),
            Tensor::zeros(6, DType::F32, &Device::Cpu).unwrap(),
        );
        assert!(load(bad).unwrap_err().to_string().contains(STD));
    }
}
