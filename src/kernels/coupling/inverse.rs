//! Latents to features. The subnet stands between the two stages: it needs the first one's output.

use candle_core::{CpuStorage, CustomOp2, Layout, Result as CandleResult, Shape, Tensor};

use super::{Affine, Permutation, SUBNET_SCALE, Sizes};
use crate::Result;
use crate::kernels::elementary::{exp, tanh};
use crate::kernels::parallel::SharedMut;
use crate::kernels::simd::simd_fn;
use crate::kernels::view::{Images, batch_strided};

/// Undoes permutation, offset and scale: `y [B, C, H, W]` -> `u`. Not differentiable.
///
/// # Errors
/// When shapes or types do not fit.
pub fn undo_affine(y: &Tensor, affine: &Affine, permutation: &Permutation) -> Result<Tensor> {
    let sizes = Sizes::of(y, permutation)?;
    let affine = affine.values(sizes.channels)?;
    let op = UndoAffine {
        sizes,
        permutation: permutation.clone(),
    };
    Ok(batch_strided(y)?.apply_op2_no_bwd(affine, &op)?)
}

/// Undoes the coupling: `u [B, C, H, W]` and the subnet's output for its first channels -> `x`. Not
/// differentiable.
///
/// # Errors
/// When shapes or types do not fit.
pub fn uncouple(u: &Tensor, a: &Tensor, clamp: f32) -> Result<Tensor> {
    let sizes = Sizes::of_batch(u)?;
    sizes.expect_subnet(a)?;
    let op = Uncouple { sizes, clamp };
    Ok(batch_strided(u)?.apply_op2_no_bwd(&batch_strided(a)?, &op)?)
}

struct UndoAffine {
    sizes: Sizes,
    permutation: Permutation,
}

impl CustomOp2 for UndoAffine {
    fn name(&self) -> &'static str {
        "coupling-undo-affine"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let y = Images::new(y, layout).map_err(candle_core::Error::wrap)?;
        let affine = &affine.as_slice::<f32>()?[affine_layout.start_offset()..];
        let (sizes, positions) = (&self.sizes, self.sizes.positions());
        let mut u = vec![0f32; sizes.batch * sizes.image()];
        let shared = SharedMut::new(&mut u);
        sizes.grid().for_each(|_, span| {
            let y = y.image(span.image);
            for (output, input) in self.permutation.pairs() {
                let start = span.image * sizes.image() + input * positions + span.start;
                // SAFETY: spans are disjoint; one channel of this task's span at a time.
                let u = unsafe { shared.slice(start..start + span.len) };
                let y = &y[output * positions + span.start..][..span.len];
                unscale_row(u, y, affine[input], affine[sizes.channels + input]);
            }
        });
        Ok((CpuStorage::F32(u), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        y: &candle_core::CudaStorage,
        layout: &Layout,
        affine: &candle_core::CudaStorage,
        affine_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let affine = (affine, affine_layout);
        let u = super::cuda::undo_affine(&self.sizes, &self.permutation, (y, layout), affine)?;
        Ok((u, layout.shape().clone()))
    }
}

struct Uncouple {
    sizes: Sizes,
    clamp: f32,
}

impl CustomOp2 for Uncouple {
    fn name(&self) -> &'static str {
        "uncouple"
    }

    fn cpu_fwd(
        &self,
        u: &CpuStorage,
        layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let u = Images::new(u, layout).map_err(candle_core::Error::wrap)?;
        let a = Images::new(a, a_layout).map_err(candle_core::Error::wrap)?;
        let (sizes, positions) = (&self.sizes, self.sizes.positions());
        let mut x = vec![0f32; sizes.batch * sizes.image()];
        let shared = SharedMut::new(&mut x);
        sizes.grid().for_each(|_, span| {
            let (u, a) = (u.image(span.image), a.image(span.image));
            let at = |channel: usize| {
                let start = channel * positions + span.start;
                start..start + span.len
            };
            for channel in 0..sizes.channels {
                let start = span.image * sizes.image() + channel * positions + span.start;
                // SAFETY: spans are disjoint; one channel of this task's span at a time.
                let x = unsafe { shared.slice(start..start + span.len) };
                match channel.checked_sub(sizes.passive()) {
                    None => x.copy_from_slice(&u[at(channel)]),
                    Some(k) => {
                        let (s, t) = (&a[at(k)], &a[at(sizes.active() + k)]);
                        uncouple_row(x, &u[at(channel)], s, t, self.clamp);
                    }
                }
            }
        });
        Ok((CpuStorage::F32(x), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        u: &candle_core::CudaStorage,
        layout: &Layout,
        a: &candle_core::CudaStorage,
        a_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let x = super::cuda::uncouple(&self.sizes, self.clamp, (u, layout), (a, a_layout))?;
        Ok((x, layout.shape().clone()))
    }
}

simd_fn! {
    fn unscale_row(u: &mut [f32], y: &[f32], scale: f32, offset: f32) {
        for (u, y) in u.iter_mut().zip(y) {
            *u = (y - offset) / scale;
        }
    }
}

simd_fn! {
    fn uncouple_row(x: &mut [f32], u: &[f32], s: &[f32], t: &[f32], clamp: f32) {
        let len = x.len();
        let (u, s, t) = (&u[..len], &s[..len], &t[..len]);
        for i in 0..len {
            let log_s = clamp * tanh(SUBNET_SCALE * s[i]);
            x[i] = (u[i] - SUBNET_SCALE * t[i]) * exp(-log_s);
        }
    }
}
