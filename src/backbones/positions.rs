//! Position embeddings for another grid of patches: bicubic with antialias, as timm and torch resample them.

use candle_core::Tensor;

use crate::Result;

/// Resamples `[1, H W, D]` from the grid `from` to the grid `to` (rows, columns).
///
/// # Errors
/// When the tensor does not hold that grid.
pub(super) fn resample(
    positions: &Tensor,
    from: (usize, usize),
    to: (usize, usize),
) -> Result<Tensor> {
    let (width, device) = (positions.dim(2)?, positions.device());
    let rows = Tensor::from_vec(weights(from.0, to.0), (to.0, from.0), device)?;
    let columns = Tensor::from_vec(weights(from.1, to.1), (to.1, from.1), device)?;
    let grid = positions.reshape((from.0, from.1, width))?;
    let grid = columns.broadcast_matmul(&grid)?;
    let grid = rows.matmul(&grid.reshape((from.0, to.1 * width))?)?;
    Ok(grid.reshape((1, to.0 * to.1, width))?)
}

/// The weight of each of `from` old samples in each of `to` new ones, `[to, from]`.
fn weights(from: usize, to: usize) -> Vec<f32> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let mut matrix = vec![0f32; from * to];
    for (new, row) in matrix.chunks_exact_mut(from).enumerate() {
        let centre = scale * (new as f64 + 0.5);
        let taps: Vec<f64> = (0..from)
            .map(|old| cubic((old as f64 + 0.5 - centre) / stretch))
            .collect();
        let sum: f64 = taps.iter().sum();
        for (weight, tap) in row.iter_mut().zip(taps) {
            *weight = (tap / sum) as f32;
        }
    }
    matrix
}

/// Keys' cubic convolution with a = -0.5, zero beyond 2.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
