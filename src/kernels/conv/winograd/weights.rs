//! 3x3 weights at Winograd's points, and gradients back from there.

use super::transform::{self, POINTS, PRODUCTS};
use crate::kernels::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::kernels::parallel::{SharedMut, for_each};

/// Taps of a kernel.
const TAPS: usize = 9;

/// Weights at the points, `[36][rows][cols]`: rows are output channels, columns input channels.
#[derive(Debug)]
pub(crate) struct Weights {
    values: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Weights {
    /// Transforms `[out][in][3][3]`.
    pub(crate) fn new(weight: &[f32], out: usize, input: usize) -> Self {
        Self::build(
            out,
            input,
            |row, col| &weight[(row * input + col) * TAPS..][..TAPS],
            false,
        )
    }

    /// Transforms `[out][in][3][3]` for the gradient of the input: channels exchanged, taps turned.
    pub(crate) fn flipped(weight: &[f32], out: usize, input: usize) -> Self {
        Self::build(
            input,
            out,
            |row, col| &weight[(col * input + row) * TAPS..][..TAPS],
            true,
        )
    }

    fn build<'a>(
        rows: usize,
        cols: usize,
        taps: impl Fn(usize, usize) -> &'a [f32] + Sync + Send,
        turned: bool,
    ) -> Self {
        let stride = point_stride(rows, cols);
        let mut values = vec![0f32; PRODUCTS * stride];
        let shared = SharedMut::new(&mut values);
        let band = 16;
        for_each(rows.div_ceil(band), |task| {
            let rows = task * band..rows.min((task + 1) * band);
            // SAFETY: tasks own rows.
            dispatch(Forward {
                taps: &taps,
                turned,
                rows,
                cols,
                stride,
                out: shared.at(0),
            });
        });
        Self { values, rows, cols }
    }

    /// The matrix `[rows][cols]` of one point, from row `first` on.
    pub(super) fn point(&self, point: usize, first: usize) -> &[f32] {
        let start = point * point_stride(self.rows, self.cols);
        &self.values[start + first * self.cols..start + self.rows * self.cols]
    }
}

/// Distance of two points' matrices: off by a cache line, so that the 36 do not share cache sets.
pub(super) fn point_stride(rows: usize, cols: usize) -> usize {
    (rows * cols).next_multiple_of(16) + 16
}

/// The transform of some rows.
struct Forward<'a, F> {
    taps: &'a F,
    turned: bool,
    rows: std::ops::Range<usize>,
    cols: usize,
    stride: usize,
    out: *mut f32,
}

impl<'a, F: Fn(usize, usize) -> &'a [f32]> Kernel for Forward<'_, F> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for row in self.rows.clone() {
            for start in (0..self.cols).step_by(LANES) {
                let count = LANES.min(self.cols - start);
                let mut lanes = [[0f32; LANES]; TAPS];
                for lane in 0..count {
                    let taps = (self.taps)(row, start + lane);
                    for (tap, values) in lanes.iter_mut().enumerate() {
                        values[lane] = taps[if self.turned { TAPS - 1 - tap } else { tap }];
                    }
                }
                let mut lines = [[l.splat(0.0); POINTS]; 3];
                for (line, taps) in lines.iter_mut().zip(lanes.chunks_exact(3)) {
                    let [a, b, c] = [taps[0].as_ptr(), taps[1].as_ptr(), taps[2].as_ptr()];
                    // SAFETY: arrays of eight floats.
                    *line = unsafe { transform::kernel3(l, [l.load(a), l.load(b), l.load(c)]) };
                }
                let [a, b, c] = &lines;
                for j in 0..POINTS {
                    let column = transform::kernel3(l, [a[j], b[j], c[j]]);
                    for (i, v) in column.into_iter().enumerate() {
                        let at = (i * POINTS + j) * self.stride + row * self.cols + start;
                        // SAFETY: `count` elements of this task's row.
                        unsafe { store_some(l, self.out.add(at), v, count) };
                    }
                }
            }
        }
    }
}

/// Stores the first `count` lanes.
///
/// # Safety
/// `to` must be valid for writing `count` floats.
#[inline(always)]
unsafe fn store_some<L: Lanes>(l: L, to: *mut f32, v: L::V, count: usize) {
    if count == LANES {
        // SAFETY: eight floats, by this function's contract.
        unsafe { l.store(to, v) };
        return;
    }
    let mut lanes = [0f32; LANES];
    // SAFETY: eight floats here, `count` there.
    unsafe {
        l.store(lanes.as_mut_ptr(), v);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
    }
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
