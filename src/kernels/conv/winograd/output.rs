//! From products at Winograd's points to finished output tiles.

use std::ops::Range;

use super::tiles::{Grid, Tile, lane};
use super::transform::{self, POINTS, TILE};
use crate::kernels::conv::forward::Epilogue;
use crate::kernels::conv::geometry::Geometry;
use crate::kernels::gemm::PANEL;
use crate::kernels::lanes::{Kernel, LANES, Lanes};

/// The output transform of some channels of a block, with its epilogue.
pub(super) struct Finish<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) grid: &'a Grid,
    pub(super) tiles: Range<usize>,
    pub(super) channels: Range<usize>,
    /// Products `[36][panels][channels][PANEL]`.
    pub(super) products: *const f32,
    /// Distance of two points' matrices.
    pub(super) stride: usize,
    pub(super) epilogue: &'a Epilogue<'a>,
    /// The whole output, of which this task writes its channels of its tiles.
    pub(super) out: *mut f32,
}

/// Eight tiles' places.
struct Group {
    /// Where each lane's first pixel is in the output and in the residual, in channel 0.
    out: [usize; LANES],
    residual: [usize; LANES],
    /// Whether all eight exist and lie wholly inside the map.
    whole: bool,
    paired: bool,
    tiles: Range<usize>,
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let groups: Vec<Group> = self
            .tiles
            .clone()
            .step_by(LANES)
            .map(|start| self.group(start))
            .collect();
        for channel in self.channels.clone() {
            for (index, group) in groups.iter().enumerate() {
                let (panel, at) = (index * LANES / PANEL, index * LANES % PANEL);
                let row = panel * self.geometry.out_channels + channel;
                // SAFETY: eight products of the channel at each point.
                let pixels = unsafe {
                    let start = self.products.add(row * PANEL + at);
                    pixels(l, start, self.stride)
                };
                // SAFETY: the channel's pixels of these tiles are this task's own.
                unsafe {
                    match (group.whole, group.paired) {
                        (true, true) => self.write_whole::<L, true>(l, pixels, channel, group),
                        (true, false) => self.write_whole::<L, false>(l, pixels, channel, group),
                        _ => self.write_parts(l, pixels, channel, group),
                    }
                }
            }
        }
    }
}

/// The 4x4 outputs of eight tiles: `[row][column]`, a lane a tile.
///
/// # Safety
/// Eight products must be readable at `start` and at 35 further places, `stride` apart.
#[inline(always)]
unsafe fn pixels<L: Lanes>(l: L, start: *const f32, stride: usize) -> [[L::V; TILE]; TILE] {
    // Written out, because arrays filled in loops are first cleared in memory.
    // SAFETY: by this function's contract.
    let [a, b, c, d, e, f] = unsafe {
        [
            column(l, start, stride),
            column(l, start.add(stride), stride),
            column(l, start.add(2 * stride), stride),
            column(l, start.add(3 * stride), stride),
            column(l, start.add(4 * stride), stride),
            column(l, start.add(5 * stride), stride),
        ]
    };
    [
        transform::output4(l, [a[0], b[0], c[0], d[0], e[0], f[0]]),
        transform::output4(l, [a[1], b[1], c[1], d[1], e[1], f[1]]),
        transform::output4(l, [a[2], b[2], c[2], d[2], e[2], f[2]]),
        transform::output4(l, [a[3], b[3], c[3], d[3], e[3], f[3]]),
    ]
}

/// Four rows' values of one column of points.
///
/// # Safety
/// Eight products must be readable at `start` and at five further places, six `stride`s apart.
#[inline(always)]
unsafe fn column<L: Lanes>(l: L, start: *const f32, stride: usize) -> [L::V; TILE] {
    let row = POINTS * stride;
    // SAFETY: by this function's contract.
    let products = unsafe {
        [
            l.load(start),
            l.load(start.add(row)),
            l.load(start.add(2 * row)),
            l.load(start.add(3 * row)),
            l.load(start.add(4 * row)),
            l.load(start.add(5 * row)),
        ]
    };
    transform::output4(l, products)
}

