//! PatchCore: how far a feature is from the nearest one that is remembered.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::{Metric, PatchCoreConfig, Precision, embedding};
use crate::estimators::{Estimator, EstimatorConfig, ImageScore, NativeMaps, Scoring};
use crate::kernels::{FeatureShape, nearest::Memory};
use crate::{Error, Result};

/// The tensor's name in an artifact.
pub(super) const MEMORY: &str = "memory";

/// A memory of normal features.
#[derive(Debug)]
pub struct PatchCore {
    config: PatchCoreConfig,
    shapes: Vec<FeatureShape>,
    memory: Memory,
    device: Device,
}

impl PatchCore {
    /// Over the rows of `memory [N, C]`.
    ///
    /// # Errors
    /// When the settings are out of range, or the rows do not fit the feature maps or are not finite.
    pub fn new(
        config: &PatchCoreConfig,
        shapes: &[FeatureShape],
        memory: Tensor,
        device: &Device,
    ) -> Result<Self> {
        use crate::estimators::MethodConfig as _;
        config.validate(shapes)?;
        let channels = embedding::channels(shapes);
        let fits = matches!(memory.dims(), &[rows, found] if rows > 0 && found == channels);
        if !fits {
            return Err(Error::Shape {
                what: format!("tensor `{MEMORY}` (is it of another backbone?)"),
                expected: format!("[N, {channels}]"),
                found: format!("{:?}", memory.dims()),
            });
        }
        let memory = memory.to_dtype(DType::F32)?;
        let total = memory.sum_all()?.to_scalar::<f32>()?;
        if !total.is_finite() {
            return Err(Error::Invalid(format!(
                "tensor `{MEMORY}` holds a number that is not finite"
            )));
        }
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            memory: Memory::new(&memory.to_device(device)?)?,
            device: device.clone(),
        })
    }

    /// From the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// As [`Self::new`], and when there are other tensors.
    pub fn from_tensors(
        config: &PatchCoreConfig,
        shapes: &[FeatureShape],
        mut tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let memory = tensors
            .remove(MEMORY)
            .ok_or_else(|| Error::Invalid(format!("tensor `{MEMORY}` is missing")))?;
        if let Some(name) = tensors.keys().next() {
            return Err(Error::Invalid(format!(
                "tensor `{name}` is not PatchCore's"
            )));
        }
        if memory.dim(0)? > config.memory {
            return Err(Error::Invalid(format!(
                "tensor `{MEMORY}` has {} rows, the settings allow {}",
                memory.dim(0)?,
                config.memory
            )));
        }
        Self::new(config, shapes, memory, device)
    }

    /// How many features are remembered.
    pub fn remembered(&self) -> usize {
        self.memory.len()
    }

    /// The image score of equation 7: the largest distance, weighed down where the remembered feature that is
    /// nearest there lies among others like it. `vectors [P, C]` of one image, their nearest rows and distances.
    fn image_score(&self, vectors: &Tensor, nearest: &[u32], distances: &[f32]) -> Result<f32> {
        let largest = (0..distances.len()).max_by(|&a, &b| {
            // The first of equals, NaN above all.
            distances[a].total_cmp(&distances[b]).then(b.cmp(&a))
        });
        let Some(at) = largest else {
            return Ok(f32::NAN);
        };
        let vector = vectors.narrow(0, at, 1)?;
        let centre = self.memory.rows().narrow(0, nearest[at] as usize, 1)?;
        let count = self.config.neighbours.min(self.memory.len());
        let (_, support) = self.memory.k_nearest(&centre, count)?;
        let support = Tensor::from_vec(support, count, vector.device())?;
        let support = self.memory.rows().index_select(&support, 0)?;
        let apart = support.broadcast_sub(&vector)?.sqr()?.sum(1)?.sqrt()?;
        let apart: Vec<f32> = apart.to_vec1()?;
        // A softmax over the distances, of which the nearest one's share is taken off.
        let most = apart.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = apart.iter().map(|d| f64::from(d - most).exp()).sum();
        let share = f64::from(distances[at] - most).exp() / sum;
        Ok((f64::from(distances[at]) * (1.0 - share)) as f32)
    }
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
        let rows = self.memory.rows();
        let rows = match self.config.precision {
            Precision::F32 => rows.clone(),
            Precision::F16 => rows.to_dtype(DType::F16)?,
        };
        Ok(BTreeMap::from([(MEMORY.to_string(), rows)]))
    }

    fn native_maps(&self, features: &[Tensor], scoring: &Scoring) -> Result<NativeMaps> {
        crate::estimators::expect_features(features, &self.shapes)?;
        let (rows, columns) = embedding::grid(&self.shapes);
        let positions = rows * columns;
        let vectors = embedding::embed(features, self.config.neighbourhood, self.config.metric)?;
        let batch = vectors.dim(0)? / positions;
        let (squares, nearest) = self.memory.nearest(&vectors)?;
        let distances: Vec<f32> = match self.config.metric {
            Metric::Euclidean => squares.iter().map(|square| square.sqrt()).collect(),
            // Of unit vectors: 1 - cosine.
            Metric::Cosine => squares.iter().map(|square| 0.5 * square).collect(),
        };
        let scores = match scoring.image_score {
            ImageScore::Own => {
                let one = |image: usize| {
                    let range = image * positions..(image + 1) * positions;
                    let vectors = vectors.narrow(0, range.start, positions)?;
                    self.image_score(&vectors, &nearest[range.clone()], &distances[range])
                };
                let scores = (0..batch).map(one).collect::<Result<Vec<f32>>>()?;
                Some(Tensor::from_vec(scores, batch, &Device::Cpu)?)
            }
            _ => None,
        };
        let map = Tensor::from_vec(distances, (batch, rows, columns), &Device::Cpu)?;
        Ok(NativeMaps {
            image: vec![map.clone()],
            pixel: vec![map],
            scores,
        })
    }
}
