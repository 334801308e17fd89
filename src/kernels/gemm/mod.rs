//! Matrix products on one thread, bounds checked: by our own kernel where AVX2 is the best there is,
//! else through the `gemm` crate.

mod micro;
mod pack;
mod packed;

use std::ops::Range;

use gemm::Parallelism;

pub(crate) use self::micro::PANEL;
use self::micro::{Left, Order, Product, Target};
pub(crate) use self::packed::{PackedRows, gemm_panels, pack_panels, panels_len};
use super::lanes::dispatch;
use super::parallel::with_scratch;

/// Whether this processor's widest vectors are AVX2's, with fused multiply-add.
fn avx2_is_best() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx2") && has!("fma") && !has!("avx512f")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// A matrix read from a slice: element (r, c) is `data[r * row_stride + c * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct MatRef<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// Rows of `row_stride` elements, one after the other.
    pub(crate) fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self {
            data,
            row_stride,
            col_stride: 1,
        }
    }

    /// The same elements with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            data: self.data,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// Inner sizes are cut here: a panel's rows stay in the first cache, and gemm itself would cut longer ones at a
/// place that depends on the other sizes, and an element's rounding must not depend on how many neighbours
/// are computed with it.
const INNER: usize = 256;

/// The parts of an inner size; one, though empty, of zero.
fn cuts(inner: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..inner.max(1)).step_by(INNER);
    starts.map(move |start| start..inner.min(start + INNER))
}

/// The number of elements from the first to the last of a matrix, both counted.
fn span(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    (rows - 1) * row_stride + (cols - 1) * col_stride + 1
}

/// `dst = lhs * rhs`, or `dst += lhs * rhs` with `accumulate`; `dst` is `m` rows of `n` elements,
/// `dst_stride` apart, `k` the inner size.
///
/// # Safety
/// Those `m * n` elements must be valid for reads and writes, and nobody else may access them.
#[allow(clippy::too_many_arguments)] // the sizes and strides of a product
pub(crate) unsafe fn gemm_into(
    (m, n, k): (usize, usize, usize),
    dst: *mut f32,
    dst_stride: usize,
    accumulate: bool,
    lhs: MatRef,
    rhs: MatRef,
) {
    let fits = |mat: &MatRef, rows, cols| {
        span(rows, cols, mat.row_stride, mat.col_stride) <= mat.data.len()
    };
    assert!(
        fits(&lhs, m, k) && fits(&rhs, k, n),
        "a matrix reaches past its slice"
    );
    for inner in cuts(k) {
        let target = Target {
            start: dst,
            stride: dst_stride,
            accumulate: accumulate || inner.start > 0,
        };
        // SAFETY: both operands lie inside their slices (asserted); `dst` by this function's contract.
        unsafe {
            if avx2_is_best() {
                by_panels((m, n), inner, target, lhs, rhs);
            } else {
                by_crate((m, n), inner, target, lhs, rhs);
            }
        }
    }
}

