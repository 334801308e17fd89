//! Greedy k-centre selection: PatchCore's coreset (Roth et al. 2021, algorithm 1; Gonzalez 1985).
//!
//! A round takes the row that is farthest from the rows taken so far. The plain rule measures all rows against the
//! newest centre; here two bounds, both with room for rounding, leave out the rows whose distance cannot have become
//! less, so that the result is the plain rule's:
//! - the triangle inequality: `|c - new| >= 2 |x - c|` for x's own centre c (Elkan 2003, lemma 1);
//! - `|V^T (x - new)| >= |x - c|` for the leading principal directions V, which hold most of the distance.

mod leads;
mod rounds;
#[cfg(test)]
mod tests;

use candle_core::{Device, Tensor};

use self::rounds::Rounds;
use super::{shape::expect_f32, view::Host};
use crate::{Error, Result};

/// Rows of a task.
const CHUNK: usize = 1024;

/// `count` of `rows [N, D]`, f32: `start`, then each time the row farthest from those before it; of equally far ones
/// the first, and none twice. Computed on the CPU.
///
/// # Errors
/// When a row is not finite, `start` is not a row, or there are not `count` rows.
pub fn greedy_k_centre(rows: &Tensor, count: usize, start: usize) -> Result<Vec<u32>> {
    Ok(greedy_k_centre_with(rows, count, start, &mut |_| true)?.unwrap_or_default())
}

/// [`greedy_k_centre`] that tells now and then how many rows are taken, and ends without a result where `tell` answers
/// false.
///
/// # Errors
/// As there.
pub fn greedy_k_centre_with(
    rows: &Tensor,
    count: usize,
    start: usize,
    tell: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Vec<u32>>> {
    let (len, dims) = rows.dims2()?;
    expect_f32("vectors", rows, &[len, dims])?;
    if dims == 0 || start >= len || count == 0 || count > len || u32::try_from(len).is_err() {
        return Err(Error::Invalid(format!(
            "{count} centres from row {start} on of {len} vectors of {dims} dimensions: ask for 1 to {len}"
        )));
    }
    let rows = rows.to_device(&Device::Cpu)?.contiguous()?;
    let host = Host::open(&rows);
    let rows = host.values()?;
    let largest = largest_norm(rows, dims)?;
    Ok(Rounds::new(rows, dims, largest, start).run(count, tell))
}

/// The largest norm.
fn largest_norm(rows: &[f32], dims: usize) -> Result<f64> {
    let mut largest = 0f64;
    for (index, row) in rows.chunks_exact(dims).enumerate() {
        let square: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
        // Four times as much must fit a distance.
        if !(square < f64::from(f32::MAX) / 8.0) {
            return Err(Error::Invalid(format!(
                "vector {index} is not finite, or too large"
            )));
        }
        largest = largest.max(square);
    }
    Ok(largest.sqrt())
}
