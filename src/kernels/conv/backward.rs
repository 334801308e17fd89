//! Gradients of a convolution with respect to its input, weight and bias.

use super::forward::{Epilogue, convolve, tile_positions};
use super::geometry::Geometry;
use super::patches;
use super::winograd::{self, Taps};
use crate::kernels::gemm::{MatRef, gemm_into};
use crate::kernels::parallel::{SharedMut, for_each, with_scratch};
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
    let bias = bias_gradient(geometry, gradient);
    if winograd::applies(geometry) {
        let Gradient { dy, mask } = gradient;
        let input = want_input.then(|| {
            let (out, input) = (geometry.out_channels, geometry.in_channels);
            let taps = Taps::turned(weight, out, input);
            let adjoint = adjoint(geometry);
            winograd::convolve(&adjoint, dy, mask, taps, &Epilogue::default())
        });
        return Gradients {
            input,
            weight: winograd::weight_gradient(geometry, x, dy, mask),
            bias,
        };
    }
    let masked;
    let mut dy = gradient.dy;
    if let Some(mask) = gradient.mask {
        masked = self::masked(dy, mask, geometry.batch, geometry.out_image());
        dy = Images::packed(&masked, geometry.out_image());
    }
    Gradients {
        input: want_input.then(|| input_gradient(geometry, weight, dy)),
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
    let group = geometry.in_channels.div_ceil(4).clamp(1, 32);
    for_each(geometry.in_channels.div_ceil(group), |task| {
        let channels = task * group..geometry.in_channels.min((task + 1) * group);
        let rows = channels.len() * taps;
        let width = tile_positions(rows, positions);
        for image in 0..geometry.batch {
            for start in (0..positions).step_by(width) {
                let range = start..positions.min(start + width);
                let sizes = (geometry.out_channels, rows, range.len());
                let lhs = MatRef::rows(&dy.image(image)[start..], positions);
                let target = shared.at(channels.start * taps);
                let product = |rhs: MatRef| {
                    // SAFETY: the columns of this task's channels, in every row of the weight.
                    unsafe {
                        gemm_into(sizes, target, geometry.patch(), true, lhs, rhs.transposed())
                    };
                };
                if geometry.is_pointwise() {
                    let at = channels.start * positions + start;
                    product(MatRef::rows(&x.image(image)[at..], positions));
                    continue;
                }
                with_scratch(rows * range.len(), |matrix| {
                    let (image, channels) = (x.image(image), channels.clone());
                    patches::gather(geometry, image, channels, range.clone(), matrix);
                    product(MatRef::rows(matrix, range.len()));
                });
            }
        }
    });
    dw
}

/// The gradient of the bias: the sum of each output channel.
fn bias_gradient(geometry: &Geometry, gradient: Gradient) -> Vec<f32> {
    let positions = geometry.out_plane();
    let mut db = vec![0f32; geometry.out_channels];
    let shared = SharedMut::new(&mut db);
    for_each(geometry.out_channels, |channel| {
        let part = channel * positions..(channel + 1) * positions;
        let total: f64 = (0..geometry.batch)
            .map(|image| {
                let dy = &gradient.dy.image(image)[part.clone()];
                match gradient.mask {
                    Some(mask) => sum(dy
                        .iter()
                        .zip(&mask.image(image)[part.clone()])
                        .map(|(&dy, &mask)| if mask > 0.0 { dy } else { 0.0 })),
                    None => sum(dy.iter().copied()),
                }
            })
            .sum();
        // SAFETY: one element a task.
        let target = unsafe { shared.slice(channel..channel + 1) };
        target[0] = total as f32;
    });
    db
}

/// A sum of one plane in 64 bits.
fn sum(values: impl Iterator<Item = f32>) -> f64 {
    values.map(f64::from).sum()
}

/// `dy` where the ReLU's `output` is positive, else 0 (relu'(0) = 0), packed.
fn masked(dy: Images, output: Images, batch: usize, image_len: usize) -> Vec<f32> {
    let mut result = vec![0f32; batch * image_len];
    let shared = SharedMut::new(&mut result);
    for_each(batch, |image| {
        // SAFETY: one image a task.
        let target = unsafe { shared.slice(image * image_len..(image + 1) * image_len) };
        let pairs = dy.image(image).iter().zip(output.image(image));
        for (value, (&gradient, &output)) in target.iter_mut().zip(pairs) {
            *value = if output > 0.0 { gradient } else { 0.0 };
        }
    });
    result
}
