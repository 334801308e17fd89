//! The ResNet stem's max-pool.

use candle_core::{DType, Tensor};

use crate::kernels::parallel::{SharedMut, for_each};
use crate::kernels::simd::simd_fn;
use crate::kernels::view::{Host, batch_strided};
use crate::{Error, Result};

/// Max-pool 3x3 with stride 2 and padding 1 (the padding never wins), without a backward.
///
/// `x` is f32 `[B, C, H, W]`; the result `[B, C, ceil(H/2), ceil(W/2)]`.
///
/// # Errors
/// If `x` is not a four-dimensional, non-empty f32 tensor.
pub fn max_pool_3x3_s2_p1(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if x.dtype() != DType::F32 || height == 0 || width == 0 {
        return Err(Error::Shape {
            what: "max-pool".into(),
            expected: "f32 [batch, channels, height, width]".into(),
            found: format!("{:?} {:?}", x.dtype(), x.dims()),
        });
    }
    let (out_h, out_w) = (height.div_ceil(2), width.div_ceil(2));
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::max_pool(x);
    }
    if !x.device().is_cpu() {
        // Shifted so that no value is below the padding's zeros.
        let low = x.min_all()?.to_scalar::<f32>()?;
        let x = (x - f64::from(low))?
            .pad_with_zeros(2, 1, 1)?
            .pad_with_zeros(3, 1, 1)?;
        return Ok((x.max_pool2d_with_stride(3, 2)? + f64::from(low))?);
    }
    let x = batch_strided(x)?;
    let host = Host::open(&x);
    let images = host.images()?;
    let mut out = vec![0f32; batch * channels * out_h * out_w];
    let shared = SharedMut::new(&mut out);
    for_each(batch * channels, |task| {
        let (image, channel) = (task / channels, task % channels);
        let plane = &images.image(image)[channel * height * width..][..height * width];
        // SAFETY: one plane a task.
        let target = unsafe { shared.slice(task * out_h * out_w..(task + 1) * out_h * out_w) };
        pool_plane(plane, height, width, target, out_w);
    });
    Ok(Tensor::from_vec(
        out,
        (batch, channels, out_h, out_w),
        &candle_core::Device::Cpu,
    )?)
}

simd_fn! {
    /// One plane: the largest of each column's three rows, then of each three columns.
    fn pool_plane(plane: &[f32], height: usize, width: usize, target: &mut [f32], out_w: usize) {
        // Padding on both sides, so that output column c looks at 2c, 2c + 1 and 2c + 2.
        let mut columns = vec![f32::NEG_INFINITY; 2 * out_w + 1];
        for (row, target) in target.chunks_exact_mut(out_w).enumerate() {
            let middle = &plane[2 * row * width..][..width];
            let above = &plane[(2 * row).saturating_sub(1) * width..][..width];
            let below = &plane[(2 * row + 1).min(height - 1) * width..][..width];
            let rows = above.iter().zip(middle).zip(below);
            for (max, ((&a, &b), &c)) in columns[1..=width].iter_mut().zip(rows) {
                *max = larger(larger(a, b), c);
            }
            let pairs = columns.chunks_exact(2).zip(columns[2..].iter().step_by(2));
            for (value, (pair, &next)) in target.iter_mut().zip(pairs) {
                *value = larger(larger(pair[0], pair[1]), next);
            }
        }
    }
}

/// The larger of two, or NaN if one is.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    #[test]
    fn takes_the_largest_of_each_window() {
        for (height, width) in [(1, 1), (4, 6), (5, 7), (2, 9)] {
            let value =
                |c: usize, y: usize, x: usize| -1.0 - ((c * 31 + y * 17 + x * 29) % 23) as f32;
            let values: Vec<f32> = (0..2 * height * width)
                .map(|i| value(i / (height * width), i / width % height, i % width))
                .collect();
            let x = Tensor::from_vec(values, (1, 2, height, width), &Device::Cpu).unwrap();
            let pooled = max_pool_3x3_s2_p1(&x).unwrap();
            assert_eq!(pooled.dims(), [1, 2, height.div_ceil(2), width.div_ceil(2)]);
            let pooled = pooled.squeeze(0).unwrap().to_vec3::<f32>().unwrap();
            for (c, plane) in pooled.iter().enumerate() {
                for (y, row) in plane.iter().enumerate() {
                    for (x, &found) in row.iter().enumerate() {
                        let expected = ((2 * y).max(1) - 1..height.min(2 * y + 2))
                            .flat_map(|r| {
                                ((2 * x).max(1) - 1..width.min(2 * x + 2)).map(move |k| (r, k))
                            })
                            .map(|(r, k)| value(c, r, k))
                            .fold(f32::NEG_INFINITY, f32::max);
                        assert_eq!(found, expected, "{height}x{width} at {c},{y},{x}");
                    }
                }
            }
        }
    }
}
