//! Convolution as a product of weights and patch matrices, tile by tile.

use std::ops::Range;

use super::geometry::Geometry;
use super::patches;
use crate::kernels::gemm::{MatRef, gemm_into};
use crate::kernels::parallel::{SharedMut, for_each, with_scratch, written};
use crate::kernels::view::Images;

/// Floats of one patch-matrix tile: a quarter of a megabyte stays in a core's own cache.
const TILE_FLOATS: usize = 64 * 1024;

/// What is done to a finished output element: `+ bias`, `+ residual`, ReLU, in this order.
#[derive(Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) residual: Option<Images<'a>>,
    pub(crate) relu: bool,
}

impl Epilogue<'_> {
    /// Finishes `out`, which starts at `position` of output channel `channel` of image `image`.
    pub(crate) fn apply(&self, out: &mut [f32], image: usize, channel: usize, at: usize) {
        let bias = self.bias.map_or(0.0, |bias| bias[channel]);
        match &self.residual {
            Some(residual) => {
                let residual = &residual.image(image)[at..at + out.len()];
                out.iter_mut()
                    .zip(residual)
                    .for_each(|(value, r)| *value += bias + r);
            }
            None if self.bias.is_some() => out.iter_mut().for_each(|value| *value += bias),
            None => {}
        }
        if self.relu {
            // Not f32::max: a NaN must stay one.
            out.iter_mut()
                .for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value });
        }
    }
}

/// Output positions of one tile: even, for a patch of this size; never dependent on batch or threads.
pub(crate) fn tile_positions(patch: usize, positions: usize) -> usize {
    let wide = (TILE_FLOATS / patch.max(1)).clamp(64, 2048) / 8 * 8;
    // At least four tiles a map keep two cores busy with one image.
    wide.min(positions.div_ceil(4).next_multiple_of(8)).max(8)
}

/// The convolution of a batch; `weight` is `[out_channels, patch]`, the output packed.
pub(crate) fn convolve(
    geometry: &Geometry,
    x: Images,
    weight: &[f32],
    epilogue: &Epilogue,
) -> Vec<f32> {
    let positions = geometry.out_plane();
    let width = tile_positions(geometry.patch(), positions);
    let tiles = positions.div_ceil(width);
    // SAFETY: the tiles cover the output, and the product writes a tile before its epilogue reads it.
    unsafe {
        written(geometry.batch * geometry.out_image(), |shared| {
            for_each(geometry.batch * tiles, |task| {
                let (image, tile) = (task / tiles, task % tiles);
                let range = tile * width..positions.min((tile + 1) * width);
                convolve_tile(geometry, x, weight, epilogue, image, range, shared);
            });
        })
    }
}

/// One tile of one image.
fn convolve_tile(
    geometry: &Geometry,
    x: Images,
    weight: &[f32],
    epilogue: &Epilogue,
    image: usize,
    range: Range<usize>,
    shared: &SharedMut,
) {
    let (input, positions) = (x.image(image), geometry.out_plane());
    let sizes = (geometry.out_channels, range.len(), geometry.patch());
    let start = image * geometry.out_image();
    let lhs = MatRef::rows(weight, geometry.patch());
    let product = |rhs: MatRef| {
        // SAFETY: the rows of this tile inside the output image, written by this task only.
        unsafe {
            gemm_into(
                sizes,
                shared.at(start + range.start),
                positions,
                false,
                lhs,
                rhs,
            )
        };
    };
    if geometry.is_pointwise() {
        product(MatRef::rows(&input[range.start..], positions));
    } else {
        with_scratch(geometry.patch() * range.len(), |matrix| {
            patches::gather(
                geometry,
                input,
                0..geometry.in_channels,
                range.clone(),
                matrix,
            );
            product(MatRef::rows(matrix, range.len()));
        });
    }
    for channel in 0..geometry.out_channels {
        let at = channel * positions + range.start;
        // SAFETY: this task's own part of the output, as above.
        let row = unsafe { shared.slice(start + at..start + at + range.len()) };
        epilogue.apply(row, image, channel, at);
    }
}
