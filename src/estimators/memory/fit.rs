//! Filling the memory: all features of all photos, then a greedy coreset of them.

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::{PatchCoreConfig, embedding};
use crate::estimators::{FeatureSource, FitWith};
use crate::kernels::coreset::greedy_k_centre;
use crate::{Error, Result};

/// Dimensions in which the coreset is chosen, by a random projection (Roth et al. 2021, section 3.2: Johnson and
/// Lindenstrauss).
const PROJECTED: usize = 128;
/// Features among which the coreset is chosen: of more, so many at random. 268 MB of projections.
const MOST_CANDIDATES: usize = 1 << 19;

/// The rows of the memory, `[N, C]` on the CPU.
pub(super) fn memory(
    config: &PatchCoreConfig,
    features: &dyn FeatureSource,
    with: &mut FitWith<'_>,
) -> Result<Tensor> {
    if features.is_empty() {
        return Err(Error::Training(
            "PatchCore needs at least one normal image to remember".into(),
        ));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(with.seed);
    let source = Source::new(config, features, with)?;
    let candidates = source.candidates(&mut rng);
    if candidates.len() <= config.memory {
        return source.rows(&candidates);
    }
    let projection = projection(embedding::channels(features.shapes()), &mut rng)?;
    let start = rng.random_range(0..candidates.len());
    let projected = source.projected(&candidates, projection.as_ref())?;
    let columns = projected.len() / candidates.len();
    let count = config.memory;
    let mut tell = |done| (with.progress)(done, count);
    let chosen = greedy_k_centre(&projected, columns, count, start, &mut tell)?;
    let Some(mut chosen) = chosen else {
        return Err(Error::Training(
            "interrupted while the memory was chosen; nothing was saved".into(),
        ));
    };
    // The order of the choice means nothing later: by photo and position, rows are gathered in one pass.
    chosen.sort_unstable();
    let chosen: Vec<usize> = chosen.iter().map(|&c| candidates[c as usize]).collect();
    source.rows(&chosen)
}

/// Where vectors come from: a parent's memory first, then the photos'.
struct Source<'a> {
    config: &'a PatchCoreConfig,
    features: &'a dyn FeatureSource,
    /// Rows and channels of the parent's memory.
    parent: Vec<f32>,
    channels: usize,
    /// Vectors of a photo.
    positions: usize,
}

impl<'a> Source<'a> {
    fn new(
        config: &'a PatchCoreConfig,
        features: &'a dyn FeatureSource,
        with: &FitWith<'_>,
    ) -> Result<Self> {
        let channels = embedding::channels(features.shapes());
        let parent = match with.parent {
            None => Vec::new(),
            Some(parent) => {
                let tensors = parent.tensors()?;
                let memory = tensors.get(super::patchcore::MEMORY).ok_or_else(|| {
                    Error::Training("the detector to start from has no memory".into())
                })?;
                memory
                    .to_device(&Device::Cpu)?
                    .to_dtype(candle_core::DType::F32)?
                    .flatten_all()?
                    .to_vec1()?
            }
        };
        let (rows, columns) = embedding::grid(features.shapes());
        Ok(Self {
            config,
            features,
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

    /// Vectors of one photo, `[h * w, C]`.
    fn photo(&self, record: usize) -> Result<Tensor> {
        let maps = self.features.batch(&[record], &Device::Cpu)?;
        embedding::embed(&maps, self.config.neighbourhood, self.config.metric)
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
