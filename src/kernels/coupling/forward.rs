//! Features to latents.

use candle_core::{CpuStorage, CustomOp3, Layout, Result as CandleResult, Shape, Tensor};

use super::{Affine, Constants, LogDetGradient, Permutation, SUBNET_SCALE, Sizes, backward};
use crate::Result;
use crate::kernels::elementary::{exp, tanh};
use crate::kernels::parallel::SharedMut;
use crate::kernels::simd::simd_fn;
use crate::kernels::view::{Images, batch_strided};

/// One step's coupling: `(y [B, C, H, W], log_det [B, H, W])`, where `log_det` sums log_s over the channels
/// (the global affine's own part is not in it). Differentiable.
///
/// # Errors
/// When shapes or types do not fit.
pub fn forward(
    x: &Tensor,
    a: &Tensor,
    affine: &Affine,
    permutation: &Permutation,
    clamp: f32,
) -> Result<(Tensor, Tensor)> {
    let sizes = Sizes::of(x, permutation)?;
    sizes.expect_subnet(a)?;
    let affine = affine.values(sizes.channels)?;
    let op = Coupling {
        sizes,
        permutation: permutation.clone(),
        clamp,
    };
    let packed = batch_strided(x)?.apply_op3(&batch_strided(a)?, affine, op)?;
    unpack(&packed, &sizes)
}

/// The two outputs, which share one buffer: a CustomOp can return only one.
fn unpack(packed: &Tensor, sizes: &Sizes) -> Result<(Tensor, Tensor)> {
    let Sizes {
        batch,
        channels,
        height,
        width,
    } = *sizes;
    let values = batch * sizes.image();
    let y = packed
        .narrow(0, 0, values)?
        .reshape((batch, channels, height, width))?;
    let log_det = packed
        .narrow(0, values, batch * sizes.positions())?
        .reshape((batch, height, width))?;
    Ok((y, log_det))
}

struct Coupling {
    sizes: Sizes,
    permutation: Permutation,
    clamp: f32,
}

impl CustomOp3 for Coupling {
    fn name(&self) -> &'static str {
        "coupling"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let x = Images::new(x, x_layout).map_err(candle_core::Error::wrap)?;
        let a = Images::new(a, a_layout).map_err(candle_core::Error::wrap)?;
        let affine = &affine.as_slice::<f32>()?[affine_layout.start_offset()..];
        let mut packed =
            vec![0f32; self.sizes.batch * (self.sizes.image() + self.sizes.positions())];
        self.run(&x, &a, affine, &mut packed);
        let len = packed.len();
        Ok((CpuStorage::F32(packed), Shape::from(len)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        a: &candle_core::CudaStorage,
        a_layout: &Layout,
        affine: &candle_core::CudaStorage,
        affine_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let packed = super::cuda::forward(
            &self.sizes,
            self.clamp,
            &self.permutation,
            (x, x_layout),
            (a, a_layout),
            (affine, affine_layout),
        )?;
        let len = self.sizes.batch * (self.sizes.image() + self.sizes.positions());
        Ok((packed, Shape::from(len)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        affine: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = unpack(&gradient.contiguous()?, &self.sizes).and_then(|(dy, dlog_det)| {
            let affine = Affine::packed(affine.clone());
            let dlog_det = LogDetGradient::Map(&dlog_det);
            backward(x, a, &affine, &self.permutation, self.clamp, &dy, dlog_det)
        });
        let gradients = gradients.map_err(candle_core::Error::wrap)?;
        let affine = Tensor::cat(&[gradients.scale, gradients.offset], 0)?;
        Ok((Some(gradients.x), Some(gradients.a), Some(affine)))
    }
}

impl Coupling {
    fn run(&self, x: &Images, a: &Images, affine: &[f32], packed: &mut [f32]) {
        let sizes = &self.sizes;
        let (positions, passive) = (sizes.positions(), sizes.passive());
        let (y, log_det) = packed.split_at_mut(sizes.batch * sizes.image());
        let (y, log_det) = (SharedMut::new(y), SharedMut::new(log_det));
        sizes.grid().for_each(|_, span| {
            let (x, a) = (x.image(span.image), a.image(span.image));
            let at = |channel: usize| {
                let start = channel * positions + span.start;
                start..start + span.len
            };
            let start = span.image * positions + span.start;
            // SAFETY: spans are disjoint, and this task is the only one with this span.
            let log_det = unsafe { log_det.slice(start..start + span.len) };
            for (output, input) in self.permutation.pairs() {
                let start = span.image * sizes.image() + output * positions + span.start;
                // SAFETY: as above, one output channel of this span at a time.
                let y = unsafe { y.slice(start..start + span.len) };
                let constants = Constants {
                    scale: affine[input],
                    offset: affine[sizes.channels + input],
                    clamp: self.clamp,
                };
                if input < passive {
                    scale_row(y, &x[at(input)], constants);
                } else {
                    let k = input - passive;
                    let (s, t) = (&a[at(k)], &a[at(sizes.active() + k)]);
                    couple_row(y, log_det, &x[at(input)], s, t, constants);
                }
            }
        });
    }
}

simd_fn! {
    fn scale_row(y: &mut [f32], x: &[f32], c: Constants) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x * c.scale + c.offset;
        }
    }
}

simd_fn! {
    fn couple_row(y: &mut [f32], log_det: &mut [f32], x: &[f32], s: &[f32], t: &[f32], c: Constants) {
        let len = y.len();
        let (log_det, x) = (&mut log_det[..len], &x[..len]);
        let (s, t) = (&s[..len], &t[..len]);
        for i in 0..len {
            let log_s = c.clamp * tanh(SUBNET_SCALE * s[i]);
            let u = x[i] * exp(log_s) + SUBNET_SCALE * t[i];
            y[i] = u * c.scale + c.offset;
            log_det[i] += log_s;
        }
    }
}
