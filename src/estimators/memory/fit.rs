//! Filling a memory: all features of all photos, a greedy coreset of them, and what distances to each count.

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::{
    Metric, PatchCoreConfig,
    bank::{BankTensors, memory_name},
};
use crate::estimators::{FeatureSource, FitWith, embedding};
use crate::kernels::{coreset::greedy_k_centre_with, nearest::Memory};
use crate::{Error, Result};

/// Dimensions in which the coreset is chosen, by a random projection (Roth et al. 2021, section 3.2: Johnson and
/// Lindenstrauss).
const PROJECTED: usize = 128;
/// Features among which the coreset is chosen: of more, so many at random. 268 MB of projections.
const MOST_CANDIDATES: usize = 1 << 19;

/// The most photos whose distances to the others' features say what is usual.
const MOST_USUAL: usize = 24;

/// One input's bank, on the CPU.
pub(super) fn bank(
    config: &PatchCoreConfig,
    input: usize,
    features: &dyn FeatureSource,
    with: &mut FitWith<'_>,
) -> Result<BankTensors> {
    if features.is_empty() {
        return Err(Error::Training(
            "PatchCore needs at least one normal image to remember".into(),
        ));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(with.seed ^ (input as u64) << 32);
    let source = Source::new(config, input, features, with)?;
    let chosen = source.coreset(&mut rng, with)?;
    let memory = source.rows(&chosen)?;
    let weights = match config.weighs() {
        false => None,
        true => {
            let mut weights = match config.density {
                0 => vec![1.0; chosen.len()],
                neighbours => density_weights(&memory, neighbours)?,
            };
            if config.normalised {
                let usual = source.usual_distance(&memory, &chosen, &weights)?;
                weights.iter_mut().for_each(|weight| *weight /= usual);
            }
            let count = weights.len();
            Some(Tensor::from_vec(weights, count, &Device::Cpu)?)
        }
    };
    Ok(BankTensors { memory, weights })
}

/// `1 / sqrt(d_i / mean d)`, where `d_i` is the mean distance of feature i to its nearest `neighbours` in the memory.
fn density_weights(memory: &Tensor, neighbours: usize) -> Result<Vec<f32>> {
    let count = memory.dim(0)?;
    let neighbours = neighbours.min(count - 1);
    if neighbours == 0 {
        return Ok(vec![1.0; count]);
    }
    // The nearest of all is the feature itself.
    let (squares, _) = Memory::new(memory)?.k_nearest(memory, neighbours + 1)?;
    let apart: Vec<f64> = squares
        .chunks_exact(neighbours + 1)
        .map(|row| row[1..].iter().map(|d| f64::from(d.sqrt())).sum::<f64>() / neighbours as f64)
        .collect();
    let mean = apart.iter().sum::<f64>() / count as f64;
    if mean == 0.0 {
        return Ok(vec![1.0; count]);
    }
    // Twins are as dense as it gets, not infinitely so.
    let weight = |d: &f64| (1.0 / (d / mean).max(0.05).sqrt()) as f32;
    Ok(apart.iter().map(weight).collect())
}

/// Where vectors come from: a parent's memory first, then the photos'.
struct Source<'a> {
    config: &'a PatchCoreConfig,
    features: &'a dyn FeatureSource,
    /// Which input, of how many maps.
    input: usize,
    /// Rows and channels of the parent's memory.
    parent: Vec<f32>,
    channels: usize,
    /// Vectors of a photo.
    positions: usize,
}

impl<'a> Source<'a> {
    fn new(
        config: &'a PatchCoreConfig,
        input: usize,
        features: &'a dyn FeatureSource,
        with: &FitWith<'_>,
    ) -> Result<Self> {
        let shapes = config.of_input(input, features.shapes());
        let channels = embedding::channels(shapes);
        let parent = match with.parent {
            None => Vec::new(),
            Some(parent) => {
                let tensors = parent.tensors()?;
                let memory = tensors.get(&memory_name(input)).ok_or_else(|| {
                    Error::Training("the detector to start from has no memory".into())
                })?;
                memory
                    .to_device(&Device::Cpu)?
                    .to_dtype(candle_core::DType::F32)?
                    .flatten_all()?
                    .to_vec1()?
            }
        };
        let (rows, columns) = embedding::grid(shapes, config.grid);
        Ok(Self {
            config,
            features,
            input,
            parent,
            channels,
            positions: rows * columns,
        })
    }

