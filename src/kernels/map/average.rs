//! Local averages of feature maps.

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};
use rayon::prelude::*;

use crate::{Error, Result};

/// `maps [B, C, H, W]` averaged over squares of `side` x `side` positions (odd), as torch's `avg_pool2d(side, 1,
/// side / 2)`: beyond the border there are zeros, which count.
///
/// # Errors
/// When `maps` has another shape or type, or `side` is even.
pub fn local_average(maps: &Tensor, side: usize) -> Result<Tensor> {
    let (_, _, height, width) = maps.dims4()?;
    crate::kernels::shape::expect_f32("maps to average", maps, maps.dims())?;
    if side.is_multiple_of(2) {
        return Err(Error::Invalid(format!(
            "local averages need an odd side, not {side}"
        )));
    }
    if side == 1 || height * width == 0 {
        return Ok(maps.clone());
    }
    if maps.device().is_cpu() {
        return Ok(maps.contiguous()?.apply_op1_no_bwd(&Average { side })?);
    }
    let padded = maps.pad_with_zeros(2, side / 2, side / 2)?;
    let padded = padded.pad_with_zeros(3, side / 2, side / 2)?;
    // Sums of rows, then of columns, by operations that every device has.
    let summed = |map: &Tensor, dim: usize, size: usize| -> Result<Tensor> {
        let mut sum = map.narrow(dim, 0, size)?.contiguous()?;
        for shift in 1..side {
            sum = (sum + map.narrow(dim, shift, size)?.contiguous()?)?;
        }
        Ok(sum)
    };
    let sum = summed(&summed(&padded, 2, height)?, 3, width)?;
    Ok((sum / (side * side) as f64)?)
}

struct Average {
    side: usize,
}

impl CustomOp1 for Average {
    fn name(&self) -> &'static str {
        "local-average"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let start = layout.start_offset();
        let area = height * width;
        let len = batch * channels * area;
        let from = &storage.as_slice::<f32>()?[start..start + len];
        let mut to = vec![0f32; len];
        to.par_chunks_mut(area)
            .zip(from.par_chunks(area))
            .for_each(|(target, source)| average(source, target, (height, width), self.side));
        Ok((CpuStorage::F32(to), layout.shape().clone()))
    }
}

/// Sums of columns, row by row, then sums of these.
fn average(from: &[f32], to: &mut [f32], (height, width): (usize, usize), side: usize) {
    let reach = side / 2;
    let factor = 1.0 / (side * side) as f32;
    let mut columns = vec![0f32; width];
    for row in 0..height {
        columns.fill(0.0);
        for near in row.saturating_sub(reach)..(row + reach + 1).min(height) {
            let line = &from[near * width..(near + 1) * width];
            columns.iter_mut().zip(line).for_each(|(sum, v)| *sum += v);
        }
        for (column, to) in to[row * width..(row + 1) * width].iter_mut().enumerate() {
            let near = column.saturating_sub(reach)..(column + reach + 1).min(width);
            *to = columns[near].iter().sum::<f32>() * factor;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;

    use super::*;

    #[test]
    fn averages_count_the_zeros_beyond_the_border() {
        let (height, width) = (4, 5);
        let values: Vec<f32> = (0..2 * 3 * 20).map(|i| (i as f32 * 1.7).sin()).collect();
        let maps = Tensor::from_vec(values.clone(), (2, 3, height, width), &Device::Cpu).unwrap();
        for side in [1, 3, 5, 7] {
            let found = local_average(&maps, side).unwrap().flatten_all().unwrap();
            let found = found.to_vec1::<f32>().unwrap();
            for (index, found) in found.iter().enumerate() {
                let (plane, at) = (index / 20, index % 20);
                let (row, column) = ((at / width) as isize, (at % width) as isize);
                let reach = side as isize / 2;
                let mut sum = 0f64;
                for r in row - reach..=row + reach {
                    for c in column - reach..=column + reach {
                        if (0..height as isize).contains(&r) && (0..width as isize).contains(&c) {
                            sum += f64::from(values[plane * 20 + r as usize * width + c as usize]);
                        }
                    }
                }
                let expected = sum / (side * side) as f64;
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-6,
                    "{side} {index}"
                );
            }
        }
        assert!(local_average(&maps, 2).is_err());
    }
}
