//! From maps to one score an image, without leaving the device.

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};

use crate::kernels::shape::expect_f32;
use crate::{Error, Result};

/// Mean of the `k` largest values of each of `maps [B, H, W]`: `[B]`; with `k` 1 the largest.
///
/// # Errors
/// When `maps` has another shape or type, or `k` is not 1 to `H * W`.
pub fn image_scores(maps: &Tensor, k: usize) -> Result<Tensor> {
    let (_, height, width) = maps.dims3()?;
    expect_f32("maps to score", maps, maps.dims())?;
    if !(1..=height * width).contains(&k) {
        return Err(Error::Invalid(format!(
            "cannot take the {k} largest of {height}x{width} values"
        )));
    }
    Ok(maps.contiguous()?.apply_op1_no_bwd(&Scores { k })?)
}

/// Mean of the `k` (1 to all of them) largest of `values`. NaN counts as larger than any number, so that a
/// damaged map is not scored by its sound half.
pub fn top_mean(values: &[f32], k: usize) -> f32 {
    if k <= 1 {
        let largest = values.iter().copied().max_by(f32::total_cmp);
        return largest.unwrap_or(f32::NEG_INFINITY);
    }
    let (mut sorted, k) = (values.to_vec(), k.min(values.len()));
    if k < sorted.len() {
        sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    }
    let sum: f64 = sorted[..k].iter().map(|&value| f64::from(value)).sum();
    (sum / k as f64) as f32
}

struct Scores {
    k: usize,
}

impl CustomOp1 for Scores {
    fn name(&self) -> &'static str {
        "image-scores"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (batch, height, width) = layout.shape().dims3()?;
        let start = layout.start_offset();
        let values = &storage.as_slice::<f32>()?[start..start + batch * height * width];
        let maps = values.chunks_exact(height * width);
        let scores: Vec<f32> = maps.map(|map| top_mean(map, self.k)).collect();
        Ok((CpuStorage::F32(scores), Shape::from(batch)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        maps: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let scores = super::cuda::image_scores(maps, layout, self.k)?;
        Ok((scores, Shape::from(layout.dims()[0])))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};

    use super::image_scores;

    #[test]
    fn the_largest_values_are_averaged_image_by_image() {
        let maps = Tensor::new(
            &[[[1f32, 4.0], [3.0, 2.0]], [[-1.0, -4.0], [-3.0, -2.0]]],
            &Device::Cpu,
        )
        .unwrap();
        let scores = |k| image_scores(&maps, k).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(scores(1), [4.0, -1.0]);
        assert_eq!(scores(3), [3.0, -2.0]);
        assert!(image_scores(&maps, 0).is_err() && image_scores(&maps, 5).is_err());
    }
}
