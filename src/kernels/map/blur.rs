//! Gaussian smoothing of maps, as scipy's `ndimage.gaussian_filter`: cut off at four deviations, mirrored at borders.

use candle_core::{Device, Tensor};

use crate::kernels::shape::expect_f32;
use crate::{Error, Result};

/// Deviations after which the Gaussian is cut off.
const CUT: f64 = 4.0;

/// `maps [B, H, W]` smoothed with a Gaussian of `sigma` pixels. A row of the product with a banded matrix is a row of
/// the convolution: on any device two products.
///
/// # Errors
/// When `maps` has another shape or type, or `sigma` is not a positive number.
pub fn gaussian_blur(maps: &Tensor, sigma: f32) -> Result<Tensor> {
    let (_, height, width) = maps.dims3()?;
    expect_f32("maps to smooth", maps, maps.dims())?;
    if !(sigma > 0.0 && sigma.is_finite()) {
        return Err(Error::Invalid(format!(
            "cannot smooth with a deviation of {sigma}"
        )));
    }
    let rows = band(height, sigma, maps.device())?;
    let columns = band(width, sigma, maps.device())?.t()?;
    let across = maps.contiguous()?.broadcast_matmul(&columns)?;
    Ok(rows.broadcast_matmul(&across)?)
}

/// The convolution of a line of `size` values as a matrix `[size, size]`.
fn band(size: usize, sigma: f32, device: &Device) -> Result<Tensor> {
    let sigma = f64::from(sigma);
    let radius = (CUT * sigma + 0.5) as usize;
    let weight = |offset: usize| (-0.5 * (offset as f64 / sigma).powi(2)).exp();
    let total = weight(0) + 2.0 * (1..=radius).map(weight).sum::<f64>();
    let mut matrix = vec![0f64; size * size];
    for row in 0..size {
        for step in 0..=2 * radius {
            let offset = step as isize - radius as isize;
            let column = mirrored(row as isize + offset, size);
            matrix[row * size + column] += weight(offset.unsigned_abs()) / total;
        }
    }
    let matrix: Vec<f32> = matrix.into_iter().map(|value| value as f32).collect();
    Ok(Tensor::from_vec(matrix, (size, size), device)?)
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