    fn parent_rows(&self) -> usize {
        self.parent.len() / self.channels
    }

    /// Numbers of vectors, ascending: all, or a random choice of the photos' where there are too many.
    fn candidates(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let (kept, own) = (self.parent_rows(), self.features.len() * self.positions);
        let room = MOST_CANDIDATES.saturating_sub(kept);
        if own <= room {
            return (0..kept + own).collect();
        }
        let mut some: Vec<usize> = index::sample(rng, own, room).into_vec();
        some.sort_unstable();
        (0..kept)
            .chain(some.into_iter().map(|at| kept + at))
            .collect()
    }

    /// Numbers of the features to remember, ascending: their order would mean nothing, and so they are gathered in one
    /// pass over the photos.
    fn coreset(&self, rng: &mut ChaCha8Rng, with: &mut FitWith<'_>) -> Result<Vec<usize>> {
        let candidates = self.candidates(rng);
        let count = self.config.memory;
        if candidates.len() <= count {
            return Ok(candidates);
        }
        let projection = projection(self.channels, rng)?;
        let start = rng.random_range(0..candidates.len());
        let projected = self.projected(&candidates, projection.as_ref())?;
        let dims = (candidates.len(), projected.len() / candidates.len());
        let projected = Tensor::from_vec(projected, dims, &Device::Cpu)?;
        let (first, total) = (self.input * count, self.config.inputs * count);
        let mut tell = |done| (with.progress)(first + done, total);
        let chosen = greedy_k_centre_with(&projected, count, start, &mut tell)?;
        let mut chosen = chosen.ok_or_else(|| {
            Error::Training("interrupted while features were chosen; nothing was saved".into())
        })?;
        chosen.sort_unstable();
        Ok(chosen.iter().map(|&c| candidates[c as usize]).collect())
    }

    /// How far features of a photo usually are from those remembered of other photos: the mean, weighed, over some
    /// photos spread over all. Of a single photo, to the second nearest.
    fn usual_distance(&self, memory: &Tensor, chosen: &[usize], weights: &[f32]) -> Result<f32> {
        let kept = self.parent_rows();
        let photo_of = |number: usize| number.checked_sub(kept).map(|own| own / self.positions);
        let photos = self.features.len();
        let (mut sum, mut count) = (0f64, 0usize);
        for photo in (0..photos).step_by(photos.div_ceil(MOST_USUAL)) {
            let others = (0u32..)
                .zip(chosen)
                .filter(|(_, number)| photo_of(**number) != Some(photo));
            let others: Vec<u32> = others.map(|(row, _)| row).collect();
            let vectors = self.photo(photo)?;
            let found = if others.is_empty() {
                if memory.dim(0)? < 2 {
                    return Ok(1.0);
                }
                let (squares, rows) = Memory::new(memory)?.k_nearest(&vectors, 2)?;
                let second = squares.into_iter().zip(rows).skip(1).step_by(2);
                second.collect::<Vec<_>>()
            } else {
                let index = Tensor::from_slice(&others, others.len(), &Device::Cpu)?;
                let (squares, rows) =
                    Memory::new(&memory.index_select(&index, 0)?)?.nearest(&vectors)?;
                let rows = rows.into_iter().map(|row| others[row as usize]);
                squares.into_iter().zip(rows).collect()
            };
            for (square, row) in found {
                let distance = match self.config.metric {
                    Metric::Euclidean => square.sqrt(),
                    Metric::Cosine => 0.5 * square,
                };
                sum += f64::from(distance * weights[row as usize]);
                count += 1;
            }
        }
        let mean = (sum / count.max(1) as f64) as f32;
        Ok(if mean > 0.0 && mean.is_finite() {
            mean
        } else {
            1.0
        })
    }

