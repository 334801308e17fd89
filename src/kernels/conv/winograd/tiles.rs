//! Which 4x4 output tiles a block of work holds, and where their windows lie.

use std::ops::Range;

use super::transform::{POINTS, TILE};
use crate::kernels::conv::geometry::Geometry;
use crate::kernels::gemm::PANEL;
use crate::kernels::lanes::LANES;

/// The tiles of a batch, image by image, row by row.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    rows: usize,
    cols: usize,
    batch: usize,
}

/// One tile's place: its image and its position in the image's grid.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl Grid {
    /// The tiles of a convolution's output.
    pub(super) fn new(geometry: &Geometry) -> Self {
        let (rows, cols) = (geometry.out_h.div_ceil(TILE), geometry.out_w.div_ceil(TILE));
        Self {
            rows,
            cols,
            batch: geometry.batch,
        }
    }

    /// All tiles of the batch.
    pub(super) fn len(&self) -> usize {
        self.rows * self.cols * self.batch
    }

    /// Whether a group of tiles can be read in pairs, two neighbours at a time; then tile t sits in
    /// lane `t / 2 + t % 2 * 4`.
    pub(super) fn is_paired(&self, tiles: &Range<usize>) -> bool {
        tiles.len() == LANES && self.cols.is_multiple_of(2) && tiles.start.is_multiple_of(2)
    }

    /// The tile of a flat index.
    pub(super) fn tile(&self, index: usize) -> Tile {
        let (image, index) = (
            index / (self.rows * self.cols),
            index % (self.rows * self.cols),
        );
        Tile {
            image,
            row: index / self.cols,
            col: index % self.cols,
        }
    }
}

/// The lane of a group's tile; see [`Grid::is_paired`].
pub(super) fn lane(tile: usize, paired: bool) -> usize {
    if paired {
        tile / 2 + tile % 2 * 4
    } else {
        tile
    }
}

/// Planes in which every tile has a window: 6x6 of the input, or 4x4 of the output's gradient.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    height: usize,
    width: usize,
    padding: usize,
}

impl Windows {
    /// The input's.
    pub(super) fn of_input(geometry: &Geometry) -> Self {
        Self {
            height: geometry.in_h,
            width: geometry.in_w,
            padding: geometry.padding,
        }
    }

    /// The output's gradient's.
    pub(super) fn of_output(geometry: &Geometry) -> Self {
        Self {
            height: geometry.out_h,
            width: geometry.out_w,
            padding: 0,
        }
    }
}

/// Rows of one image's plane that a block's windows touch, with their place in the padded copy.
pub(super) struct Strip {
    pub(super) image: usize,
    pub(super) rows: Range<usize>,
    /// Where the first of `rows` goes, past the padding on its left.
    pub(super) start: usize,
}

/// Eight windows.
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// Where each lane's window starts in the copy; lanes past the last tile see zeros.
    pub(super) offsets: [usize; LANES],
    pub(super) paired: bool,
}

/// A run of tiles in groups of [`LANES`], filled up to whole [`PANEL`]s, with a padded copy's layout that all channels share.
pub(super) struct Patchwork {
    pub(super) strips: Vec<Strip>,
    /// Elements of a plane's row.
    pub(super) width: usize,
    /// Distance of the copy's rows.
    pub(super) stride: usize,
    /// Elements of the copy.
    pub(super) len: usize,
    /// The windows, eight tiles each.
    pub(super) groups: Vec<Group>,
}

impl Patchwork {
    /// Lays out the windows of `tiles`.
    pub(super) fn new(grid: &Grid, windows: &Windows, tiles: Range<usize>) -> Self {
        let stride = TILE * grid.cols + TILE;
        let mut patchwork = Self {
            strips: Vec::new(),
            width: windows.width,
            stride,
            // A window of zeros comes first.
            len: POINTS * stride,
            groups: tiles
                .clone()
                .step_by(PANEL)
                .flat_map(|start| [start, start + LANES])
                .map(|start| Group {
                    offsets: [0; LANES],
                    paired: grid.is_paired(&(start..tiles.end.min(start + LANES))),
                })
                .collect(),
        };
        let mut start = tiles.start;
        while start < tiles.end {
            let first = grid.tile(start);
            let image_end = (first.image + 1) * grid.rows * grid.cols;
            let end = tiles.end.min(image_end);
            let top = patchwork.add_strip(windows, first, grid.tile(end - 1).row);
            for index in start..end {
                let (tile, place) = (grid.tile(index), index - tiles.start);
                let group = &mut patchwork.groups[place / LANES];
                group.offsets[lane(place % LANES, group.paired)] =
                    top + (tile.row - first.row) * TILE * stride + tile.col * TILE;
            }
            start = end;
        }
        patchwork
    }

    /// Its tiles and what fills the last panel.
    pub(super) fn tiles(&self) -> usize {
        self.groups.len() * LANES
    }

    /// Adds the rows of one image from `first` to `last_row`; returns where they start.
    fn add_strip(&mut self, windows: &Windows, first: Tile, last_row: usize) -> usize {
        let (top, padding) = (self.len, windows.padding);
        // In rows of the padded plane.
        let (from, to) = (first.row * TILE, last_row * TILE + POINTS);
        let rows = from.saturating_sub(padding)..to.saturating_sub(padding).min(windows.height);
        let start = top + (rows.start + padding - from) * self.stride + padding;
        self.strips.push(Strip {
            image: first.image,
            rows,
            start,
        });
        self.len += (to - from) * self.stride;
        top
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::input::{self, Planes};
    use super::*;
    use crate::kernels::lanes::Plain;
    use crate::kernels::view::Images;

    #[test]
    fn windows_hold_their_pixels_and_zeros_around() {
        let geometry = Geometry::new(&[3, 1, 6, 9], &[1, 1, 3, 3], 1, 1).unwrap();
        let (grid, windows) = (Grid::new(&geometry), Windows::of_input(&geometry));
        assert_eq!(grid.len(), 3 * 2 * 3);
        let value = |image: usize, y: usize, x: usize| (1 + image * 100 + y * 10 + x) as f32;
        let pixels: Vec<f32> = (0..162).map(|i| value(i / 54, i / 9 % 6, i % 9)).collect();
        let planes = Planes {
            images: Images::packed(&pixels, 54),
            mask: None,
            plane: 54,
        };
        for tiles in [0..18, 4..13, 17..18] {
            let patchwork = Patchwork::new(&grid, &windows, tiles.clone());
            let mut copy = vec![0f32; patchwork.len];
            input::fill(Plain, &planes, 0, &patchwork, &mut copy);
            for place in 0..tiles.len().next_multiple_of(LANES) {
                let group = patchwork.groups[place / LANES];
                let start = group.offsets[lane(place % LANES, group.paired)];
                let tile = (place < tiles.len()).then(|| grid.tile(tiles.start + place));
                for (y, x) in (0..6).flat_map(|y| (0..6).map(move |x| (y, x))) {
                    let expected = tile.map_or(0.0, |tile| {
                        let (y, x) = (tile.row * 4 + y, tile.col * 4 + x);
                        let inside = (1..=6).contains(&y) && (1..=9).contains(&x);
                        if inside {
                            value(tile.image, y - 1, x - 1)
                        } else {
                            0.0
                        }
                    });
                    assert_eq!(copy[start + y * patchwork.stride + x], expected);
                }
            }
        }
    }
}
