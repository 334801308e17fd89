//! 3x3 weights at Winograd's points, and gradients back from there.
//!
//! Weights are transformed when they are used: at the points they are four times as large, and for
//! small maps reading that from memory would take longer than the products.

use std::ops::Range;

use super::transform::{self, POINTS, PRODUCTS};
use crate::kernels::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::kernels::parallel::{SharedMut, for_each, with_scratch};

/// Taps of a kernel.
const TAPS: usize = 9;

/// 3x3 weights of `rows` output and `cols` input channels, in one of several layouts.
#[derive(Clone, Copy)]
pub(crate) struct Taps<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    layout: Layout,
}

#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// `[rows][cols][9]`, a convolution's weight.
    Interleaved,
    /// `[cols][rows][9]`, each kernel to be turned: that weight in the gradient of the input.
    Turned,
    /// `[rows][9][cols]`, which needs no rearrangement.
    Planar,
}

impl<'a> Taps<'a> {
    /// A weight `[out][in][3][3]`.
    pub(crate) fn new(values: &'a [f32], out: usize, input: usize) -> Self {
        Self {
            values,
            rows: out,
            cols: input,
            layout: Layout::Interleaved,
        }
    }

    /// The weight `[out][in][3][3]` for the gradient of the input: channels exchanged, taps turned.
    pub(crate) fn turned(values: &'a [f32], out: usize, input: usize) -> Self {
        Self {
            values,
            rows: input,
            cols: out,
            layout: Layout::Turned,
        }
    }

    /// Weights as [`Taps::planar`] returned them.
    pub(crate) fn from_planar(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self {
            values,
            rows,
            cols,
            layout: Layout::Planar,
        }
    }

    /// The weights rearranged to `[rows][9][cols]`.
    pub(crate) fn planar(&self) -> Vec<f32> {
        let mut planar = vec![0f32; self.values.len()];
        for (row, target) in planar.chunks_exact_mut(self.cols * TAPS).enumerate() {
            self.rearrange(row, target);
        }
        planar
    }

    /// Writes one row as `[9][cols]`.
    fn rearrange(&self, row: usize, target: &mut [f32]) {
        let (cols, turned) = (self.cols, self.layout == Layout::Turned);
        for col in 0..cols {
            let kernel = if turned {
                col * self.rows + row
            } else {
                row * cols + col
            };
            let kernel = &self.values[kernel * TAPS..(kernel + 1) * TAPS];
            for (tap, value) in kernel.iter().enumerate() {
                target[if turned { TAPS - 1 - tap } else { tap } * cols + col] = *value;
            }
        }
    }

    /// Writes the values at the points of some rows, `[36][rows][cols]`, the points
    /// `point_stride(rows, cols)` apart.
    pub(super) fn transform(&self, rows: Range<usize>, points: &mut [f32]) {
        let stride = point_stride(rows.len(), self.cols);
        assert!(
            points.len() >= PRODUCTS * stride,
            "too little room for the points"
        );
        let rows_and_targets = SharedMut::new(points);
        self.transform_into(rows.clone(), rows.start, stride, &rows_and_targets);
    }

    /// [`Taps::transform`] of all rows, shared among the threads.
    pub(super) fn transform_all(&self, points: &mut [f32]) {
        let stride = point_stride(self.rows, self.cols);
        assert!(
            points.len() >= PRODUCTS * stride,
            "too little room for the points"
        );
        let points = SharedMut::new(points);
        let band = 16;
        for_each(self.rows.div_ceil(band), |task| {
            let rows = task * band..self.rows.min((task + 1) * band);
            self.transform_into(rows, 0, stride, &points);
        });
    }

    /// The transform of some rows; row `first` is the first that `points` has room for.
    fn transform_into(&self, rows: Range<usize>, first: usize, stride: usize, points: &SharedMut) {
        let len = self.cols * TAPS;
        with_scratch(len, |planar| {
            for row in rows {
                let taps = if self.layout == Layout::Planar {
                    &self.values[row * len..(row + 1) * len]
                } else {
                    self.rearrange(row, planar);
                    &*planar
                };
                let out = points.at((row - first) * self.cols);
                dispatch(Forward {
                    taps,
                    cols: self.cols,
                    stride,
                    out,
                });
            }
        });
    }
}

/// Distance of two points' matrices: off by a cache line, so that the 36 do not share cache sets.
pub(super) fn point_stride(rows: usize, cols: usize) -> usize {
    (rows * cols).next_multiple_of(16) + 16
}

/// The transform of one row, `[9][cols]`, to places `stride` apart, `cols` elements each.
struct Forward<'a> {
    taps: &'a [f32],
    cols: usize,
    stride: usize,
    out: *mut f32,
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self {
            taps,
            cols,
            stride,
            out,
        } = self;
        assert!(taps.len() == cols * TAPS, "nine planes of taps");
        let whole = cols / LANES * LANES;
        for start in (0..whole).step_by(LANES) {
            // SAFETY: eight columns of each plane, and of this row at each point, from `start` on.
            unsafe { forward_columns(l, taps.as_ptr().add(start), cols, out.add(start), stride) };
        }
        if whole < cols {
            let rest = cols - whole;
            let mut lanes = [[0f32; LANES]; TAPS];
            for (lanes, plane) in lanes.iter_mut().zip(taps.chunks_exact(cols)) {
                lanes[..rest].copy_from_slice(&plane[whole..]);
            }
            let mut points = [[0f32; LANES]; PRODUCTS];
            let (from, to) = (lanes.as_ptr().cast(), points.as_mut_ptr().cast());
            // SAFETY: planes and points of eight elements each.
            unsafe { forward_columns(l, from, LANES, to, LANES) };
            for (point, lanes) in points.iter().enumerate() {
                for (col, value) in lanes.iter().enumerate().take(rest) {
                    // SAFETY: the row's last columns.
                    unsafe { *out.add(point * stride + whole + col) = *value };
                }
            }
        }
    }
}

