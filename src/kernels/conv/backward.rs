//! Gradients of a convolution with respect to its input, weight and bias.

use std::ops::Range;

use super::forward::{Epilogue, convolve, tile_positions};
use super::geometry::Geometry;
use super::patches;
use super::winograd::{self, Taps};
use crate::kernels::gemm::{MatRef, gemm_into};
use crate::kernels::parallel::{SharedMut, for_each, threads, with_scratch, written};
use crate::kernels::simd::{lane_sum, simd_fn};
use crate::kernels::view::Images;

/// Floats of the patch gradients that one task of [`scattered`] holds.
const GROUP_FLOATS: usize = 256 * 1024;

/// The output's gradient, zero where the fused ReLU's output, the mask, is not positive.
#[derive(Clone, Copy)]
pub(crate) struct Gradient<'a> {
    pub(crate) dy: Images<'a>,
    pub(crate) mask: Option<Images<'a>>,
}

/// All gradients of a convolution, packed.
pub(crate) struct Gradients {
    pub(crate) input: Option<Vec<f32>>,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// Chooses the engine and computes them.
pub(crate) fn gradients(
    geometry: &Geometry,
    x: Images,
    weight: &[f32],
    gradient: Gradient,
    want_input: bool,
) -> Gradients {
    if winograd::applies(geometry) {
        let Gradient { dy, mask } = gradient;
        let input = want_input.then(|| {
            let taps = Taps::turned(weight, geometry.out_channels, geometry.in_channels);
            winograd::convolve(&adjoint(geometry), dy, mask, taps, &Epilogue::default())
        });
        let (weight, bias) = winograd::weight_gradient(geometry, x, dy, mask);
        return Gradients {
            input,
            weight,
            bias,
        };
    }
    let (masked, bias) = mask_and_sum(geometry, gradient);
    let dy = masked
        .as_ref()
        .map_or(gradient.dy, |m| Images::packed(m, geometry.out_image()));
    let input = want_input.then(|| input_gradient(geometry, weight, dy));
    Gradients {
        input,
        weight: weight_gradient(geometry, x, dy),
        bias,
    }
}

/// The convolution that takes `dy` to the input's gradient; for stride 1 and square kernels.
fn adjoint(geometry: &Geometry) -> Geometry {
    Geometry {
        in_channels: geometry.out_channels,
        in_h: geometry.out_h,
        in_w: geometry.out_w,
        out_channels: geometry.in_channels,
        padding: geometry.kernel_h - 1 - geometry.padding,
        out_h: geometry.in_h,
        out_w: geometry.in_w,
        ..*geometry
    }
}

/// The gradient of the input: `dy` convolved with the flipped weights where the stride is 1, else
/// the adjoint of the patch matrix.
fn input_gradient(geometry: &Geometry, weight: &[f32], dy: Images) -> Vec<f32> {
    let square = geometry.kernel_h == geometry.kernel_w;
    if geometry.stride == 1 && square && geometry.padding < geometry.kernel_h {
        let flipped = flipped(geometry, weight);
        return convolve(&adjoint(geometry), dy, &flipped, &Epilogue::default());
    }
    scattered(geometry, weight, dy)
}

/// Weights `[in, out, taps]` with the taps in reverse order, from `[out, in, taps]`.
fn flipped(geometry: &Geometry, weight: &[f32]) -> Vec<f32> {
    let taps = geometry.taps();
    let mut turned = Vec::with_capacity(weight.len());
    for channel in 0..geometry.in_channels {
        for out in 0..geometry.out_channels {
            let start = (out * geometry.in_channels + channel) * taps;
            turned.extend(weight[start..start + taps].iter().rev());
        }
    }
    turned
}

/// The general case: patch gradients of a group of channels, added back to their positions.
fn scattered(geometry: &Geometry, weight: &[f32], dy: Images) -> Vec<f32> {
    let (taps, positions, plane) = (geometry.taps(), geometry.out_plane(), geometry.in_plane());
    let mut dx = vec![0f32; geometry.batch * geometry.in_channels * plane];
    let shared = SharedMut::new(&mut dx);
    let width = (GROUP_FLOATS / (taps * positions)).clamp(1, geometry.in_channels.div_ceil(2));
    let groups = geometry.in_channels.div_ceil(width);
    for_each(geometry.batch * groups, |task| {
        let (image, group) = (task / groups, task % groups);
        let channels = group * width..geometry.in_channels.min((group + 1) * width);
        let rows = channels.len() * taps;
        with_scratch(rows * positions, |matrix| {
            let lhs = MatRef::rows(&weight[channels.start * taps..], geometry.patch()).transposed();
            let rhs = MatRef::rows(dy.image(image), positions);
            let sizes = (rows, positions, geometry.out_channels);
            // SAFETY: `matrix` holds rows x positions elements and is this task's own.
            unsafe { gemm_into(sizes, matrix.as_mut_ptr(), positions, false, lhs, rhs) };
            let first = image * geometry.in_channels + channels.start;
            // SAFETY: the planes of this task's image and channels; no other task has them.
            let planes = unsafe { shared.slice(first * plane..(first + channels.len()) * plane) };
            patches::scatter_add(geometry, matrix, planes);
        });
    });
    dx
}

/// The gradient of the weight, `[out_channels, patch]`: each task owns some input channels and adds
/// image after image, tile after tile, in a fixed order.
fn weight_gradient(geometry: &Geometry, x: Images, dy: Images) -> Vec<f32> {
    let (taps, positions) = (geometry.taps(), geometry.out_plane());
    let mut dw = vec![0f32; geometry.out_channels * geometry.patch()];
    let shared = SharedMut::new(&mut dw);
    // Fixed, because gemm rounds differently where a matrix is small.
    let group = geometry.in_channels.div_ceil(4).clamp(1, 128);
    // A tile of positions of both operands stays in a core's cache.
    let tile = tile_positions(geometry.out_channels + group * taps, positions);
    // One thread goes through the maps once, for all groups.
    let share = if threads() == 1 {
        geometry.in_channels
    } else {
        group
    };
    for_each(geometry.in_channels.div_ceil(share), |task| {
        let channels = task * share..geometry.in_channels.min((task + 1) * share);
        for image in 0..geometry.batch {
            let (x, dy) = (x.image(image), dy.image(image));
            for start in (0..positions).step_by(tile) {
                let range = start..positions.min(start + tile);
                let groups = channels.clone().step_by(group);
                let groups = groups.map(|first| first..channels.end.min(first + group));
                add_weight_tile(geometry, x, dy, groups, range, &shared);
            }
        }
    });
    dw
}

/// Adds one image's tile to the gradient of the weights of groups of input channels.
fn add_weight_tile(
    geometry: &Geometry,
    x: &[f32],
    dy: &[f32],
    groups: impl Iterator<Item = Range<usize>>,
    range: Range<usize>,
    dw: &SharedMut,
) {
    let (taps, positions, count) = (geometry.taps(), geometry.out_plane(), range.len());
    // Rows of a map are often a power of two apart and would fall into the same cache sets.
    let stride = count + 16;
    with_scratch(geometry.out_channels * stride, |dy_tile| {
        for (to, from) in dy_tile.chunks_mut(stride).zip(dy.chunks_exact(positions)) {
            to[..count].copy_from_slice(&from[range.clone()]);
        }
        for channels in groups {
            let (rows, target) = (channels.len() * taps, dw.at(channels.start * taps));
            let product = |patches: MatRef| {
                let sizes = (geometry.out_channels, rows, count);
                let (lhs, rhs) = (MatRef::rows(dy_tile, stride), patches.transposed());
                // SAFETY: the columns of these channels, which are the task's own.
                unsafe { gemm_into(sizes, target, geometry.patch(), true, lhs, rhs) };
            };
            if geometry.is_pointwise() {
                let first = channels.start * positions + range.start;
                product(MatRef::rows(&x[first..], positions));
                continue;
            }
            with_scratch(rows * count, |matrix| {
                patches::gather(geometry, x, channels.clone(), range.clone(), matrix);
                product(MatRef::rows(matrix, count));
            });
        }
    });
}

/// The masked gradient of the output, packed, if there is a mask, and its sum over each channel: the
/// gradient of the bias.
fn mask_and_sum(geometry: &Geometry, gradient: Gradient) -> (Option<Vec<f32>>, Vec<f32>) {
    let (positions, channels) = (geometry.out_plane(), geometry.out_channels);
    let planes = geometry.batch * channels;
    let mut sums = vec![0f32; planes];
    let sums_shared = SharedMut::new(&mut sums);
    // SAFETY: one plane and its sum a task; without a mask there is nothing to write.
    let masked = unsafe {
        let len = gradient.mask.map_or(0, |_| planes * positions);
        written(len, |masked| {
            for_each(planes, |task| {
                let (image, channel) = (task / channels, task % channels);
                let part = channel * positions..(channel + 1) * positions;
                let dy = &gradient.dy.image(image)[part.clone()];
                *sums_shared.at(task) = match gradient.mask {
                    Some(mask) => {
                        let target = masked.slice(task * positions..(task + 1) * positions);
                        mask_plane(dy, &mask.image(image)[part], target)
                    }
                    None => plane_sum(dy),
                };
            });
        })
    };
    let total = |channel| {
        sums.iter()
            .skip(channel)
            .step_by(channels)
            .map(|&v| f64::from(v))
            .sum()
    };
    let bias = (0..channels)
        .map(total)
        .map(|sum: f64| sum as f32)
        .collect();
    (gradient.mask.map(|_| masked), bias)
}

simd_fn! {
    /// Writes `dy` where the ReLU's `output` is positive, else 0 (relu'(0) = 0); returns the sum.
    fn mask_plane(dy: &[f32], output: &[f32], target: &mut [f32]) -> f32 {
        for ((value, &dy), &output) in target.iter_mut().zip(dy).zip(output) {
            *value = if output > 0.0 { dy } else { 0.0 };
        }
        lane_sum(target.len(), |i| target[i])
    }
}

simd_fn! {
    /// A plane's sum.
    fn plane_sum(values: &[f32]) -> f32 {
        lane_sum(values.len(), |i| values[i])
    }
}
