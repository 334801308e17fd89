//! Exact nearest neighbours in a memory of vectors: products over packed panels with a running minimum, so that no
//! matrix of all distances is ever made.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::gemm::{MatRef, PackedRows, pack_panels, panels_len};
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::parallel::{self, with_scratch};
use super::simd::{lane_sum, simd_fn};
use crate::{Error, Result};

/// Memories whose panels pass by a block of queries at a time: with 384 channels 98 KB, a part of the second cache.
const SPAN: usize = 64;
/// Memories of a task: tasks enough for all cores even where queries are few.
const PART: usize = 16 * SPAN;
/// Queries at a time where the search runs through candle's own operations, as on a GPU.
const CHUNK: usize = 1024;

/// Vectors to be searched.
#[derive(Debug)]
pub struct Memory {
    /// `[N, C]`, where the search runs.
    rows: Tensor,
    len: usize,
    channels: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Cpu {
        values: Vec<f32>,
        /// The transposed rows as panels of the product kernel.
        panels: Vec<f32>,
        /// Squared lengths.
        norms: Vec<f32>,
    },
    Device {
        /// `[N]`.
        norms: Tensor,
    },
}

impl Memory {
    /// Of the rows of `rows`, f32 `[N, C]`; the search runs on their device.
    ///
    /// # Errors
    /// When there is no row or no channel, or the type is another one.
    pub fn new(rows: &Tensor) -> Result<Self> {
        let (len, channels) = rows.dims2()?;
        if len == 0 || channels == 0 || rows.dtype() != DType::F32 {
            return Err(Error::Shape {
                what: "memory of vectors".into(),
                expected: "f32 [N, C], none of them 0".into(),
                found: format!("{} {:?}", rows.dtype().as_str(), rows.dims()),
            });
        }
        let rows = rows.contiguous()?;
        let place = match rows.device() {
            Device::Cpu => {
                let values = rows.flatten_all()?.to_vec1::<f32>()?;
                let mut panels = vec![0.0; panels_len(channels, len)];
                let transposed = MatRef::rows(&values, channels).transposed();
                pack_panels(transposed, (channels, len), &mut panels);
                let norms = values.par_chunks_exact(channels).map(square).collect();
                Place::Cpu {
                    values,
                    panels,
                    norms,
                }
            }
            _ => Place::Device {
                norms: rows.sqr()?.sum(1)?,
            },
        };
        Ok(Self {
            rows,
            len,
            channels,
            place,
        })
    }

    /// Number of vectors; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Values of a vector.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The vectors, `[N, C]`.
    pub fn rows(&self) -> &Tensor {
        &self.rows
    }

    /// Of each of `queries [Q, C]` the squared Euclidean distance to the nearest vector, and which one that is: the
    /// first of equals. A query with NaN is NaN away.
    ///
    /// # Errors
    /// When the queries have another shape, type or device.
    pub fn nearest(&self, queries: &Tensor) -> Result<(Vec<f32>, Vec<u32>)> {
        let count = self.check(queries)?;
        match &self.place {
            Place::Cpu {
                values,
                panels,
                norms,
            } => {
                let queries = queries.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
                let search = Search {
                    channels: self.channels,
                    queries: &queries,
                    packed: PackedRows::pack(&queries, (count, self.channels), self.channels),
                    values,
                    panels,
                    norms,
                };
                Ok(search.run())
            }
            Place::Device { norms } => self.through_candle(queries, norms),
        }
    }

    /// Of each of `queries [Q, C]` the squared distances to the `k` nearest vectors, ascending, and which they are:
    /// `Q * k` of both.
    ///
    /// # Errors
    /// As [`Self::nearest`], and when there are fewer vectors than `k`.
    pub fn k_nearest(&self, queries: &Tensor, k: usize) -> Result<(Vec<f32>, Vec<u32>)> {
        self.check(queries)?;
        if k == 0 || k > self.len {
            return Err(Error::Invalid(format!(
                "cannot find the {k} nearest of {} vectors",
                self.len
            )));
        }
        let owned;
        let values = match &self.place {
            Place::Cpu { values, .. } => values,
            Place::Device { .. } => {
                owned = self.rows.flatten_all()?.to_vec1::<f32>()?;
                &owned
            }
        };
        let queries = self.on_cpu(queries)?;
        let one = |query: &[f32]| {
            let mut all: Vec<(f32, u32)> = values
                .par_chunks_exact(self.channels)
                .zip(0..self.len as u32)
                .map(|(row, index)| (distance(query, row), index))
                .collect();
            let order = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            if k < all.len() {
                all.select_nth_unstable_by(k - 1, order);
                all.truncate(k);
            }
            all.sort_unstable_by(order);
            all
        };
        let found = queries.chunks_exact(self.channels).flat_map(one);
        Ok(found.unzip())
    }

    fn on_cpu(&self, queries: &Tensor) -> Result<Vec<f32>> {
        Ok(queries.contiguous()?.flatten_all()?.to_vec1::<f32>()?)
    }

