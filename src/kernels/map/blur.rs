//! Gaussian smoothing of maps, as scipy's `ndimage.gaussian_filter`: cut off at four deviations, mirrored at borders.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result as CandleResult, Shape, Tensor};
use rayon::prelude::*;

use crate::kernels::shape::expect_f32;
use crate::kernels::simd::simd_fn;
use crate::{Error, Result};

/// Deviations after which the Gaussian is cut off.
const CUT: f64 = 4.0;

/// `maps [B, H, W]` smoothed with a Gaussian of `sigma` pixels; where they are not on the CPU they go there and back.
///
/// # Errors
/// When `maps` has another shape or type, or `sigma` is not a positive number.
pub fn gaussian_blur(maps: &Tensor, sigma: f32) -> Result<Tensor> {
    maps.dims3()?;
    expect_f32("maps to smooth", maps, maps.dims())?;
    if !(sigma > 0.0 && sigma.is_finite()) {
        return Err(Error::Invalid(format!(
            "cannot smooth with a deviation of {sigma}"
        )));
    }
    let blur = Blur {
        weights: weights(f64::from(sigma)),
    };
    let on_cpu = maps.to_device(&Device::Cpu)?.contiguous()?;
    Ok(on_cpu.apply_op1_no_bwd(&blur)?.to_device(maps.device())?)
}

/// From the middle outwards; with both sides they sum to 1.
fn weights(sigma: f64) -> Vec<f32> {
    let radius = (CUT * sigma + 0.5) as usize;
    let weight = |offset: usize| (-0.5 * (offset as f64 / sigma).powi(2)).exp();
    let total = weight(0) + 2.0 * (1..=radius).map(weight).sum::<f64>();
    (0..=radius)
        .map(|offset| (weight(offset) / total) as f32)
        .collect()
}

struct Blur {
    weights: Vec<f32>,
}

impl CustomOp1 for Blur {
    fn name(&self) -> &'static str {
        "gaussian-blur"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (batch, height, width) = layout.shape().dims3()?;
        let (start, area) = (layout.start_offset(), height * width);
        let from = &storage.as_slice::<f32>()?[start..start + batch * area];
        let mut to = vec![0f32; batch * area];
        if area > 0 {
            to.par_chunks_exact_mut(area)
                .zip(from.par_chunks_exact(area))
                .for_each(|(to, from)| blur(from, to, width, &self.weights));
        }
        Ok((CpuStorage::F32(to), layout.shape().clone()))
    }
}

simd_fn! {
    /// Down the columns, then along the rows: both over whole rows of neighbours at once.
    fn blur(from: &[f32], to: &mut [f32], width: usize, weights: &[f32]) {
        let (height, radius) = (from.len() / width, weights.len() - 1);
        let row = |at: isize| {
            let at = mirrored(at, height) * width;
            &from[at..at + width]
        };
        // A line with its mirrored ends.
        let mut line = vec![0f32; width + 2 * radius];
        for (y, to) in to.chunks_exact_mut(width).enumerate() {
            let middle = &mut line[radius..radius + width];
            for (sum, value) in middle.iter_mut().zip(row(y as isize)) {
                *sum = weights[0] * value;
            }
            for (offset, &weight) in weights.iter().enumerate().skip(1) {
                let (above, below) = (row(y as isize - offset as isize), row((y + offset) as isize));
                for ((sum, a), b) in middle.iter_mut().zip(above).zip(below) {
                    *sum += weight * (a + b);
                }
            }
            for x in 0..radius {
                line[x] = line[radius + mirrored(x as isize - radius as isize, width)];
                line[radius + width + x] = line[radius + mirrored((width + x) as isize, width)];
            }
            for (x, to) in to.iter_mut().enumerate() {
                *to = weights[0] * line[radius + x];
            }
            for (offset, &weight) in weights.iter().enumerate().skip(1) {
                let (left, right) = (&line[radius - offset..], &line[radius + offset..]);
                for ((to, a), b) in to.iter_mut().zip(left).zip(right) {
                    *to += weight * (a + b);
                }
            }
        }
    }
}

/// `d c b a | a b c d | d c b a`, as often as needed.
fn mirrored(at: isize, size: usize) -> usize {
    let period = 2 * size as isize;
    let within = at.rem_euclid(period) as usize;
    within.min(2 * size - 1 - within)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// `scipy.ndimage.gaussian_filter(numpy.arange(12.).reshape(3, 4) ** 2, 0.8)` of scipy 1.17.
    #[test]
    fn blurs_as_scipy_does() {
        let values: Vec<f32> = (0..12).map(|i| (i * i) as f32).collect();
        let map = Tensor::from_vec(values, (1, 3, 4), &Device::Cpu).unwrap();
        let blurred = gaussian_blur(&map, 0.8).unwrap();
        let found = blurred.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (found, expected) in found.iter().zip(SCIPY) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    const SCIPY: [f32; 12] = [
        6.50685, 9.4961, 14.6179, 19.4266, 26.7206, 33.8029, 44.3015, 53.2032, 54.9132, 66.0885,
        81.9639, 94.9586,
    ];

    #[test]
    fn keeps_what_is_flat_and_the_sum_and_bears_small_maps() {
        let flat = Tensor::full(3f32, (2, 5, 2), &Device::Cpu).unwrap();
        let blurred = gaussian_blur(&flat, 4.0).unwrap();
        let values = blurred.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().all(|v| (v - 3.0).abs() < 1e-5));
        let spike: Vec<f32> = (0..20).map(|i| if i == 7 { 1.0 } else { 0.0 }).collect();
        let spike = Tensor::from_vec(spike, (1, 4, 5), &Device::Cpu).unwrap();
        let sum = gaussian_blur(&spike, 1.3).unwrap().sum_all().unwrap();
        assert!((sum.to_scalar::<f32>().unwrap() - 1.0).abs() < 1e-5);
        assert!(gaussian_blur(&spike, 0.0).is_err());
        assert!(gaussian_blur(&spike, f32::NAN).is_err());
    }
}