/// Eight kernels, their taps `plane` apart, to their points, `stride` apart.
///
/// # Safety
/// Nine times eight floats must be readable and 36 times eight writable there.
#[inline(always)]
unsafe fn forward_columns<L: Lanes>(
    l: L,
    taps: *const f32,
    plane: usize,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: by this function's contract.
    let lines = unsafe {
        [
            line(l, taps, plane),
            line(l, taps.add(3 * plane), plane),
            line(l, taps.add(6 * plane), plane),
        ]
    };
    let [a, b, c] = &lines;
    for j in 0..POINTS {
        let column = transform::kernel3(l, [a[j], b[j], c[j]]);
        for (i, v) in column.into_iter().enumerate() {
            // SAFETY: by this function's contract.
            unsafe { l.store(out.add((i * POINTS + j) * stride), v) };
        }
    }
}

/// One line of eight kernels at the points.
///
/// # Safety
/// Eight floats must be readable at `taps` and at two further places, `plane` apart.
#[inline(always)]
unsafe fn line<L: Lanes>(l: L, taps: *const f32, plane: usize) -> [L::V; POINTS] {
    // SAFETY: by this function's contract.
    let taps = unsafe {
        [
            l.load(taps),
            l.load(taps.add(plane)),
            l.load(taps.add(2 * plane)),
        ]
    };
    transform::kernel3(l, taps)
}

/// The gradient of 3x3 weights, `[rows][cols][3][3]`, from its products `[36][rows][cols]`.
pub(super) fn gradient(products: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let stride = point_stride(rows, cols);
    assert!(products.len() >= PRODUCTS * stride, "too few products");
    let mut gradient = vec![0f32; rows * cols * TAPS];
    let shared = SharedMut::new(&mut gradient);
    let band = 16;
    for_each(rows.div_ceil(band), |task| {
        let rows = task * band..rows.min((task + 1) * band);
        // SAFETY: tasks own rows.
        let out = unsafe { shared.slice(rows.start * cols * TAPS..rows.end * cols * TAPS) };
        dispatch(Backward {
            products: &products[rows.start * cols..],
            cols,
            stride,
            out,
        });
    });
    gradient
}

/// The gradient of some rows.
struct Backward<'a> {
    products: &'a [f32],
    cols: usize,
    stride: usize,
    out: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for (row, out) in self.out.chunks_exact_mut(self.cols * TAPS).enumerate() {
            for (group, out) in out.chunks_mut(LANES * TAPS).enumerate() {
                let at = row * self.cols + group * LANES;
                let mut lines = [[l.splat(0.0); 3]; POINTS];
                for (i, line) in lines.iter_mut().enumerate() {
                    let mut products = [l.splat(0.0); POINTS];
                    for (j, product) in products.iter_mut().enumerate() {
                        let place = (i * POINTS + j) * self.stride + at;
                        let lanes = &self.products[place..place + LANES];
                        // SAFETY: eight floats (the padding after each point has some).
                        *product = unsafe { l.load(lanes.as_ptr()) };
                    }
                    *line = transform::output3(l, products);
                }
                let [a, b, c, d, e, f] = &lines;
                for kx in 0..3 {
                    let column = [a[kx], b[kx], c[kx], d[kx], e[kx], f[kx]];
                    let column = transform::output3(l, column);
                    for (ky, v) in column.into_iter().enumerate() {
                        let mut lanes = [0f32; LANES];
                        // SAFETY: eight floats.
                        unsafe { l.store(lanes.as_mut_ptr(), v) };
                        for (taps, value) in out.chunks_exact_mut(TAPS).zip(lanes) {
                            taps[3 * ky + kx] = value;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_layout_gives_the_same_points() {
        let (out, input) = (5, 11);
        let values: Vec<f32> = (0..out * input * TAPS)
            .map(|i| (i * 37 % 101) as f32)
            .collect();
        let points = |taps: Taps, rows: Range<usize>| {
            let mut points = vec![0f32; PRODUCTS * point_stride(rows.len(), taps.cols)];
            taps.transform(rows, &mut points);
            points
        };
        let taps = Taps::new(&values, out, input);
        let planar = taps.planar();
        let expected = points(taps, 0..out);
        assert_eq!(
            points(Taps::from_planar(&planar, out, input), 0..out),
            expected
        );
        let mut all = vec![0f32; expected.len()];
        taps.transform_all(&mut all);
        assert_eq!(all, expected);
        let part = points(taps, 2..4);
        let (part_stride, stride) = (point_stride(2, input), point_stride(out, input));
        for point in 0..PRODUCTS {
            let expected = &expected[point * stride + 2 * input..point * stride + 4 * input];
            assert_eq!(&part[point * part_stride..][..2 * input], expected);
        }
        // Turned twice, and exchanged twice, is the weight itself.
        let turned = Taps::turned(&values, out, input).planar();
        let back: Vec<f32> = (0..out * input * TAPS)
            .map(|i| {
                let (row, col, tap) = (i / TAPS / input, i / TAPS % input, i % TAPS);
                turned[(col * TAPS + TAPS - 1 - tap) * out + row]
            })
            .collect();
        assert_eq!(back, values);
    }
}
