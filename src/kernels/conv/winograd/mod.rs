//! 3x3 convolution with stride 1 by Winograd's minimal filtering: a quarter of the multiplications.
//!
//! Tiles of 4x4 outputs become 36 values a channel, multiplied by the weights' 36 values in 36 matrix
//! products over channels, and turned back. Blocks of tiles keep the values in a core's cache. The
//! result does not depend on how tiles are cut into blocks or shared among threads.

mod input;
mod output;
mod tiles;
mod transform;
mod weights;

use std::ops::Range;

use self::input::{Planes, Points, Transform, Window};
use self::output::Finish;
use self::tiles::{Grid, Patchwork, Windows};
use self::transform::PRODUCTS;
pub(crate) use self::weights::Taps;
use self::weights::point_stride;
use super::forward::Epilogue;
use super::geometry::Geometry;
use crate::kernels::gemm::{MatRef, PANEL, gemm_into, times_panel};
use crate::kernels::lanes::dispatch;
use crate::kernels::parallel::{SharedMut, for_each, threads, with_scratch, written};
use crate::kernels::view::Images;

/// Floats of a block's values and products together that a core's cache holds.
const BLOCK_FLOATS: usize = 128 * 1024;
/// Channels of a task where a block is shared: four times the six rows of the product's kernel.
const CHANNEL_GROUP: usize = 24;

/// Whether this engine takes the convolution and gains by it.
pub(crate) fn applies(geometry: &Geometry) -> bool {
    let three = geometry.kernel_h == 3 && geometry.kernel_w == 3;
    let enough = geometry.in_channels >= 8 && geometry.out_channels >= 8;
    three && enough && geometry.stride == 1 && geometry.padding <= 2
}

/// Tiles of a block.
fn block_tiles(geometry: &Geometry) -> usize {
    let tile = PRODUCTS * (geometry.in_channels + geometry.out_channels);
    (BLOCK_FLOATS / tile / PANEL * PANEL).clamp(2 * PANEL, 8 * PANEL)
}

/// One convolution's data.
struct Job<'a> {
    geometry: &'a Geometry,
    grid: Grid,
    planes: Planes<'a>,
    taps: Taps<'a>,
    /// The weights at the points, if they were brought there for all blocks at once.
    weights: Option<&'a [f32]>,
    epilogue: &'a Epilogue<'a>,
    out: &'a SharedMut<'a>,
}

/// The convolution of a batch (zero where `mask` is not positive); the output is packed.
pub(crate) fn convolve(
    geometry: &Geometry,
    images: Images,
    mask: Option<Images>,
    taps: Taps,
    epilogue: &Epilogue,
) -> Vec<f32> {
    let grid = Grid::new(geometry);
    let planes = Planes {
        images,
        mask,
        plane: geometry.in_plane(),
    };
    // SAFETY: the tiles of all channels cover the output, and are only written.
    unsafe {
        written(geometry.batch * geometry.out_image(), |out| {
            let job = Job {
                geometry,
                grid,
                planes,
                taps,
                weights: None,
                epilogue,
                out,
            };
            if grid.len() <= block_tiles(geometry) {
                // Each task transforms just the weights it uses.
                job.shared(0..grid.len());
                return;
            }
            let weights = PRODUCTS * point_stride(geometry.out_channels, geometry.in_channels);
            with_scratch(weights, |weights| {
                taps.transform_all(weights);
                Job {
                    weights: Some(weights),
                    ..job
                }
                .blocks();
            });
        })
    }
}

