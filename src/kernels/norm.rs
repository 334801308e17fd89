//! Feature norms before a flow: LayerNorm over channels, rows and columns, and per-channel standardising.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result as CandleResult, Shape, Tensor,
};

use super::parallel::{self, SharedMut};
use super::shape::expect_f32;
use super::simd::{lane_sum, simd_fn};
use super::view::{Images, batch_strided};
use crate::{Error, Result};

/// Values a task works on.
const SPAN: usize = 8192;

/// LayerNorm of each image over (C, H, W), without affine: `(x - mean) / sqrt(var + eps)`, biased variance
/// as in torch. Differentiable.
///
/// # Errors
/// When `x` is not f32 or has fewer than two dimensions.
pub fn layer_norm(x: &Tensor, eps: f32) -> Result<Tensor> {
    expect_batch(x)?;
    Ok(batch_strided(x)?.apply_op1(LayerNorm { eps })?)
}

/// [`layer_norm`] followed by `* weight + bias`, both `[C, H, W]`. Differentiable.
///
/// # Errors
/// When shapes or types do not fit.
pub fn layer_norm_affine(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let dims = x.dims().get(1..).unwrap_or_default();
    expect_f32("LayerNorm weight", weight, dims)?;
    expect_f32("LayerNorm bias", bias, dims)?;
    let normalised = layer_norm(x, eps)?;
    Ok(normalised.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// The gradient of [`layer_norm`]'s input, given that of its output.
///
/// # Errors
/// When shapes or types do not fit.
pub fn layer_norm_backward(x: &Tensor, dy: &Tensor, eps: f32) -> Result<Tensor> {
    expect_batch(x)?;
    expect_f32("gradient of LayerNorm's output", dy, x.dims())?;
    Ok(batch_strided(x)?.apply_op2_no_bwd(&batch_strided(dy)?, &LayerNormBackward { eps })?)
}

/// `(x - mean[c]) / std[c]` of `x [B, C, H, W]`. Differentiable in `x`; the statistics are constants.
///
/// # Errors
/// When shapes or types do not fit.
pub fn standardise(x: &Tensor, mean: &Tensor, std: &Tensor) -> Result<Tensor> {
    let (_, channels, _, _) = x.dims4()?;
    expect_f32("features", x, x.dims())?;
    expect_f32("feature means", mean, &[channels])?;
    expect_f32("feature deviations", std, &[channels])?;
    let statistics = Tensor::cat(&[mean, std], 0)?.detach();
    Ok(batch_strided(x)?.apply_op2(&statistics, Standardise)?)
}

fn expect_batch(x: &Tensor) -> Result<()> {
    if x.rank() < 2 {
        return Err(Error::Shape {
            what: "LayerNorm input".into(),
            expected: "[B, C, H, W]".into(),
            found: format!("{:?}", x.dims()),
        });
    }
    expect_f32("LayerNorm input", x, x.dims())
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp1 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm-chw"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = Images::new(storage, layout).map_err(candle_core::Error::wrap)?;
        let (batch, size) = batch_and_size(layout);
        let mut y = vec![0f32; batch * size];
        let shared = SharedMut::new(&mut y);
        for image in 0..batch {
            let x = x.image(image);
            let (mean, inverse) = moments(x, self.eps);
            for_each_span(size, |start, len| {
                // SAFETY: the spans of an image are disjoint, and images follow one another.
                let y = unsafe { shared.slice(image * size + start..image * size + start + len) };
                shift_scale(y, &x[start..start + len], mean, inverse);
            });
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let y = cuda::layer_norm(x, layout, self.eps)?;
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dx = layer_norm_backward(x, dy, self.eps).map_err(candle_core::Error::wrap)?;
        Ok(Some(dx))
    }
}

struct LayerNormBackward {
    eps: f32,
}

impl CustomOp2 for LayerNormBackward {
    fn name(&self) -> &'static str {
        "layer-norm-chw-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let x = Images::new(x, layout).map_err(candle_core::Error::wrap)?;
        let dy = Images::new(dy, dy_layout).map_err(candle_core::Error::wrap)?;
        let (batch, size) = batch_and_size(layout);
        let mut dx = vec![0f32; batch * size];
        for (image, dx) in dx.chunks_exact_mut(size.max(1)).enumerate() {
            let (x, dy) = (x.image(image), dy.image(image));
            let (mean, inverse) = moments(x, self.eps);
            let n = size as f64;
            let dy_mean = span_sum(size, |range| sum(&dy[range])) / n;
            let dot = span_sum(size, |range| {
                dot_centred(&x[range.clone()], &dy[range], mean)
            });
            let slope = (dot * f64::from(inverse) * f64::from(inverse) / n) as f32;
            backward_row(dx, x, dy, mean, inverse, dy_mean as f32, slope);
        }
        Ok((CpuStorage::F32(dx), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
        dy: &candle_core::CudaStorage,
        dy_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let dx = cuda::layer_norm_backward(x, layout, dy, dy_layout, self.eps)?;
        Ok((dx, layout.shape().clone()))
    }
}

struct Standardise;

impl CustomOp2 for Standardise {
    fn name(&self) -> &'static str {
        "standardise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        statistics: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let x = Images::new(x, layout).map_err(candle_core::Error::wrap)?;
        let (mean, std) = statistics.as_slice::<f32>()?.split_at(layout.dims()[1]);
        let (batch, size) = batch_and_size(layout);
        let positions = size / mean.len().max(1);
        let mut y = vec![0f32; batch * size];
        let shared = SharedMut::new(&mut y);
        parallel::for_each(batch * mean.len(), |row| {
            let (image, channel) = (row / mean.len(), row % mean.len());
            // SAFETY: each task has its own row of the output.
            let y = unsafe { shared.slice(row * positions..(row + 1) * positions) };
            let x = &x.image(image)[channel * positions..][..positions];
            shift_scale(y, x, mean[channel], 1.0 / std[channel]);
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
        statistics: &candle_core::CudaStorage,
        statistics_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let y = cuda::standardise(x, layout, statistics, statistics_layout)?;
        Ok((y, layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        statistics: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let channels = statistics.elem_count() / 2;
        let zero = statistics.narrow(0, 0, channels)?.zeros_like()?;
        let std = statistics.narrow(0, channels, channels)?;
        let dx = standardise(dy, &zero, &std).map_err(candle_core::Error::wrap)?;
        Ok((Some(dx.detach()), None))
    }
}

fn batch_and_size(layout: &Layout) -> (usize, usize) {
    let dims = layout.dims();
    (dims[0], dims[1..].iter().product())
}

/// Mean and 1 / sqrt(variance + eps), in two passes for accuracy.
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len().max(1) as f64;
    let mean = (span_sum(x.len(), |range| sum(&x[range])) / n) as f32;
    let variance = span_sum(x.len(), |range| squared_deviations(&x[range], mean)) / n;
    (mean, (1.0 / (variance + f64::from(eps)).sqrt()) as f32)
}

/// Runs `task(start, len)` on fixed spans of `0..size`.
fn for_each_span(size: usize, task: impl Fn(usize, usize) + Send + Sync) {
    parallel::for_each(size.div_ceil(SPAN), |index| {
        let start = index * SPAN;
        task(start, SPAN.min(size - start));
    });
}

/// The f64 sum of f32 sums over fixed spans, in their order.
fn span_sum(size: usize, sum: impl Fn(std::ops::Range<usize>) -> f32 + Send + Sync) -> f64 {
    let mut parts = vec![0f32; size.div_ceil(SPAN)];
    let shared = SharedMut::new(&mut parts);
    for_each_span(size, |start, len| {
        let index = start / SPAN;
        // SAFETY: each span has its own element.
        let part = unsafe { shared.slice(index..index + 1) };
        part[0] = sum(start..start + len);
    });
    parts.iter().map(|&part| f64::from(part)).sum()
}

simd_fn! {
    fn sum(values: &[f32]) -> f32 {
        lane_sum(values.len(), |i| values[i])
    }
}

simd_fn! {
    fn squared_deviations(x: &[f32], mean: f32) -> f32 {
        lane_sum(x.len(), |i| (x[i] - mean) * (x[i] - mean))
    }
}

simd_fn! {
    fn dot_centred(x: &[f32], dy: &[f32], mean: f32) -> f32 {
        let dy = &dy[..x.len()];
        lane_sum(x.len(), |i| (x[i] - mean) * dy[i])
    }
}

simd_fn! {
    fn shift_scale(y: &mut [f32], x: &[f32], mean: f32, factor: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = (x - mean) * factor;
        }
    }
}

simd_fn! {
    fn backward_row(dx: &mut [f32], x: &[f32], dy: &[f32], mean: f32, inverse: f32, dy_mean: f32, slope: f32) {
        let len = dx.len();
        let (x, dy) = (&x[..len], &dy[..len]);
        for i in 0..len {
            dx[i] = inverse * (dy[i] - dy_mean - (x[i] - mean) * slope);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor, Var};

    use super::{layer_norm, layer_norm_affine, standardise};

    fn features(dims: (usize, usize, usize, usize)) -> Vec<f32> {
        let len = dims.0 * dims.1 * dims.2 * dims.3;
        (0..len)
            .map(|i| (i as f32 * 0.37).sin() * 2.0 + (i % 7) as f32)
            .collect()
    }

    #[test]
    fn layer_norm_has_zero_mean_unit_variance_however_far_the_mean() {
        let dims = (2, 8, 40, 40);
        let x = Tensor::from_vec(features(dims), dims, &Device::Cpu).unwrap();
        let far = (x + 1000.0).unwrap();
        let y = layer_norm(&far, 1e-5).unwrap().flatten_from(1).unwrap();
        for row in y.to_vec2::<f32>().unwrap() {
            let n = row.len() as f64;
            let mean: f64 = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let square: f64 = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
            assert!(
                mean.abs() < 1e-4 && (square - 1.0).abs() < 1e-4,
                "{mean} {square}"
            );
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let dims = (2, 3, 2, 2);
        let cpu = &Device::Cpu;
        let weight = Tensor::from_vec(features((1, 3, 2, 2)), (3, 2, 2), cpu).unwrap();
        let bias = weight.affine(0.3, 0.1).unwrap();
        let mean = Tensor::new(&[0.5f32, -1.0, 2.0], cpu).unwrap();
        let std = Tensor::new(&[0.5f32, 2.0, 1.5], cpu).unwrap();
        let loss = |x: &Tensor| {
            let y = standardise(x, &mean, &std).unwrap();
            let y = layer_norm_affine(&y, &weight, &bias, 1e-5).unwrap();
            (y.powf(3.0).unwrap() * 0.1).unwrap().sum_all().unwrap()
        };
        let values = features(dims);
        let x = Var::from_vec(values.clone(), dims, cpu).unwrap();
        let gradient = loss(&x).backward().unwrap().get(&x).unwrap().clone();
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let at = |i: usize, step: f32| {
            let mut values = values.clone();
            values[i] += step;
            let x = Tensor::from_vec(values, dims, cpu).unwrap();
            loss(&x).to_scalar::<f32>().unwrap()
        };
        for (i, gradient) in gradient.iter().enumerate() {
            let numeric = (at(i, 1e-2) - at(i, -1e-2)) / 2e-2;
            assert!(
                (gradient - numeric).abs() < 0.02 * (1.0 + numeric.abs()),
                "{i}: {gradient} {numeric}"
            );
        }
    }
}