impl Finish<'_> {
    /// The places of the tiles from `start` on.
    fn group(&self, start: usize) -> Group {
        let tiles = start..self.tiles.end.min(start + LANES);
        let mut group = Group {
            out: [0; LANES],
            residual: [0; LANES],
            whole: tiles.len() == LANES,
            paired: self.grid.is_paired(&tiles),
            tiles: tiles.clone(),
        };
        let residual_stride = self
            .epilogue
            .residual
            .map_or(0, |images| images.batch_stride());
        for (place, index) in tiles.enumerate() {
            let (tile, lane) = (self.grid.tile(index), lane(place, group.paired));
            let pixel = tile.row * TILE * self.geometry.out_w + tile.col * TILE;
            group.out[lane] = tile.image * self.geometry.out_image() + pixel;
            group.residual[lane] = tile.image * residual_stride + pixel;
            let (rows, cols) = self.extent(tile);
            group.whole &= rows == TILE && cols == TILE;
        }
        group
    }

    /// How much of a tile lies inside the map.
    fn extent(&self, tile: Tile) -> (usize, usize) {
        let rows = TILE.min(self.geometry.out_h - tile.row * TILE);
        (rows, TILE.min(self.geometry.out_w - tile.col * TILE))
    }

    /// Writes eight whole tiles.
    ///
    /// # Safety
    /// The channel's pixels of these tiles must be this task's own.
    #[inline(always)]
    unsafe fn write_whole<L: Lanes, const PAIRED: bool>(
        &self,
        l: L,
        pixels: [[L::V; TILE]; TILE],
        channel: usize,
        group: &Group,
    ) {
        let bias = l.splat(self.epilogue.bias.map_or(0.0, |bias| bias[channel]));
        let plane = channel * self.geometry.out_plane();
        for (i, mut row) in pixels.into_iter().enumerate() {
            let start = plane + i * self.geometry.out_w;
            for v in &mut row {
                *v = l.add(*v, bias);
            }
            if let Some(residual) = &self.epilogue.residual {
                // SAFETY: the residual has the output's shape and these tiles are whole.
                let add = unsafe {
                    let start = residual.start().add(start);
                    if PAIRED {
                        l.load_pairs4(start, &group.residual)
                    } else {
                        l.load_columns4(start, &group.residual)
                    }
                };
                for (v, add) in row.iter_mut().zip(add) {
                    *v = l.add(*v, add);
                }
            }
            if self.epilogue.relu {
                for v in &mut row {
                    *v = l.relu(*v);
                }
            }
            // SAFETY: whole tiles inside the map, this task's own by this function's contract.
            unsafe {
                if PAIRED {
                    l.store_pairs4(self.out.add(start), &group.out, row);
                } else {
                    l.store_columns4(self.out.add(start), &group.out, row);
                }
            }
        }
    }

    /// Writes tiles of which some reach over the map's edge, pixel by pixel.
    ///
    /// # Safety
    /// As [`Self::write_whole`].
    #[inline(always)]
    unsafe fn write_parts<L: Lanes>(
        &self,
        l: L,
        pixels: [[L::V; TILE]; TILE],
        channel: usize,
        group: &Group,
    ) {
        let mut lanes = [[[0f32; LANES]; TILE]; TILE];
        for (values, pixels) in lanes
            .as_flattened_mut()
            .iter_mut()
            .zip(pixels.as_flattened())
        {
            // SAFETY: eight floats.
            unsafe { l.store(values.as_mut_ptr(), *pixels) };
        }
        for (place, index) in group.tiles.clone().enumerate() {
            let (tile, lane) = (self.grid.tile(index), lane(place, group.paired));
            let (rows, cols) = self.extent(tile);
            for (i, row) in lanes.iter().enumerate().take(rows) {
                let at = channel * self.geometry.out_plane()
                    + (tile.row * TILE + i) * self.geometry.out_w
                    + tile.col * TILE;
                let mut line: [f32; TILE] = std::array::from_fn(|j| row[j][lane]);
                self.epilogue
                    .apply(&mut line[..cols], tile.image, channel, at);
                let target = tile.image * self.geometry.out_image() + at;
                for (j, value) in line.iter().enumerate().take(cols) {
                    // SAFETY: inside the map and this task's own.
                    unsafe { *self.out.add(target + j) = *value };
                }
            }
        }
    }
}
