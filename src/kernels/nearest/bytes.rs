//! The filter in bytes, for processors with AVX-512's VNNI: four times the products of f32 a cycle.
//!
//! Rows and queries are `mean + step * bytes`, each with a step of its own, and residues whose norms are known: distances
//! of what the bytes say are off by at most the sum of two such norms.

use std::arch::x86_64::*;
use std::ops::Range;

use super::filter::{Bound, CHUNK, Filter, GROUPS, UNDERFLOW, square_norm};
use crate::kernels::parallel;
use crate::kernels::simd::{LANES, simd_fn};

/// Rows side by side, one a lane.
const PANEL: usize = GROUPS;
/// Channels of a lane's 32 bits.
const DEEP: usize = 4;
/// Queries and panels at a time: 24 sums in 32 registers.
const QUERIES: usize = 6;
const PANELS: usize = 4;
/// Rows of a panel's sums.
const WIDE: usize = PANEL * PANELS;
/// Queries of a block.
const BLOCK: usize = 16 * QUERIES;
/// Sums of more products might overflow.
const MOST_CHANNELS: usize = 1 << 14;

/// Whether this processor has the instructions; only [`Bytes::new`] asks.
fn supported() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512vnni")
}

/// Rows as panels of bytes.
#[derive(Debug)]
pub(super) struct Bytes {
    channels: usize,
    mean: Vec<f32>,
    /// Of [`WIDE`] rows each, by steps of [`DEEP`] channels; whole chunks.
    panels: Vec<i8>,
    rows: Rows,
    /// The largest norm of what a row's bytes say, squared.
    largest: f64,
    /// The largest norm of a row's residue.
    residue: f64,
}

/// Of each row, whole chunks.
#[derive(Debug)]
struct Rows {
    steps: Vec<f32>,
    /// Squared norms of what the bytes say; infinite where there is no row.
    squares: Vec<f32>,
    /// `128 sum(m)` of the bytes.
    sums: Vec<i32>,
}

/// A block of queries as bytes, 128 added.
pub(super) struct Block {
    /// Of [`QUERIES`] each, by steps of [`DEEP`] channels; the last ones may be fewer.
    bytes: Vec<u8>,
    steps: Vec<f32>,
    bounds: Vec<Option<Bound>>,
}

/// One vector in bytes.
struct Coded {
    bytes: Vec<i8>,
    step: f32,
    /// The squared norm of `step * bytes`.
    square: f64,
    /// The norm of what is left.
    residue: f64,
}