/// Part `inner` of a product by the `gemm` crate.
///
/// # Safety
/// The operands must lie inside their slices; for `target` see [`gemm_into`].
unsafe fn by_crate(
    (m, n): (usize, usize),
    inner: Range<usize>,
    target: Target,
    lhs: MatRef,
    rhs: MatRef,
) {
    // SAFETY: by this function's contract; strides are element counts of real allocations, so they fit isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            inner.len(),
            target.start,
            1,
            target.stride as isize,
            target.accumulate,
            lhs.data.as_ptr().add(inner.start * lhs.col_stride),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr().add(inner.start * rhs.row_stride),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Part `inner` of a product by our kernel.
///
/// # Safety
/// As [`by_crate`].
unsafe fn by_panels(
    (m, n): (usize, usize),
    inner: Range<usize>,
    target: Target,
    lhs: MatRef,
    rhs: MatRef,
) {
    if m == 0 {
        return;
    }
    let lhs = MatRef {
        data: &lhs.data[(inner.start * lhs.col_stride).min(lhs.data.len())..],
        ..lhs
    };
    with_scratch(inner.len() * PANEL, |panel| {
        for first in (0..n).step_by(PANEL) {
            pack::panel(rhs, inner.clone(), first, n, panel);
            // SAFETY: columns `first` to `first + PANEL` of the target, as far as there are any.
            unsafe {
                let target = Target {
                    start: target.start.add(first),
                    ..target
                };
                let left = strided(lhs);
                columns((m, inner.len()), n - first, target, left, panel.as_ptr());
            }
        }
    });
}

/// A matrix as the left side of the kernel.
fn strided(lhs: MatRef) -> Left {
    Left {
        start: lhs.data.as_ptr(),
        order: Order::Strided {
            row: lhs.row_stride,
            col: lhs.col_stride,
        },
    }
}

/// A product with one panel, of which only the first `width` columns are wanted.
///
/// # Safety
/// `left` must hold `m x k` elements, `right` must have `k` rows; for `target` see [`gemm_into`].
unsafe fn columns(
    (m, k): (usize, usize),
    width: usize,
    target: Target,
    left: Left,
    right: *const f32,
) {
    let product = |target| Product {
        rows: m,
        inner: k,
        left,
        right,
        target,
    };
    if width >= PANEL {
        dispatch(product(target));
        return;
    }
    with_scratch(m * PANEL, |room| {
        let whole = Target {
            start: room.as_mut_ptr(),
            stride: PANEL,
            accumulate: false,
        };
        dispatch(product(whole));
        for (r, row) in room.chunks_exact(PANEL).enumerate() {
            for (c, value) in row.iter().enumerate().take(width) {
                // SAFETY: the target's columns that exist, by this function's contract.
                let to = unsafe { &mut *target.start.add(r * target.stride + c) };
                *to = if target.accumulate {
                    *to + value
                } else {
                    *value
                };
            }
        }
    });
}

/// `dst = lhs * panel`: `m` rows of [`PANEL`] elements, one after the other; `panel` has `k` rows.
///
/// # Safety
/// Those `m * PANEL` elements must be valid for reads and writes, and nobody else may access them.
pub(crate) unsafe fn times_panel(
    (m, k): (usize, usize),
    dst: *mut f32,
    lhs: MatRef,
    panel: &[f32],
) {
    assert!(
        span(m, k, lhs.row_stride, lhs.col_stride) <= lhs.data.len() && k * PANEL <= panel.len(),
        "a matrix reaches past its slice"
    );
    let target = Target {
        start: dst,
        stride: PANEL,
        accumulate: false,
    };
    // SAFETY: both sides are inside their slices (asserted), the target by this function's contract.
    unsafe {
        if avx2_is_best() {
            columns((m, k), PANEL, target, strided(lhs), panel.as_ptr());
        } else {
            by_crate((m, PANEL), 0..k, target, lhs, MatRef::rows(panel, PANEL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every strip height, partial panels, cut inner sizes and all four orders of elements.
    #[test]
    fn agrees_with_plain_loops() {
        let value = |i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0;
        for (m, n, k) in [
            (1, 1, 1),
            (7, 33, 5),
            (13, 16, 300),
            (10, 47, 513),
            (64, 20, 31),
        ] {
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let b: Vec<f32> = (0..k * n).map(|i| value(i + 7)).collect();
            for (left_turned, right_turned) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let of = |data, rows, cols, turned| match turned {
                    false => MatRef::rows(data, cols),
                    true => MatRef::rows(data, rows).transposed(),
                };
                let (lhs, rhs) = (of(&a, m, k, left_turned), of(&b, k, n, right_turned));
                let at = |mat: &MatRef, r: usize, c: usize| {
                    f64::from(mat.data[r * mat.row_stride + c * mat.col_stride])
                };
                let mut found = vec![0.5f32; m * (n + 3)];
                // SAFETY: rows of n + 3 elements, the first n of which are the product's.
                unsafe { gemm_into((m, n, k), found.as_mut_ptr(), n + 3, true, lhs, rhs) };
                for (r, row) in found.chunks_exact(n + 3).enumerate() {
                    for (c, found) in row.iter().enumerate() {
                        let sum: f64 = (0..k).map(|p| at(&lhs, r, p) * at(&rhs, p, c % n)).sum();
                        let expected = if c < n { 0.5 + sum } else { 0.5 };
                        assert!(
                            (f64::from(*found) - expected).abs() < 1e-3,
                            "{m} {n} {k} at {r},{c}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn multiplies_accumulates_and_transposes() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2x3
        let b = [1.0, 0.0, 2.0, 1.0, 0.0, 3.0]; // 3x2
        let mut c = [0.0; 4];
        // SAFETY: c holds 2x2 elements.
        unsafe {
            gemm_into(
                (2, 2, 3),
                c.as_mut_ptr(),
                2,
                false,
                MatRef::rows(&a, 3),
                MatRef::rows(&b, 2),
            );
        }
        assert_eq!(c, [5.0, 11.0, 14.0, 23.0]);
        // b^T a^T = (a b)^T, added to what is there
        let (at, bt) = (
            MatRef::rows(&a, 3).transposed(),
            MatRef::rows(&b, 2).transposed(),
        );
        // SAFETY: as above.
        unsafe { gemm_into((2, 2, 3), c.as_mut_ptr(), 2, true, bt, at) };
        assert_eq!(c, [10.0, 25.0, 25.0, 46.0]);
    }
}