    fn check(&self, queries: &Tensor) -> Result<usize> {
        match *queries.dims() {
            [count, channels] if channels == self.channels && queries.dtype() == DType::F32 => {
                Ok(count)
            }
            _ => Err(Error::Shape {
                what: "vectors to look for".into(),
                expected: format!("f32 [Q, {}]", self.channels),
                found: format!("{} {:?}", queries.dtype().as_str(), queries.dims()),
            }),
        }
    }

    /// Chunk by chunk of the queries with candle's own operations; the winner's distance by differences.
    fn through_candle(&self, queries: &Tensor, norms: &Tensor) -> Result<(Vec<f32>, Vec<u32>)> {
        let (mut distances, mut indices) = (Vec::new(), Vec::new());
        let transposed = self.rows.t()?;
        let count = queries.dim(0)?;
        for from in (0..count).step_by(CHUNK) {
            let part = queries.narrow(0, from, CHUNK.min(count - from))?;
            let gaps = (part.matmul(&transposed)? * -2.0)?.broadcast_add(norms)?;
            let nearest = gaps.argmin(1)?;
            let found = self.rows.index_select(&nearest, 0)?;
            let exact = (part - found)?.sqr()?.sum(1)?;
            distances.extend(exact.to_vec1::<f32>()?);
            indices.extend(nearest.to_vec1::<u32>()?);
        }
        Ok((distances, indices))
    }
}

simd_fn! {
    /// `sum x^2`.
    fn square(x: &[f32]) -> f32 {
        lane_sum(x.len(), |i| x[i] * x[i])
    }
}

simd_fn! {
    /// `sum (a - b)^2`.
    fn distance(a: &[f32], b: &[f32]) -> f32 {
        lane_sum(a.len(), |i| (a[i] - b[i]) * (a[i] - b[i]))
    }
}

/// One search on the CPU.
struct Search<'a> {
    channels: usize,
    queries: &'a [f32],
    packed: PackedRows,
    values: &'a [f32],
    panels: &'a [f32],
    norms: &'a [f32],
}

/// The nearest so far: `|m|^2 - 2 q m`, which lacks the query's own length, and the vector's number.
type Best = (f32, u32);

impl Search<'_> {
    fn run(&self) -> (Vec<f32>, Vec<u32>) {
        let blocks = self.packed.blocks();
        let parts = self.norms.len().div_ceil(PART);
        // A part's panels come from the third cache for one block of queries after the other.
        let tasks = parts * blocks.len();
        let found: Vec<std::sync::OnceLock<Vec<Best>>> =
            (0..tasks).map(|_| Default::default()).collect();
        parallel::for_each(tasks, |task| {
            let (part, block) = (task / blocks.len(), task % blocks.len());
            // Set once: every task has its own.
            let _ = found[task].set(self.task(part, blocks[block].clone()));
        });
        let queries = self.queries.chunks_exact(self.channels);
        let mut indices = Vec::with_capacity(queries.len());
        for (block, rows) in blocks.iter().enumerate() {
            for row in 0..rows.len() {
                let of_part =
                    (0..parts).filter_map(|part| found[part * blocks.len() + block].get());
                let first = (f32::INFINITY, 0);
                // The first of equals, since parts follow each other.
                let nearer =
                    |best: Best, own: &Vec<Best>| if own[row].0 < best.0 { own[row] } else { best };
                indices.push(of_part.fold(first, nearer).1);
            }
        }
        let exact = queries.zip(&indices).map(|(query, &index)| {
            let start = index as usize * self.channels;
            distance(query, &self.values[start..start + self.channels])
        });
        (exact.collect(), indices)
    }

    /// The nearest among the vectors of one part for one block of queries.
    fn task(&self, part: usize, rows: std::ops::Range<usize>) -> Vec<Best> {
        let mut best = vec![(f32::INFINITY, 0); rows.len()];
        let end = self.norms.len().min((part + 1) * PART);
        with_scratch(rows.len() * SPAN, |products| {
            for first in (part * PART..end).step_by(SPAN) {
                let columns = SPAN.min(end - first);
                let panels = &self.panels[first * self.channels..];
                // SAFETY: the scratch holds `rows.len()` rows of SPAN elements, this task's alone.
                unsafe {
                    let to = products.as_mut_ptr();
                    self.packed.times(rows.clone(), (panels, columns), to, SPAN);
                }
                dispatch(RunningMinimum {
                    products,
                    norms: &self.norms[first..first + columns],
                    first: first as u32,
                    best: &mut best,
                });
            }
        });
        best
    }
}

/// Takes a block of products into the nearest so far.
struct RunningMinimum<'a> {
    products: &'a [f32],
    norms: &'a [f32],
    first: u32,
    best: &'a mut [Best],
}

