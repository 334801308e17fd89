//! Convolution of every channel on its own (Howard et al. 2017, MobileNets), several outputs a channel included.
//!
//! There is no sum over channels to make a matrix product of: each plane is padded once and its taps are added
//! eight columns at a time.

use super::forward::Epilogue;
use super::geometry::Geometry;
use crate::kernels::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::kernels::parallel::{for_each, with_scratch, written};
use crate::kernels::view::Images;

/// The convolution of a batch whose output channel `o` sees input channel `o * in_channels / out_channels`
/// alone; `weight` is `[out_channels, taps]`, the output packed.
pub(super) fn convolve(
    geometry: &Geometry,
    x: Images,
    weight: &[f32],
    epilogue: &Epilogue,
) -> Vec<f32> {
    let (plane, taps) = (geometry.out_plane(), geometry.taps());
    let multiplier = geometry.out_channels / geometry.in_channels;
    // SAFETY: one plane a task, which the kernel writes whole before the epilogue reads it.
    unsafe {
        written(geometry.batch * geometry.out_image(), |shared| {
            for_each(geometry.batch * geometry.out_channels, |task| {
                let (image, channel) = (task / geometry.out_channels, task % geometry.out_channels);
                let input = channel / multiplier * geometry.in_plane();
                let out = shared.slice(task * plane..(task + 1) * plane);
                let padded = Padded::new(geometry);
                with_scratch(padded.len, |scratch| {
                    padded.fill(
                        geometry,
                        &x.image(image)[input..][..geometry.in_plane()],
                        scratch,
                    );
                    dispatch(Plane {
                        geometry,
                        padded: scratch,
                        width: padded.width,
                        weight: &weight[channel * taps..][..taps],
                        out: &mut *out,
                    });
                });
                epilogue.apply(out, image, channel, channel * plane);
            });
        })
    }
}

/// A plane with its padding, and beyond it what the last columns' lanes read without using it.
struct Padded {
    width: usize,
    len: usize,
}

impl Padded {
    fn new(geometry: &Geometry) -> Self {
        let width = geometry.in_w + 2 * geometry.padding;
        let height = geometry.in_h + 2 * geometry.padding;
        Self {
            width,
            len: width * height + LANES * geometry.stride + 1,
        }
    }

    fn fill(&self, geometry: &Geometry, plane: &[f32], target: &mut [f32]) {
        target.fill(0.0);
        let rows = plane.chunks_exact(geometry.in_w);
        let targets = target
            .chunks_exact_mut(self.width)
            .skip(geometry.padding)
            .zip(rows);
        for (target, row) in targets {
            target[geometry.padding..][..row.len()].copy_from_slice(row);
        }
    }
}

/// One output plane.
struct Plane<'a> {
    geometry: &'a Geometry,
    /// The input with its padding, [`Padded::len`] long.
    padded: &'a [f32],
    width: usize,
    weight: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Plane<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Geometry {
            out_w,
            kernel_h,
            kernel_w,
            stride,
            ..
        } = *self.geometry;
        let mut offsets = [0; LANES];
        for (lane, offset) in offsets.iter_mut().enumerate() {
            *offset = lane * stride;
        }
        let mut spare = [0f32; LANES];
        for (row, out) in self.out.chunks_exact_mut(out_w).enumerate() {
            for (block, out) in out.chunks_mut(LANES).enumerate() {
                let corner = row * stride * self.width + block * LANES * stride;
                let mut sum = lanes.splat(0.0);
                for tap in 0..kernel_h * kernel_w {
                    let at = corner + tap / kernel_w * self.width + tap % kernel_w;
                    let last = at + (LANES - 1) * stride + 1;
                    assert!(last < self.padded.len(), "lanes outside the plane");
                    // SAFETY: the last lane reads elements `last - 1` and `last`, inside the plane (asserted).
                    let x = unsafe {
                        let from = self.padded.as_ptr().add(at);
                        if stride == 1 {
                            lanes.load(from)
                        } else {
                            lanes.load_columns2(from, &offsets)[0]
                        }
                    };
                    sum = lanes.mul_add(x, lanes.splat(self.weight[tap]), sum);
                }
                // SAFETY: eight floats.
                unsafe { lanes.store(spare.as_mut_ptr(), sum) };
                out.copy_from_slice(&spare[..out.len()]);
            }
        }
    }
}
