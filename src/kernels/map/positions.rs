//! Statistics over the channels at each position.

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};

use crate::Result;
use crate::kernels::elementary::exp;
use crate::kernels::grid::Grid;
use crate::kernels::parallel::SharedMut;
use crate::kernels::shape::expect_f32;
use crate::kernels::simd::simd_fn;
use crate::kernels::view::{Images, batch_strided};

/// Positions a task works on.
const SPAN: usize = 1024;

/// `0.5 mean_c z^2` of `z [B, C, H, W]` -> `[B, H, W]`: the negative log-likelihood of a standard normal per
/// channel, without its constant. Differentiable.
///
/// # Errors
/// When `z` has another shape or type.
pub fn negative_log_likelihood(z: &Tensor) -> Result<Tensor> {
    apply(z, Term::Square)
}

/// `-mean_c exp(-0.5 z_c^2)` of `z [B, C, H, W]` -> `[B, H, W]`, between -1 and 0. Differentiable.
///
/// # Errors
/// When `z` has another shape or type.
pub fn probability(z: &Tensor) -> Result<Tensor> {
    apply(z, Term::Density)
}

fn apply(z: &Tensor, term: Term) -> Result<Tensor> {
    z.dims4()?;
    expect_f32("latents", z, z.dims())?;
    Ok(batch_strided(z)?.apply_op1(term)?)
}

#[derive(Clone, Copy)]
enum Term {
    Square,
    Density,
}

impl CustomOp1 for Term {
    fn name(&self) -> &'static str {
        match self {
            Term::Square => "map-nll",
            Term::Density => "map-prob",
        }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let z = Images::new(storage, layout).map_err(candle_core::Error::wrap)?;
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let positions = height * width;
        let mut map = vec![0f32; batch * positions];
        let shared = SharedMut::new(&mut map);
        Grid::new(batch, positions, SPAN).for_each(|_, span| {
            let start = span.image * positions + span.start;
            // SAFETY: spans are disjoint and follow one another in the output.
            let map = unsafe { shared.slice(start..start + span.len) };
            for channel in z.image(span.image).chunks_exact(positions) {
                let row = &channel[span.start..][..span.len];
                match self {
                    Term::Square => add_squares(map, row),
                    Term::Density => add_densities(map, row),
                }
            }
            let factor = match self {
                Term::Square => 0.5,
                Term::Density => -1.0,
            };
            for value in map {
                *value *= factor / channels as f32;
            }
        });
        Ok((CpuStorage::F32(map), Shape::from((batch, height, width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        z: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let statistic = match self {
            Term::Square => super::Statistic::Nll,
            Term::Density => super::Statistic::Probability,
        };
        let (batch, _, height, width) = layout.shape().dims4()?;
        let map = super::cuda::position_map(z, layout, statistic)?;
        Ok((map, Shape::from((batch, height, width))))
    }

    fn bwd(&self, z: &Tensor, _: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        let channels = z.dim(1)? as f64;
        let slope = match self {
            Term::Square => z.detach(),
            Term::Density => (z.detach() * (z.detach().sqr()? * -0.5)?.exp()?)?,
        };
        let gradient = (gradient.unsqueeze(1)? * (1.0 / channels))?;
        Ok(Some(slope.broadcast_mul(&gradient)?))
    }
}

simd_fn! {
    fn add_squares(map: &mut [f32], z: &[f32]) {
        for (sum, z) in map.iter_mut().zip(z) {
            *sum += z * z;
        }
    }
}

simd_fn! {
    fn add_densities(map: &mut [f32], z: &[f32]) {
        for (sum, z) in map.iter_mut().zip(z) {
            *sum += exp(-0.5 * z * z);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor, Var};

    use super::{negative_log_likelihood, probability};

    fn latents() -> Var {
        let values: Vec<f32> = (0..2 * 5 * 3 * 4)
            .map(|i| (i as f32 * 0.7).sin() * 3.0)
            .collect();
        Var::from_vec(values, (2, 5, 3, 4), &Device::Cpu).unwrap()
    }

    fn close(a: &Tensor, b: &Tensor) {
        let error = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        let error = error.max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-6, "{error}");
    }

    #[test]
    fn maps_and_gradients_agree_with_plain_candle() {
        let z = latents();
        let weights = Tensor::arange(0f32, 24.0, &Device::Cpu)
            .unwrap()
            .reshape((2, 3, 4))
            .unwrap();
        let halves = (z.sqr().unwrap() * 0.5).unwrap();
        let plain_nll = halves.mean(1).unwrap();
        let plain_prob = halves
            .neg()
            .unwrap()
            .exp()
            .unwrap()
            .mean(1)
            .unwrap()
            .neg()
            .unwrap();
        for (ours, plain) in [
            (negative_log_likelihood(&z).unwrap(), plain_nll),
            (probability(&z).unwrap(), plain_prob),
        ] {
            close(&ours, &plain);
            let gradient = |map: &Tensor| {
                let loss = (map * &weights).unwrap().sum_all().unwrap();
                (loss.backward().unwrap().get(&z).unwrap() * 0.04).unwrap()
            };
            close(&gradient(&ours), &gradient(&plain));
        }
    }
}
