//! Gradients of [`super::forward()`], in one pass: everything it needs is recomputed from its inputs.

use candle_core::{
    CpuStorage, CustomOp3, InplaceOp2, Layout, Result as CandleResult, Shape, Tensor,
};

use super::{Affine, Constants, Permutation, SPAN, SUBNET_SCALE, Sizes};
use crate::Result;
use crate::kernels::elementary::{exp, tanh};
use crate::kernels::grid::Span;
use crate::kernels::parallel::{self, SharedMut};
use crate::kernels::shape::expect_f32;
use crate::kernels::simd::{lane_sum, simd_fn};
use crate::kernels::view::{Host, Images, batch_strided};

/// The loss's gradient with respect to `log_det`.
#[derive(Debug, Clone, Copy)]
pub enum LogDetGradient<'a> {
    /// The same everywhere; -1 for the negative log-likelihood.
    Constant(f32),
    /// `[B, H, W]`.
    Map(&'a Tensor),
}

/// Gradients of the coupling's four inputs.
#[derive(Debug, Clone)]
pub struct CouplingGradients {
    /// Like x, `[B, C, H, W]`.
    pub x: Tensor,
    /// Like the subnet's output, `[B, 2 (C/2), H, W]`.
    pub a: Tensor,
    /// `[C]`.
    pub scale: Tensor,
    /// `[C]`.
    pub offset: Tensor,
}

impl CouplingGradients {
    /// [`Self::x`] with the subnet's gradient `[B, C - C/2, H, W]` of the first channels added, in place.
    ///
    /// # Errors
    /// When the shape or type does not fit.
    pub fn add_to_passive(&self, gradient: &Tensor) -> Result<Tensor> {
        let channels = self.x.dim(1)?;
        let passive = self.x.narrow(1, 0, channels - channels / 2)?;
        expect_f32("gradient of the subnet's input", gradient, passive.dims())?;
        passive.inplace_op2(&batch_strided(gradient)?, &Accumulate)?;
        Ok(self.x.clone())
    }
}

/// Adds into a batch of channel ranges.
struct Accumulate;

