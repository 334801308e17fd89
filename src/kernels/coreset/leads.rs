//! Rows along their leading principal directions.

use nalgebra::DMatrix;

use super::CHUNK;
use crate::kernels::gemm::{MatRef, gemm_panels, pack_panels, panels_len};
use crate::kernels::parallel::{self, with_scratch, written};

/// Directions of a level: the second is looked at where the first does not decide.
pub(super) const LEVEL: usize = 16;
/// Directions kept.
pub(super) const DIRECTIONS: usize = 2 * LEVEL;
/// Rows side by side.
pub(super) const BLOCK: usize = 8;
/// More dimensions take too long to decompose.
const MOST_DIMS: usize = 1024;
/// Rows from which the directions are found.
const SAMPLE: usize = 4096;
/// Share of the variance that the first level must hold to be worth reading.
const SHARE: f64 = 0.4;

/// The rows' coordinates in blocks of [`BLOCK`] rows, each direction by direction.
pub(super) struct Leads {
    pub(super) values: Vec<f32>,
    /// Added to a squared bound for rounding; see [`Leads::limit`].
    error: f32,
}

impl Leads {
    /// Of `rows [N, dims]` whose norms are at most `largest`; none where they would decide little.
    pub(super) fn of(rows: &[f32], dims: usize, largest: f64) -> Option<Self> {
        let directions = directions(rows, dims)?;
        let len = rows.len() / dims;
        let mut panels = vec![0f32; panels_len(dims, DIRECTIONS)];
        pack_panels(
            MatRef::rows(&directions, DIRECTIONS),
            (dims, DIRECTIONS),
            &mut panels,
        );
        let task = |chunk: usize, to: &parallel::SharedMut| {
            let first = chunk * CHUNK;
            let count = CHUNK.min(len - first);
            let padded = count.next_multiple_of(BLOCK);
            // SAFETY: this chunk's blocks are this task's alone.
            let to = unsafe { to.slice(first * DIRECTIONS..(first + padded) * DIRECTIONS) };
            let sizes = (count, DIRECTIONS, dims);
            let lhs = MatRef::rows(&rows[first * dims..], dims);
            with_scratch(padded * DIRECTIONS, |room| {
                room[count * DIRECTIONS..].fill(0.0);
                // SAFETY: `count` rows of DIRECTIONS numbers.
                unsafe {
                    gemm_panels(sizes, room.as_mut_ptr(), DIRECTIONS, false, lhs, &panels);
                }
                let size = BLOCK * DIRECTIONS;
                for (from, to) in room.chunks_exact(size).zip(to.chunks_exact_mut(size)) {
                    for (i, to) in to.iter_mut().enumerate() {
                        *to = from[i % BLOCK * DIRECTIONS + i / BLOCK];
                    }
                }
            });
        };
        // SAFETY: the chunks, whole blocks but for the last, cover all rows.
        let values = unsafe {
            written(len.next_multiple_of(BLOCK) * DIRECTIONS, |to| {
                parallel::for_each(len.div_ceil(CHUNK), |chunk| task(chunk, to));
            })
        };
        // Each coordinate is a sum of `dims` products (Higham 2002, section 3.1); two rows differ.
        let rounding = (dims + 8) as f64 * f64::from(f32::EPSILON);
        let error = (DIRECTIONS as f64).sqrt() * rounding * largest;
        Some(Self {
            values,
            error: (1002.0 * error * error) as f32,
        })
    }

    /// A squared distance of coordinates that is at least so large proves that the rows are not nearer than
    /// `square`: `(d + e)^2 <= 1.001 d^2 + 1001 e^2`, and as much again for the sums.
    #[inline(always)]
    pub(super) fn limit(&self, square: f32) -> f32 {
        square * 1.002 + self.error
    }
}

/// The leading eigenvectors of the covariance, `[dims, DIRECTIONS]`.
fn directions(rows: &[f32], dims: usize) -> Option<Vec<f32>> {
    let len = rows.len() / dims;
    if dims <= DIRECTIONS || dims > MOST_DIMS || len < CHUNK {
        return None;
    }
    let count = len.min(SAMPLE);
    let sample = DMatrix::from_fn(dims, count, |dim, i| rows[i * len / count * dims + dim]);
    let mut sample = sample.map(f64::from);
    let mean = sample.column_mean();
    for mut column in sample.column_iter_mut() {
        column -= &mean;
    }
    let eigen = (&sample * sample.transpose()).symmetric_eigen();
    let mut order: Vec<usize> = (0..dims).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    let first: f64 = order[..LEVEL].iter().map(|i| eigen.eigenvalues[*i]).sum();
    if !(first > SHARE * eigen.eigenvalues.sum()) {
        return None;
    }
    let at = |i: usize| eigen.eigenvectors[(i / DIRECTIONS, order[i % DIRECTIONS])] as f32;
    Some((0..dims * DIRECTIONS).map(at).collect())
}
