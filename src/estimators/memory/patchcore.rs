//! PatchCore: how far a feature is from the nearest one that is remembered.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::{Metric, PatchCoreConfig, bank::Bank};
use crate::Result;
use crate::estimators::{
    Estimator, EstimatorConfig, ImageScore, MethodConfig as _, NativeMaps, Scoring, embedding,
    expect_features, tensors::Source,
};
use crate::kernels::{FeatureShape, nearest::Memory};

/// A memory of normal features, one for each input.
#[derive(Debug)]
pub struct PatchCore {
    config: PatchCoreConfig,
    shapes: Vec<FeatureShape>,
    banks: Vec<Bank>,
    device: Device,
}

/// What one input shows.
struct Seen {
    /// Of each position its distance, weighed, `[B, h, w]`.
    map: Tensor,
    /// Image scores of equation 7, where they are asked for.
    scores: Option<Vec<f32>>,
}

impl PatchCore {
    /// From the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// When the settings are out of range, or a tensor is missing, unexpected, of another backbone or not finite.
    pub fn from_tensors(
        config: &PatchCoreConfig,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let mut source = Source::new(tensors, device);
        let bank = |input| {
            let channels = embedding::channels(config.of_input(input, shapes));
            Bank::take(config, input, channels, &mut source)
        };
        let banks = (0..config.inputs).map(bank).collect::<Result<_>>()?;
        source.finish()?;
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            banks,
            device: device.clone(),
        })
    }

    /// How many features are remembered.
    pub fn remembered(&self) -> usize {
        self.banks.iter().map(|bank| bank.memory.len()).sum()
    }

    /// The map of one input's `features`.
    fn look(&self, input: usize, features: &[Tensor], own_scores: bool) -> Result<Seen> {
        let config = &self.config;
        let (rows, columns) = embedding::grid(config.of_input(input, &self.shapes), config.grid);
        let positions = rows * columns;
        let vectors = embedding::embed(features, config.neighbourhood, config.grid, config.metric)?;
        let batch = vectors.dim(0)? / positions;
        let bank = &self.banks[input];
        let (squares, nearest) = bank.memory.nearest(&vectors)?;
        let distance = |square: f32| match config.metric {
            Metric::Euclidean => square.sqrt(),
            // Of unit vectors: 1 - cosine.
            Metric::Cosine => 0.5 * square,
        };
        let found = squares.iter().zip(&nearest);
        let distances: Vec<f32> = found
            .map(|(&square, &row)| distance(square) * bank.weight(row))
            .collect();
        let scores = own_scores.then(|| {
            let one = |image: usize| {
                let range = image * positions..(image + 1) * positions;
                let vectors = vectors.narrow(0, range.start, positions)?;
                let (nearest, distances) = (&nearest[range.clone()], &distances[range]);
                image_score(
                    &bank.memory,
                    config.neighbours,
                    &vectors,
                    nearest,
                    distances,
                )
            };
            (0..batch).map(one).collect::<Result<Vec<f32>>>()
        });
        Ok(Seen {
            map: Tensor::from_vec(distances, (batch, rows, columns), &Device::Cpu)?,
            scores: scores.transpose()?,
        })
    }
}

/// The image score of equation 7: the largest distance, weighed down where the remembered feature that is
/// nearest there lies among others like it. `vectors [P, C]` of one image, their nearest rows and distances.
fn image_score(
    memory: &Memory,
    neighbours: usize,
    vectors: &Tensor,
    nearest: &[u32],
    distances: &[f32],
) -> Result<f32> {
    let largest = (0..distances.len()).max_by(|&a, &b| {
        // The first of equals, NaN above all.
        distances[a].total_cmp(&distances[b]).then(b.cmp(&a))
    });
    let Some(at) = largest else {
        return Ok(f32::NAN);
    };
    let vector = vectors.narrow(0, at, 1)?;
    let centre = memory.rows().narrow(0, nearest[at] as usize, 1)?;
    let count = neighbours.min(memory.len());
    let (_, support) = memory.k_nearest(&centre, count)?;
    let support = Tensor::from_vec(support, count, vector.device())?;
    let support = memory.rows().index_select(&support, 0)?;
    let apart = support.broadcast_sub(&vector)?.sqr()?.sum(1)?.sqrt()?;
    let apart: Vec<f32> = apart.to_vec1()?;
    // A softmax over the distances, of which the nearest one's share is taken off.
    let most = apart.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = apart.iter().map(|d| f64::from(d - most).exp()).sum();
    let share = f64::from(distances[at] - most).exp() / sum;
    Ok((f64::from(distances[at]) * (1.0 - share)) as f32)
}

impl Estimator for PatchCore {
    fn config(&self) -> EstimatorConfig {
        EstimatorConfig::PatchCore(self.config.clone())
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (input, bank) in self.banks.iter().enumerate() {
            bank.tensors(self.config.precision)?
                .name(input, &mut tensors);
        }
        Ok(tensors)
    }

    fn native_maps(&self, features: &[Tensor], scoring: &Scoring) -> Result<NativeMaps> {
        expect_features(features, &self.shapes)?;
        let own = scoring.image_score == ImageScore::Own;
        let look = |input| self.look(input, self.config.of_input(input, features), own);
        let seen = (0..self.config.inputs)
            .map(look)
            .collect::<Result<Vec<_>>>()?;
        let scores = seen.first().and_then(|seen| seen.scores.clone());
        let scores = scores.map(|scores| {
            let images = scores.len();
            Tensor::from_vec(scores, images, &Device::Cpu)
        });
        let maps: Vec<Tensor> = seen.into_iter().map(|seen| seen.map).collect();
        Ok(NativeMaps {
            image: maps.clone(),
            pixel: maps,
            scores: scores.transpose()?,
        })
    }
}