impl InplaceOp2 for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        layout: &Layout,
        term: &CpuStorage,
        term_layout: &Layout,
    ) -> CandleResult<()> {
        let term = Images::new(term, term_layout).map_err(candle_core::Error::wrap)?;
        let (start, stride) = (layout.start_offset(), layout.stride()[0]);
        let size: usize = layout.dims()[1..].iter().product();
        let CpuStorage::F32(sum) = sum else {
            candle_core::bail!("accumulate needs f32");
        };
        let shared = SharedMut::new(sum);
        parallel::for_each(layout.dims()[0], |image| {
            let start = start + image * stride;
            // SAFETY: the images of a batch do not overlap, and each task has one.
            add_row(
                unsafe { shared.slice(start..start + size) },
                term.image(image),
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        sum: &mut candle_core::CudaStorage,
        layout: &Layout,
        term: &candle_core::CudaStorage,
        term_layout: &Layout,
    ) -> CandleResult<()> {
        super::cuda::accumulate(sum, layout, (term, term_layout))
    }
}

/// Gradients of [`super::forward()`] at the same inputs, given those of its outputs.
///
/// # Errors
/// When shapes or types do not fit.
#[allow(clippy::too_many_arguments)] // the forward's own five, and two gradients
pub fn backward(
    x: &Tensor,
    a: &Tensor,
    affine: &Affine,
    permutation: &Permutation,
    clamp: f32,
    dy: &Tensor,
    dlog_det: LogDetGradient,
) -> Result<CouplingGradients> {
    let sizes = Sizes::of(x, permutation)?;
    sizes.expect_subnet(a)?;
    expect_f32("gradient of the coupling's output", dy, x.dims())?;
    if let LogDetGradient::Map(map) = dlog_det {
        let dims = [sizes.batch, sizes.height, sizes.width];
        expect_f32("gradient of the log-determinant", map, &dims)?;
    }
    let op = Backward {
        sizes,
        permutation: permutation.clone(),
        clamp,
        affine: affine.values(sizes.channels)?.clone(),
        dlog_det: match dlog_det {
            LogDetGradient::Constant(value) => LogDet::Constant(value),
            LogDetGradient::Map(map) if map.device().is_cpu() => LogDet::Map(batch_strided(map)?),
            LogDetGradient::Map(map) => LogDet::Map(map.contiguous()?),
        },
    };
    let packed =
        batch_strided(x)?.apply_op3_no_bwd(&batch_strided(a)?, &batch_strided(dy)?, &op)?;
    op.unpack(&packed)
}

enum LogDet {
    Constant(f32),
    Map(Tensor),
}

struct Backward {
    sizes: Sizes,
    permutation: Permutation,
    clamp: f32,
    affine: Tensor,
    dlog_det: LogDet,
}

impl Backward {
    /// Lengths of dx, da and the affine's gradient in the packed output.
    fn lengths(&self) -> (usize, usize, usize) {
        let sizes = &self.sizes;
        let a = sizes.batch * 2 * sizes.active() * sizes.positions();
        (sizes.batch * sizes.image(), a, 2 * sizes.channels)
    }

    fn unpack(&self, packed: &Tensor) -> Result<CouplingGradients> {
        let Sizes {
            batch,
            channels,
            height,
            width,
        } = self.sizes;
        let (x, a, affine) = self.lengths();
        // A copy: training keeps these few until Adam has seen them, and must not keep the whole buffer with them.
        let affine = packed.narrow(0, x + a, affine)?.force_contiguous()?;
        Ok(CouplingGradients {
            x: packed
                .narrow(0, 0, x)?
                .reshape((batch, channels, height, width))?,
            a: packed
                .narrow(0, x, a)?
                .reshape((batch, 2 * self.sizes.active(), height, width))?,
            scale: affine.narrow(0, 0, channels)?,
            offset: affine.narrow(0, channels, channels)?,
        })
    }
}

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "coupling-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let inputs = Inputs {
            x: Images::new(x, x_layout).map_err(candle_core::Error::wrap)?,
            a: Images::new(a, a_layout).map_err(candle_core::Error::wrap)?,
            dy: Images::new(dy, dy_layout).map_err(candle_core::Error::wrap)?,
        };
        let packed = self.run(&inputs).map_err(candle_core::Error::wrap)?;
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
        dy: &candle_core::CudaStorage,
        dy_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let packed = super::cuda::backward(
            &self.sizes,
            self.clamp,
            &self.permutation,
            &self.affine,
            match &self.dlog_det {
                LogDet::Constant(value) => super::cuda::LogDet::Constant(*value),
                LogDet::Map(map) => super::cuda::LogDet::Map(map),
            },
            (x, x_layout),
            (a, a_layout),
            (dy, dy_layout),
        )?;
        let (x, a, affine) = self.lengths();
        Ok((packed, Shape::from(x + a + affine)))
    }
}

struct Inputs<'a> {
    x: Images<'a>,
    a: Images<'a>,
    dy: Images<'a>,
}

/// Where the tasks write.
struct Outputs<'a> {
    dx: SharedMut<'a>,
    da: SharedMut<'a>,
    /// One row of `[2 C]` a task, summed afterwards in the order of the tasks.
    affine: SharedMut<'a>,
}

impl Backward {
    fn run(&self, inputs: &Inputs) -> Result<Vec<f32>> {
        let (x_len, a_len, affine_len) = self.lengths();
        let grid = self.sizes.grid();
        let affine = Host::open(&self.affine);
        let affine = affine.values()?;
        let mut packed = vec![0f32; x_len + a_len + affine_len];
        let mut partial = vec![0f32; grid.len() * affine_len];
        let (dx, rest) = packed.split_at_mut(x_len);
        let (da, total) = rest.split_at_mut(a_len);
        let outputs = Outputs {
            dx: SharedMut::new(dx),
            da: SharedMut::new(da),
            affine: SharedMut::new(&mut partial),
        };
        match &self.dlog_det {
            LogDet::Constant(value) => {
                let row = [*value; SPAN];
                grid.for_each(|task, span| {
                    self.span(inputs, affine, &row[..span.len], &outputs, task, span);
                });
            }
            LogDet::Map(map) => {
                let host = Host::open(map);
                let maps = host.images()?;
                grid.for_each(|task, span| {
                    let row = &maps.image(span.image)[span.start..][..span.len];
                    self.span(inputs, affine, row, &outputs, task, span);
                });
            }
        }
        sum_rows(&partial, total);
        Ok(packed)
    }

