//! The same search by candle's operations, for devices without a kernel of ours.

use candle_core::{D, Tensor};

use crate::Result;

/// Distances in memory at a time: 256 MB.
const DISTANCES: usize = 1 << 26;

/// As [`super::Memory::k_nearest`]; `norms [N]` are the squared norms of `rows`.
pub(super) fn k_nearest(
    rows: &Tensor,
    norms: &Tensor,
    queries: &Tensor,
    k: usize,
) -> Result<(Vec<f32>, Vec<u32>)> {
    let (count, len) = (queries.dim(0)?, rows.dim(0)?);
    let turned = rows.t()?;
    let (mut squares, mut indices) = (Vec::new(), Vec::new());
    let size = (DISTANCES / len).max(1);
    for first in (0..count).step_by(size) {
        let queries = queries
            .narrow(0, first, size.min(count - first))?
            .contiguous()?;
        // What is the same for all rows of a query changes no order.
        let keys = (queries.matmul(&turned)? * -2.0)?.broadcast_add(norms)?;
        let near = if k == 1 {
            keys.argmin(D::Minus1)?
        } else {
            least(&keys, k)?
        };
        squares.extend(direct(rows, &queries, &near, k)?);
        indices.extend(near.flatten_all()?.to_vec1::<u32>()?);
    }
    if k > 1 {
        sort(&mut squares, &mut indices, k);
    }
    Ok((squares, indices))
}

/// The columns of the `k` least of each row of `keys`: `[Q, k]`.
fn least(keys: &Tensor, k: usize) -> Result<Tensor> {
    let mut found = Vec::new();
    for keys in keys.to_vec2::<f32>()? {
        let mut order: Vec<u32> = (0..keys.len() as u32).collect();
        let by_key = |a: &u32, b: &u32| {
            let key = |i: &u32| keys[*i as usize];
            key(a).total_cmp(&key(b)).then(a.cmp(b))
        };
        order.select_nth_unstable_by(k - 1, by_key);
        found.extend_from_slice(&order[..k]);
    }
    let count = found.len() / k;
    Ok(Tensor::from_vec(found, (count, k), keys.device())?)
}

/// Squared distances by differences; NaN where a query is not finite.
fn direct(rows: &Tensor, queries: &Tensor, near: &Tensor, k: usize) -> Result<Vec<f32>> {
    let (count, channels) = queries.dims2()?;
    let rows = rows.index_select(&near.flatten_all()?, 0)?;
    let gaps = rows
        .reshape((count, k, channels))?
        .broadcast_sub(&queries.unsqueeze(1)?)?;
    let squares = gaps.sqr()?.sum(2)?.flatten_all()?;
    Ok((&squares + (&squares * 0.0)?)?.to_vec1()?)
}

/// Ascending within each `k`.
fn sort(squares: &mut [f32], indices: &mut [u32], k: usize) {
    for (squares, indices) in squares.chunks_exact_mut(k).zip(indices.chunks_exact_mut(k)) {
        let mut both: Vec<(f32, u32)> = squares
            .iter()
            .copied()
            .zip(indices.iter().copied())
            .collect();
        both.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (i, (square, index)) in both.into_iter().enumerate() {
            (squares[i], indices[i]) = (square, index);
        }
    }
}