impl Bytes {
    /// Of `rows [N, C]`, all finite; none where this processor cannot.
    pub(super) fn new(rows: &[f32], channels: usize) -> Option<Self> {
        if !supported() || channels > MOST_CHANNELS {
            return None;
        }
        let len = rows.len() / channels;
        let mut sums = vec![0f64; channels];
        for row in rows.chunks_exact(channels) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / len as f64) as f32).collect();
        let padded = len.next_multiple_of(CHUNK);
        let mut this = Self {
            channels,
            mean,
            panels: vec![0; padded * channels.next_multiple_of(DEEP)],
            rows: Rows {
                steps: vec![0.0; padded],
                squares: vec![f32::INFINITY; padded],
                sums: vec![0; padded],
            },
            largest: 0.0,
            residue: 0.0,
        };
        let blocks = rows.chunks(BLOCK * channels).collect::<Vec<_>>();
        let coded = parallel::map(blocks.len(), |block| {
            let rows = blocks[block].chunks_exact(channels);
            rows.map(|row| this.code(row)).collect::<Vec<Coded>>()
        });
        for (index, coded) in coded.into_iter().flatten().enumerate() {
            this.put(index, &coded);
        }
        Some(this)
    }

    fn put(&mut self, index: usize, coded: &Coded) {
        let start = index / WIDE * WIDE * coded.bytes.len();
        for (step, bytes) in coded.bytes.chunks_exact(DEEP).enumerate() {
            let at = start + (step * WIDE + index % WIDE) * DEEP;
            self.panels[at..at + DEEP].copy_from_slice(bytes);
        }
        self.rows.steps[index] = coded.step;
        self.rows.squares[index] = coded.square as f32;
        self.rows.sums[index] = 128 * coded.bytes.iter().map(|x| i32::from(*x)).sum::<i32>();
        self.largest = self.largest.max(coded.square);
        self.residue = self.residue.max(coded.residue);
    }

    fn deep(&self) -> usize {
        self.channels.next_multiple_of(DEEP)
    }

    fn code(&self, vector: &[f32]) -> Coded {
        let mut bytes = vec![0i8; self.deep()];
        let (step, left) = encode(vector, &self.mean, &mut bytes);
        let square: i32 = bytes.iter().map(|x| i32::from(*x) * i32::from(*x)).sum();
        // What is left is a difference of two numbers below 128 steps, each rounded.
        let rounding = (self.channels as f64).sqrt() * 256.0 * f64::from(f32::EPSILON);
        Coded {
            bytes,
            step,
            square: f64::from(square) * f64::from(step).powi(2),
            residue: f64::from(left).sqrt() * 1.001 + rounding * f64::from(step),
        }
    }

    fn block(&self, queries: &[f32]) -> Block {
        let count = queries.len() / self.channels;
        let mut all = Block {
            bytes: Vec::with_capacity(count * self.deep()),
            steps: Vec::with_capacity(count),
            bounds: Vec::with_capacity(count),
        };
        for strip in queries.chunks(QUERIES * self.channels) {
            let queries = strip.chunks_exact(self.channels);
            let coded: Vec<Coded> = queries.clone().map(|query| self.code(query)).collect();
            for step in (0..self.deep()).step_by(DEEP) {
                for coded in &coded {
                    let bytes = &coded.bytes[step..step + DEEP];
                    all.bytes.extend(bytes.iter().map(|x| (*x as u8) ^ 0x80));
                }
            }
            for (query, coded) in queries.zip(&coded) {
                all.steps.push(coded.step);
                all.bounds.push(self.bound_of(query, coded));
            }
        }
        all
    }

    fn bound_of(&self, query: &[f32], coded: &Coded) -> Option<Bound> {
        square_norm(query)?;
        // A key is a square and a product, each rounded a few times.
        let key = self.largest + 2.0 * (coded.square * self.largest).sqrt();
        Some(Bound {
            base: coded.square,
            scale: 1.0,
            error: 4.0 * key * f64::from(f32::EPSILON) + UNDERFLOW,
            blur: coded.residue + self.residue,
        })
    }
}

simd_fn! {
    /// `vector - mean` in bytes; returns their step and the square of what is left.
    fn encode(vector: &[f32], mean: &[f32], bytes: &mut [i8]) -> (f32, f32) {
        let mut widest = [0f32; LANES];
        let (x, means) = (vector.chunks(LANES), mean.chunks(LANES));
        for (x, mean) in x.clone().zip(means.clone()) {
            for ((widest, x), mean) in widest.iter_mut().zip(x).zip(mean) {
                let gap = (x - mean).abs();
                *widest = if gap > *widest { gap } else { *widest };
            }
        }
        let widest = widest.into_iter().fold(0f32, f32::max);
        let step = (widest / 127.0).max(f32::MIN_POSITIVE);
        let inverse = 1.0 / step;
        let mut left = [0f32; LANES];
        for ((x, mean), bytes) in x.zip(means).zip(bytes.chunks_mut(LANES)) {
            let numbers = x.iter().zip(mean).zip(bytes);
            for (((x, mean), byte), left) in numbers.zip(&mut left) {
                let gap = x - mean;
                let steps = (gap * inverse).round_ties_even();
                *byte = steps as i32 as i8;
                let rest = gap - steps * step;
                *left += rest * rest;
            }
        }
        (step, left.into_iter().sum())
    }
}

impl Filter for Bytes {
    type Queries = Vec<Block>;

    fn prepare(&self, queries: &[f32]) -> Vec<Block> {
        let blocks = queries.chunks(BLOCK * self.channels).collect::<Vec<_>>();
        parallel::map(blocks.len(), |block| self.block(blocks[block]))
    }

    fn blocks(&self, queries: &Vec<Block>) -> Vec<Range<usize>> {
        let block = |(i, block): (usize, &Block)| i * BLOCK..i * BLOCK + block.steps.len();
        queries.iter().enumerate().map(block).collect()
    }

