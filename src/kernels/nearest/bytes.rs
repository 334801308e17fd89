//! The filter in bytes, for processors with AVX-512's VNNI: four times the products of f32 a cycle.
//!
//! Rows and queries are `mean + step * bytes`, each with a step of its own, and residues whose norms are known: distances
//! of what the bytes say are off by at most the sum of two such norms.

use std::arch::x86_64::*;
use std::ops::Range;

use super::filter::{Bound, CHUNK, Filter, GROUPS, square_norm};

/// Rows side by side, one a lane.
const PANEL: usize = GROUPS;
/// Channels of a lane's 32 bits.
const DEEP: usize = 4;
/// Queries and panels at a time: 24 sums in 32 registers.
const QUERIES: usize = 6;
const PANELS: usize = 4;
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
    /// Of [`PANEL`] rows each, by steps of [`DEEP`] channels; whole chunks.
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

/// Queries as bytes, 128 added.
pub(super) struct Queries {
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
        for (index, row) in rows.chunks_exact(channels).enumerate() {
            this.put(index, row);
        }
        Some(this)
    }

    fn put(&mut self, index: usize, row: &[f32]) {
        let coded = self.code(row);
        let start = index / PANEL * PANEL * coded.bytes.len();
        for (step, bytes) in coded.bytes.chunks_exact(DEEP).enumerate() {
            let at = start + (step * PANEL + index % PANEL) * DEEP;
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
        let gaps = vector.iter().zip(&self.mean);
        let widest = gaps.fold(0f32, |widest, (x, mean)| widest.max((x - mean).abs()));
        let step = (widest / 127.0).max(f32::MIN_POSITIVE);
        let mut bytes = vec![0i8; self.deep()];
        let residue = encode(vector, &self.mean, step, &mut bytes);
        let square: i32 = bytes.iter().map(|x| i32::from(*x) * i32::from(*x)).sum();
        Coded {
            bytes,
            step,
            square: f64::from(square) * f64::from(step).powi(2),
            residue: residue.sqrt() * (1.0 + 1e-9),
        }
    }

    fn bound_of(&self, query: &[f32], coded: &Coded) -> Option<Bound> {
        square_norm(query)?;
        // A key is a square and a product, each rounded a few times.
        let key = self.largest + 2.0 * (coded.square * self.largest).sqrt();
        Some(Bound {
            base: coded.square,
            scale: 1.0,
            error: 4.0 * key * f64::from(f32::EPSILON),
            blur: coded.residue + self.residue,
        })
    }
}

/// `vector - mean` in bytes; returns the square of what is left.
fn encode(vector: &[f32], mean: &[f32], step: f32, bytes: &mut [i8]) -> f64 {
    let step = f64::from(step);
    let mut left = 0f64;
    for ((byte, x), mean) in bytes.iter_mut().zip(vector).zip(mean) {
        let x = f64::from(*x) - f64::from(*mean);
        *byte = (x / step).round() as i8;
        left += (x - step * f64::from(*byte)).powi(2);
    }
    left
}

impl Filter for Bytes {
    type Queries = Queries;

    fn prepare(&self, queries: &[f32]) -> Queries {
        let count = queries.len() / self.channels;
        let mut all = Queries {
            bytes: Vec::with_capacity(count * self.deep()),
            steps: Vec::with_capacity(count),
            bounds: Vec::with_capacity(count),
        };
        for query in queries.chunks_exact(self.channels) {
            let coded = self.code(query);
            all.bytes
                .extend(coded.bytes.iter().map(|x| (*x as u8) ^ 0x80));
            all.steps.push(coded.step);
            all.bounds.push(self.bound_of(query, &coded));
        }
        all
    }

    fn blocks(&self, queries: &Queries) -> Vec<Range<usize>> {
        let count = queries.bounds.len();
        let block = |first: usize| first..count.min(first + BLOCK);
        (0..count).step_by(BLOCK).map(block).collect()
    }

    fn keys<'k>(
        &self,
        queries: &Queries,
        block: Range<usize>,
        chunk: usize,
        of: impl Fn(usize) -> &'k mut [f32],
    ) {
        let deep = self.deep();
        let panels = &self.panels[chunk * CHUNK * deep..][..CHUNK * deep];
        for first in block.clone().step_by(QUERIES) {
            let count = QUERIES.min(block.end - first);
            let tile = Tile {
                queries: &queries.bytes[first * deep..(first + count) * deep],
                steps: &queries.steps[first..first + count],
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
                of(first + i).copy_from_slice(keys);
            }
        }
    }

    fn bound(&self, queries: &Queries, query: usize) -> Option<Bound> {
        queries.bounds[query]
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
    for first in (0..CHUNK).step_by(PANEL * PANELS) {
        let mut sums = [[_mm512_setzero_si512(); PANELS]; N];
        let panels = &tile.panels[first * deep..][..PANELS * PANEL * deep];
        for step in 0..deep / DEEP {
            let mut right = [_mm512_setzero_si512(); PANELS];
            for (panel, right) in right.iter_mut().enumerate() {
                let at = (panel * deep + step * DEEP) * PANEL;
                // SAFETY: a step of one of these panels.
                *right = unsafe { _mm512_loadu_si512(panels.as_ptr().add(at).cast()) };
            }
            for (query, sums) in sums.iter_mut().enumerate() {
                // SAFETY: a step of one of N queries of `deep` bytes.
                let left = unsafe {
                    let at = tile.queries.as_ptr().add(query * deep + step * DEEP);
                    _mm512_set1_epi32(at.cast::<i32>().read_unaligned())
                };
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm512_dpbusd_epi32(*sum, left, right);
                }
            }
        }
        for panel in 0..PANELS {
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
        }
    }
    for (keys, least) in keys.iter_mut().zip(least) {
        // SAFETY: sixteen numbers.
        unsafe { _mm512_storeu_ps(keys.as_mut_ptr(), least) };
    }
}
