//! Bilinear resampling of maps, as torch's `interpolate(mode="bilinear", align_corners=False)`.

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};

use crate::Result;
use crate::kernels::parallel::{self, SharedMut};
use crate::kernels::shape::expect_f32;
use crate::kernels::view::{Images, batch_strided};

/// Resamples `maps [B, h, w]` to `[B, height, width]`. Differentiable.
///
/// # Errors
/// When `maps` has another shape or type, or a size is zero.
pub fn upsample_bilinear(maps: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, rows, columns) = maps.dims3()?;
    expect_f32("maps to upsample", maps, maps.dims())?;
    if height * width * rows * columns == 0 {
        return Err(crate::Error::Invalid(format!(
            "cannot resample a {rows}x{columns} map to {height}x{width}"
        )));
    }
    let op = Upsample {
        rows: taps(rows, height),
        columns: taps(columns, width),
    };
    Ok(batch_strided(maps)?.apply_op1(op)?)
}

/// The two sources of one output coordinate and the second one's weight.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

/// Pixel centres are at half integers; beyond the outermost the border is repeated.
fn taps(input: usize, output: usize) -> Vec<Tap> {
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|i| {
            let source = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
            let first = (source as usize).min(input - 1);
            Tap {
                first,
                second: (first + 1).min(input - 1),
                weight: (source - first as f32).clamp(0.0, 1.0),
            }
        })
        .collect()
}

struct Upsample {
    rows: Vec<Tap>,
    columns: Vec<Tap>,
}

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "upsample-bilinear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let maps = Images::new(storage, layout).map_err(candle_core::Error::wrap)?;
        let (batch, _, input) = layout.shape().dims3()?;
        let (height, width) = (self.rows.len(), self.columns.len());
        let mut output = vec![0f32; batch * height * width];
        let shared = SharedMut::new(&mut output);
        parallel::for_each(batch * height, |row| {
            let (map, tap) = (maps.image(row / height), self.rows[row % height]);
            let upper = &map[tap.first * input..][..input];
            let lower = &map[tap.second * input..][..input];
            // SAFETY: each task has its own output row.
            let output = unsafe { shared.slice(row * width..(row + 1) * width) };
            for (value, column) in output.iter_mut().zip(&self.columns) {
                let blend = |row: &[f32]| {
                    (1.0 - column.weight) * row[column.first] + column.weight * row[column.second]
                };
                *value = (1.0 - tap.weight) * blend(upper) + tap.weight * blend(lower);
            }
        });
        Ok((CpuStorage::F32(output), Shape::from((batch, height, width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        maps: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let size = (self.rows.len(), self.columns.len());
        let output = super::cuda::upsample(maps, layout, size)?;
        Ok((output, Shape::from((layout.dims()[0], size.0, size.1))))
    }

    fn bwd(&self, maps: &Tensor, _: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        let (batch, rows, columns) = maps.dims3()?;
        let values = gradient.flatten_all()?.to_vec1::<f32>()?;
        let mut input = vec![0f32; batch * rows * columns];
        let (height, width) = (self.rows.len(), self.columns.len());
        for (map, values) in input
            .chunks_exact_mut(rows * columns)
            .zip(values.chunks_exact(height * width))
        {
            for (tap, values) in self.rows.iter().zip(values.chunks_exact(width)) {
                for (column, value) in self.columns.iter().zip(values) {
                    let upper = (1.0 - tap.weight) * value;
                    let lower = tap.weight * value;
                    map[tap.first * columns + column.first] += (1.0 - column.weight) * upper;
                    map[tap.first * columns + column.second] += column.weight * upper;
                    map[tap.second * columns + column.first] += (1.0 - column.weight) * lower;
                    map[tap.second * columns + column.second] += column.weight * lower;
                }
            }
        }
        Ok(Some(Tensor::from_vec(
            input,
            (batch, rows, columns),
            maps.device(),
        )?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor, Var};

    use super::upsample_bilinear;

    #[test]
    fn gradient_is_the_adjoint() {
        let x: Vec<f32> = (0..2 * 3 * 5).map(|i| (i as f32 * 0.9).cos()).collect();
        let x = Var::from_vec(x, (2, 3, 5), &Device::Cpu).unwrap();
        let w: Vec<f32> = (0..2 * 8 * 7).map(|i| (i as f32 * 0.3).sin()).collect();
        let w = Tensor::from_vec(w, (2, 8, 7), &Device::Cpu).unwrap();
        let loss = (upsample_bilinear(&x, 8, 7).unwrap() * &w)
            .unwrap()
            .sum_all()
            .unwrap();
        let gradient = loss.backward().unwrap().get(&x).unwrap().clone();
        let adjoint = (gradient * x.as_tensor()).unwrap().sum_all().unwrap();
        let (a, b) = (
            loss.to_scalar::<f32>().unwrap(),
            adjoint.to_scalar::<f32>().unwrap(),
        );
        assert!((a - b).abs() < 1e-4 && a.abs() > 0.1, "{a} {b}");
    }

    #[test]
    fn a_constant_map_stays_and_zero_sizes_fail() {
        let x = Tensor::full(2.5f32, (1, 3, 3), &Device::Cpu).unwrap();
        let y = upsample_bilinear(&x, 9, 2).unwrap().flatten_all().unwrap();
        assert!(
            y.to_vec1::<f32>()
                .unwrap()
                .iter()
                .all(|v| (v - 2.5).abs() < 1e-6)
        );
        assert!(upsample_bilinear(&x, 0, 4).is_err());
    }
}