    fn keys<'k>(
        &self,
        queries: &Vec<Block>,
        block: Range<usize>,
        chunk: usize,
        of: impl Fn(usize) -> &'k mut [f32],
    ) {
        let deep = self.deep();
        let panels = &self.panels[chunk * CHUNK * deep..][..CHUNK * deep];
        let first_query = block.start;
        let block = &queries[first_query / BLOCK];
        for (strip, steps) in block.steps.chunks(QUERIES).enumerate() {
            let (first, count) = (strip * QUERIES, steps.len());
            let tile = Tile {
                queries: &block.bytes[first * deep..(first + count) * deep],
                steps,
                panels,
                rows: &self.rows,
                first: chunk * CHUNK,
            };
            let mut keys = [[0f32; GROUPS]; QUERIES];
            // SAFETY: whoever made this filter saw that the processor has the instructions.
            unsafe {
                match count {
                    6 => least::<6>(&tile, &mut keys),
                    5 => least::<5>(&tile, &mut keys),
                    4 => least::<4>(&tile, &mut keys),
                    3 => least::<3>(&tile, &mut keys),
                    2 => least::<2>(&tile, &mut keys),
                    _ => least::<1>(&tile, &mut keys),
                }
            }
            for (i, keys) in keys.iter().enumerate().take(count) {
                of(first_query + first + i).copy_from_slice(keys);
            }
        }
    }

    fn bound(&self, queries: &Vec<Block>, query: usize) -> Option<Bound> {
        queries[query / BLOCK].bounds[query % BLOCK]
    }
}

/// A few queries and a chunk.
struct Tile<'a> {
    queries: &'a [u8],
    steps: &'a [f32],
    panels: &'a [i8],
    rows: &'a Rows,
    /// The chunk's first row.
    first: usize,
}

/// The least keys of a chunk's groups for `N` queries: `|m|^2 - 2 q m`, in lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn least<const N: usize>(tile: &Tile, keys: &mut [[f32; GROUPS]; QUERIES]) {
    let deep = tile.queries.len() / N;
    assert!(
        tile.panels.len() == CHUNK * deep && deep.is_multiple_of(DEEP) && tile.steps.len() == N,
        "a chunk of another size"
    );
    let mut least = [_mm512_set1_ps(f32::INFINITY); N];
    for first in (0..CHUNK).step_by(WIDE) {
        let mut sums = [[_mm512_setzero_si512(); PANELS]; N];
        let panels = tile.panels[first * deep..][..WIDE * deep]
            .as_chunks::<{ WIDE * DEEP }>()
            .0;
        let queries = tile.queries.chunks_exact(N * DEEP);
        // Indices, not iterators: their functions would be compiled without the features.
        for (panels, queries) in panels.iter().zip(queries) {
            let mut right = [_mm512_setzero_si512(); PANELS];
            let mut panel = 0;
            while panel < PANELS {
                // SAFETY: one of these panels.
                let at = unsafe { panels.as_ptr().add(panel * PANEL * DEEP) };
                // SAFETY: 64 bytes of it.
                right[panel] = unsafe { _mm512_loadu_si512(at.cast()) };
                panel += 1;
            }
            let mut query = 0;
            while query < N {
                // SAFETY: DEEP bytes of one of N queries.
                let left = unsafe {
                    let at = queries.as_ptr().add(query * DEEP);
                    _mm512_set1_epi32(at.cast::<i32>().read_unaligned())
                };
                let mut panel = 0;
                while panel < PANELS {
                    let sum = sums[query][panel];
                    sums[query][panel] = _mm512_dpbusd_epi32(sum, left, right[panel]);
                    panel += 1;
                }
                query += 1;
            }
        }
        let mut panel = 0;
        while panel < PANELS {
            let rows = tile.first + first + panel * PANEL..;
            let (steps, squares) = (
                &tile.rows.steps[rows.clone()][..PANEL],
                &tile.rows.squares[rows.clone()][..PANEL],
            );
            let added = &tile.rows.sums[rows][..PANEL];
            // SAFETY: PANEL numbers each.
            let (steps, squares, added) = unsafe {
                (
                    _mm512_loadu_ps(steps.as_ptr()),
                    _mm512_loadu_ps(squares.as_ptr()),
                    _mm512_loadu_si512(added.as_ptr().cast()),
                )
            };
            for (query, least) in least.iter_mut().enumerate() {
                // Queries have 128 added.
                let product = _mm512_cvtepi32_ps(_mm512_sub_epi32(added, sums[query][panel]));
                let scale = _mm512_mul_ps(steps, _mm512_set1_ps(2.0 * tile.steps[query]));
                let key = _mm512_fmadd_ps(product, scale, squares);
                *least = _mm512_min_ps(*least, key);
            }
            panel += 1;
        }
    }
    for (keys, least) in keys.iter_mut().zip(least) {
        // SAFETY: sixteen numbers.
        unsafe { _mm512_storeu_ps(keys.as_mut_ptr(), least) };
    }
}