    /// All channels of one span.
    fn span(
        &self,
        inputs: &Inputs,
        affine: &[f32],
        dlog_det: &[f32],
        outputs: &Outputs,
        task: usize,
        span: Span,
    ) {
        let Sizes { channels, .. } = self.sizes;
        let (positions, passive, active) = (
            self.sizes.positions(),
            self.sizes.passive(),
            self.sizes.active(),
        );
        let (x, a) = (inputs.x.image(span.image), inputs.a.image(span.image));
        let dy = inputs.dy.image(span.image);
        let row = |channel: usize| {
            let start = channel * positions + span.start;
            start..start + span.len
        };
        // SAFETY: each task has its own row of partial sums.
        let sums = unsafe {
            outputs
                .affine
                .slice(task * 2 * channels..(task + 1) * 2 * channels)
        };
        for (permuted, channel) in self.permutation.pairs() {
            // SAFETY: spans are disjoint; one channel of this task's span at a time.
            let dx = unsafe { outputs.dx.slice(row(span.image * channels + channel)) };
            let (x, dy) = (&x[row(channel)], &dy[row(permuted)]);
            let c = Constants {
                scale: affine[channel],
                offset: 0.0,
                clamp: self.clamp,
            };
            let (dscale, doffset) = match channel.checked_sub(passive) {
                None => unscaled_row(dx, x, dy, c),
                Some(k) => {
                    let image = span.image * 2 * active;
                    // SAFETY: as above; the rows k and active + k differ.
                    let (ds, dt) = unsafe {
                        let ds = outputs.da.slice(row(image + k));
                        (ds, outputs.da.slice(row(image + active + k)))
                    };
                    let given = Given {
                        x,
                        s: &a[row(k)],
                        t: &a[row(active + k)],
                        dy,
                        dlog_det,
                    };
                    coupled_row(dx, ds, dt, given, c)
                }
            };
            sums[channel] = dscale;
            sums[channels + channel] = doffset;
        }
    }
}

/// Adds the rows of `partial` into `total`, in f64.
fn sum_rows(partial: &[f32], total: &mut [f32]) {
    let mut sums = vec![0f64; total.len()];
    for row in partial.chunks_exact(total.len()) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    for (total, sum) in total.iter_mut().zip(sums) {
        *total = sum as f32;
    }
}

simd_fn! {
    /// A passive channel: writes dx, returns the gradients of its scale and offset.
    fn unscaled_row(dx: &mut [f32], x: &[f32], dy: &[f32], c: Constants) -> (f32, f32) {
        let len = dx.len();
        let (x, dy) = (&x[..len], &dy[..len]);
        for i in 0..len {
            dx[i] = dy[i] * c.scale;
        }
        (lane_sum(len, |i| dy[i] * x[i]), lane_sum(len, |i| dy[i]))
    }
}

/// What [`coupled_row`] reads.
#[derive(Clone, Copy)]
struct Given<'a> {
    x: &'a [f32],
    s: &'a [f32],
    t: &'a [f32],
    dy: &'a [f32],
    dlog_det: &'a [f32],
}

simd_fn! {
    /// A transformed channel: writes dx, ds, dt, returns the gradients of its scale and offset.
    fn coupled_row(dx: &mut [f32], ds: &mut [f32], dt: &mut [f32], given: Given, c: Constants) -> (f32, f32) {
        let len = dx.len();
        let (x, s, t) = (&given.x[..len], &given.s[..len], &given.t[..len]);
        let (dy, dlog_det) = (&given.dy[..len], &given.dlog_det[..len]);
        let (ds, dt) = (&mut ds[..len], &mut dt[..len]);
        let mut u = [0f32; SPAN];
        let u = &mut u[..len];
        for i in 0..len {
            let tanh_s = tanh(SUBNET_SCALE * s[i]);
            let factor = exp(c.clamp * tanh_s);
            let du = dy[i] * c.scale;
            let scaled = x[i] * factor;
            let dlog_s = du * scaled + dlog_det[i];
            u[i] = scaled + SUBNET_SCALE * t[i];
            dx[i] = du * factor;
            dt[i] = SUBNET_SCALE * du;
            ds[i] = SUBNET_SCALE * c.clamp * (1.0 - tanh_s * tanh_s) * dlog_s;
        }
        (lane_sum(len, |i| dy[i] * u[i]), lane_sum(len, |i| dy[i]))
    }
}

simd_fn! {
    fn add_row(sum: &mut [f32], term: &[f32]) {
        for (sum, term) in sum.iter_mut().zip(term) {
            *sum += term;
        }
    }
}