impl Job<'_> {
    /// All blocks: one a task where there are enough of them.
    fn blocks(&self) {
        let (width, len) = (block_tiles(self.geometry), self.grid.len());
        let blocks = len.div_ceil(width);
        let block = |index: usize| index * width..len.min((index + 1) * width);
        if blocks >= 2 * threads() {
            for_each(blocks, |index| self.alone(block(index)));
        } else {
            (0..blocks).for_each(|index| self.shared(block(index)));
        }
    }

    /// One block on one thread.
    fn alone(&self, tiles: Range<usize>) {
        let patchwork = self.patchwork(tiles.clone());
        self.with_values(&patchwork, |values, products| {
            with_scratch(patchwork.len, |copy| {
                copy.fill(0.0);
                self.transform(&patchwork, 0..self.geometry.in_channels, copy, values);
            });
            self.finish(tiles, 0..self.geometry.out_channels, values, products);
        });
    }

    /// One block whose channels are shared among the threads.
    fn shared(&self, tiles: Range<usize>) {
        let patchwork = self.patchwork(tiles.clone());
        self.with_values(&patchwork, |values, products| {
            for_each_group(self.geometry.in_channels, |channels| {
                with_scratch(patchwork.len, |copy| {
                    copy.fill(0.0);
                    self.transform(&patchwork, channels, copy, values);
                });
            });
            for_each_group(self.geometry.out_channels, |channels| {
                self.finish(tiles.clone(), channels, values, products);
            });
        });
    }

    fn patchwork(&self, tiles: Range<usize>) -> Patchwork {
        Patchwork::new(&self.grid, &Windows::of_input(self.geometry), tiles)
    }

    /// Lends room for a block's values and products.
    fn with_values(&self, patchwork: &Patchwork, work: impl FnOnce(&SharedMut, &SharedMut)) {
        let tiles = patchwork.tiles();
        let values = PRODUCTS * point_stride(self.geometry.in_channels, tiles);
        let products = PRODUCTS * point_stride(self.geometry.out_channels, tiles);
        with_scratch(values, |values| {
            with_scratch(products, |products| {
                work(&SharedMut::new(values), &SharedMut::new(products));
            });
        });
    }

    /// Fills the values of some input channels.
    fn transform(
        &self,
        patchwork: &Patchwork,
        channels: Range<usize>,
        copy: &mut [f32],
        values: &SharedMut,
    ) {
        let inputs = self.geometry.in_channels;
        let points = Points {
            start: values.at(0),
            stride: point_stride(inputs, patchwork.tiles()),
            channels: inputs,
            width: PANEL,
        };
        let planes = self.planes;
        dispatch(Transform {
            planes,
            channels,
            patchwork,
            copy,
            points,
            window: Window::Data,
        });
    }

    /// Multiplies and finishes some output channels.
    fn finish(
        &self,
        tiles: Range<usize>,
        channels: Range<usize>,
        values: &SharedMut,
        products: &SharedMut,
    ) {
        let row = tiles.len().next_multiple_of(PANEL);
        let (inputs, outputs) = (self.geometry.in_channels, self.geometry.out_channels);
        let product_stride = point_stride(outputs, row);
        let multiply = |weights: &[f32], weight_stride: usize| {
            for point in 0..PRODUCTS {
                let lhs = MatRef::rows(&weights[point * weight_stride..], inputs);
                let values_at = point * point_stride(inputs, row);
                let target_at = point * product_stride + channels.start * PANEL;
                for panel in 0..row / PANEL {
                    let start = values_at + panel * inputs * PANEL;
                    let target = products.at(target_at + panel * outputs * PANEL);
                    // SAFETY: no task writes values any more; the target is this task's own rows.
                    unsafe {
                        let values = values.read(start..start + inputs * PANEL);
                        times_panel((channels.len(), inputs), target, lhs, values);
                    }
                }
            }
        };
        match self.weights {
            Some(weights) => {
                multiply(
                    &weights[channels.start * inputs..],
                    point_stride(outputs, inputs),
                );
            }
            None => {
                let stride = point_stride(channels.len(), inputs);
                with_scratch(PRODUCTS * stride, |weights| {
                    self.taps.transform(channels.clone(), weights);
                    multiply(weights, stride);
                });
            }
        }
        dispatch(Finish {
            geometry: self.geometry,
            grid: &self.grid,
            tiles,
            channels,
            products: products.at(0),
            stride: product_stride,
            epilogue: self.epilogue,
            out: self.out.at(0),
        });
    }
}

/// Shares channels among the threads.
fn for_each_group(channels: usize, task: impl Fn(Range<usize>) + Send + Sync) {
    for_each(channels.div_ceil(CHANNEL_GROUP), |group| {
        task(group * CHANNEL_GROUP..channels.min((group + 1) * CHANNEL_GROUP));
    });
}

/// Gradients of weight, `[out][in][3][3]`, and bias; `dy` counts as zero where `mask` is not positive.
///
/// Block after block adds to the 36 products in a fixed order.
pub(crate) fn weight_gradient(
    geometry: &Geometry,
    x: Images,
    dy: Images,
    mask: Option<Images>,
) -> (Vec<f32>, Vec<f32>) {
    let grid = Grid::new(geometry);
    let (rows, cols) = (geometry.out_channels, geometry.in_channels);
    let inputs = Planes {
        images: x,
        mask: None,
        plane: geometry.in_plane(),
    };
    let outputs = Planes {
        images: dy,
        mask,
        plane: geometry.out_plane(),
    };
    let (width, stride) = (block_tiles(geometry), point_stride(rows, cols));
    let mut bias = vec![0f32; rows];
    let bias_shared = SharedMut::new(&mut bias);
    let weight = with_scratch(PRODUCTS * stride, |products| {
        let products = SharedMut::new(products);
        for start in (0..grid.len()).step_by(width) {
            let tiles = start..grid.len().min(start + width);
            let row = tiles.len().next_multiple_of(PANEL);
            let x_windows = Patchwork::new(&grid, &Windows::of_input(geometry), tiles.clone());
            let dy_windows = Patchwork::new(&grid, &Windows::of_output(geometry), tiles.clone());
            let (x_stride, dy_stride) = (point_stride(cols, row), point_stride(rows, row));
            with_scratch(PRODUCTS * (x_stride + dy_stride), |values| {
                let (x_values, dy_values) = values.split_at_mut(PRODUCTS * x_stride);
                fill_values(inputs, cols, &x_windows, x_values, Window::Data);
                fill_values(
                    outputs,
                    rows,
                    &dy_windows,
                    dy_values,
                    Window::Kernel(&bias_shared),
                );
                for_each(PRODUCTS, |point| {
                    let dy = MatRef::rows(&dy_values[point * dy_stride..], row);
                    let x = MatRef::rows(&x_values[point * x_stride..], row).transposed();
                    let sizes = (rows, cols, row);
                    let target = products.at(point * stride);
                    // SAFETY: this task's own matrix of the products.
                    unsafe { gemm_into(sizes, target, cols, start > 0, dy, x) };
                });
            });
        }
        // SAFETY: all tasks have ended.
        let products = unsafe { products.read(0..PRODUCTS * stride) };
        weights::gradient(products, rows, cols)
    });
    (weight, bias)
}

/// Fills the values of all channels of a block.
fn fill_values(
    planes: Planes,
    channels: usize,
    patchwork: &Patchwork,
    values: &mut [f32],
    window: Window,
) {
    let tiles = patchwork.tiles();
    let values = SharedMut::new(values);
    for_each_group(channels, |group| {
        with_scratch(patchwork.len, |copy| {
            copy.fill(0.0);
            let points = Points {
                start: values.at(0),
                stride: point_stride(channels, tiles),
                channels,
                width: tiles,
            };
            dispatch(Transform {
                planes,
                channels: group,
                patchwork,
                copy,
                points,
                window,
            });
        });
    });
}