impl Kernel for RunningMinimum<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let columns = self.norms.len();
        for (row, best) in self.best.iter_mut().enumerate() {
            let products = &self.products[row * SPAN..row * SPAN + columns];
            let mut lanes = [f32::INFINITY; LANES];
            let whole = columns / LANES * LANES;
            let mut at = 0;
            while at < whole {
                let mut lane = 0;
                while lane < LANES {
                    let gap = self.norms[at + lane] - 2.0 * products[at + lane];
                    lanes[lane] = if gap < lanes[lane] { gap } else { lanes[lane] };
                    lane += 1;
                }
                at += LANES;
            }
            let mut least = f32::INFINITY;
            for lane in lanes {
                least = if lane < least { lane } else { least };
            }
            while at < columns {
                let gap = self.norms[at] - 2.0 * products[at];
                least = if gap < least { gap } else { least };
                at += 1;
            }
            if least < best.0 {
                // Rare: which one it was.
                for (column, (norm, product)) in self.norms.iter().zip(products).enumerate() {
                    if norm - 2.0 * product == least {
                        *best = (least, self.first + column as u32);
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn values(count: usize, seed: f32) -> Vec<f32> {
        (0..count)
            .map(|i| ((i as f32 * 12.9898 + seed).sin() * 43_758.547).fract())
            .collect()
    }

    fn tensor(values: &[f32], channels: usize) -> Tensor {
        let rows = values.len() / channels;
        Tensor::from_slice(values, (rows, channels), &Device::Cpu).unwrap()
    }

    /// In f64, the first of equals.
    fn plain(queries: &[f32], rows: &[f32], channels: usize) -> Vec<(f64, u32)> {
        let of = |query: &[f32]| {
            let gaps = rows.chunks_exact(channels).map(|row| {
                let pairs = query.iter().zip(row);
                pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
            });
            let found = gaps.zip(0u32..).min_by(|a, b| a.0.total_cmp(&b.0));
            found.unwrap()
        };
        queries.chunks_exact(channels).map(of).collect()
    }

    #[test]
    fn finds_the_nearest_whatever_the_sizes() {
        for (queries, rows, channels) in [
            (1, 1, 1),
            (1, 3000, 7),
            (5, 63, 300),
            (200, 1025, 37),
            (97, 64, 16),
            (300, 2500, 8),
        ] {
            let (q, m) = (
                values(queries * channels, 1.0),
                values(rows * channels, 2.0),
            );
            let memory = Memory::new(&tensor(&m, channels)).unwrap();
            let (distances, indices) = memory.nearest(&tensor(&q, channels)).unwrap();
            let expected = plain(&q, &m, channels);
            for ((found, index), (gap, nearest)) in distances.iter().zip(&indices).zip(expected) {
                assert_eq!(*index, nearest);
                assert!((f64::from(*found) - gap).abs() <= 1e-5 * gap.max(1e-3));
            }
            let norms = tensor(&m, channels).sqr().unwrap().sum(1).unwrap();
            let through = memory
                .through_candle(&tensor(&q, channels), &norms)
                .unwrap();
            assert_eq!(through.1, indices);
            let k = rows.min(3);
            let (near, which) = memory.k_nearest(&tensor(&q, channels), k).unwrap();
            for (query, &index) in indices.iter().enumerate() {
                assert_eq!(which[query * k], index);
                assert!(near[query * k..(query + 1) * k].is_sorted());
            }
        }
    }

    #[test]
    fn the_first_of_equals_is_found_at_distance_zero() {
        let channels = 24;
        let mut rows = values(2000 * channels, 3.0);
        let twin = rows[700 * channels..701 * channels].to_vec();
        rows[1900 * channels..1901 * channels].copy_from_slice(&twin);
        let memory = Memory::new(&tensor(&rows, channels)).unwrap();
        let found = memory.nearest(&tensor(&twin, channels)).unwrap();
        assert_eq!(found, (vec![0.0], vec![700]));
        let (near, which) = memory.k_nearest(&tensor(&twin, channels), 2).unwrap();
        assert_eq!((near, which), (vec![0.0, 0.0], vec![700, 1900]));
    }

    #[test]
    fn threads_change_no_bit_and_nan_is_seen() {
        let (q, m) = (values(500 * 40, 1.0), values(3000 * 40, 2.0));
        let memory = Memory::new(&tensor(&m, 40)).unwrap();
        let search = || memory.nearest(&tensor(&q, 40)).unwrap();
        let pool = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(search)
        };
        assert_eq!(pool(1), pool(3));
        assert_eq!(pool(1), search());
        let (distances, _) = memory
            .nearest(&Tensor::full(f32::NAN, (2, 40), &Device::Cpu).unwrap())
            .unwrap();
        assert!(distances.iter().all(|d| d.is_nan()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let empty = Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(Memory::new(&empty).is_err());
        let memory = Memory::new(&tensor(&[1.0, 2.0, 3.0], 3)).unwrap();
        assert!(memory.nearest(&tensor(&[1.0, 2.0], 2)).is_err());
        assert!(memory.k_nearest(&tensor(&[1.0, 2.0, 3.0], 3), 2).is_err());
    }
}