    /// Vectors of one photo, `[h * w, C]`.
    fn photo(&self, record: usize) -> Result<Tensor> {
        let shapes = self.config.of_input(self.input, self.features.shapes());
        let first = self.input * shapes.len();
        let maps = shapes.iter().enumerate().map(|(map, shape)| {
            let values = self.features.map(record, first + map);
            let dims = (1, shape.channels, shape.height, shape.width);
            Ok(Tensor::from_slice(values, dims, &Device::Cpu)?)
        });
        let (maps, config) = (maps.collect::<Result<Vec<_>>>()?, self.config);
        embedding::embed(&maps, config.neighbourhood, config.grid, config.metric)
    }

    /// These vectors, `[N, C]`; their numbers ascend.
    fn rows(&self, numbers: &[usize]) -> Result<Tensor> {
        let rows = self.each(numbers, self.channels, |vectors| Ok(vectors.clone()))?;
        Ok(Tensor::from_vec(
            rows,
            (numbers.len(), self.channels),
            &Device::Cpu,
        )?)
    }

    /// These vectors projected, one after the other.
    fn projected(&self, numbers: &[usize], projection: Option<&Tensor>) -> Result<Vec<f32>> {
        match projection {
            None => self.each(numbers, self.channels, |vectors| Ok(vectors.clone())),
            Some(matrix) => self.each(numbers, matrix.dim(1)?, |v| Ok(v.matmul(matrix)?)),
        }
    }

    /// Of every vector its row of what `make` makes of all vectors of its photo.
    fn each(
        &self,
        numbers: &[usize],
        columns: usize,
        make: impl Fn(&Tensor) -> Result<Tensor> + Sync,
    ) -> Result<Vec<f32>> {
        let kept = self.parent_rows();
        let photo_of = |number: usize| match number.checked_sub(kept) {
            None => 0,
            Some(own) => 1 + own / self.positions,
        };
        let mut rows = vec![0f32; numbers.len() * columns];
        let mut parts = Vec::new();
        let (mut rest, mut from) = (rows.as_mut_slice(), 0);
        for group in numbers.chunk_by(|&a, &b| photo_of(a) == photo_of(b)) {
            let (part, after) = rest.split_at_mut(group.len() * columns);
            parts.push((group, part));
            (rest, from) = (after, from + group.len());
        }
        debug_assert_eq!(from, numbers.len());
        parts.into_par_iter().try_for_each(|(group, part)| {
            let (vectors, first) = match photo_of(group[0]) {
                0 => {
                    let dims = (kept, self.channels);
                    (Tensor::from_slice(&self.parent, dims, &Device::Cpu)?, 0)
                }
                photo => (self.photo(photo - 1)?, kept + (photo - 1) * self.positions),
            };
            let made = make(&vectors)?.flatten_all()?.to_vec1::<f32>()?;
            for (&number, row) in group.iter().zip(part.chunks_exact_mut(columns)) {
                let at = (number - first) * columns;
                row.copy_from_slice(&made[at..at + columns]);
            }
            Ok::<(), Error>(())
        })?;
        Ok(rows)
    }
}

/// A random matrix `[C, PROJECTED]` that keeps distances on average; none where that would not save anything.
fn projection(channels: usize, rng: &mut ChaCha8Rng) -> Result<Option<Tensor>> {
    if channels <= PROJECTED {
        return Ok(None);
    }
    let scale = 1.0 / (PROJECTED as f32).sqrt();
    let draw = |_| -> f32 {
        let value: f32 = StandardNormal.sample(rng);
        value * scale
    };
    let values: Vec<f32> = (0..channels * PROJECTED).map(draw).collect();
    let matrix = Tensor::from_vec(values, (channels, PROJECTED), &Device::Cpu)?;
    Ok(Some(matrix))
}
