//! Matrix products through the `gemm` crate (run-time CPU dispatch), on one thread, bounds checked.

use gemm::Parallelism;

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

/// Inner sizes are cut here: gemm itself would cut longer ones at a place that depends on the other
/// sizes, and an element's rounding must not depend on how many neighbours are computed with it.
const INNER: usize = 512;

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
    let mut start = 0;
    while start == 0 || start < k {
        // SAFETY: both operands lie inside their slices (asserted); `dst` by this function's contract.
        // Strides are element counts of real allocations, so they fit isize.
        unsafe {
            gemm::gemm(
                m,
                n,
                INNER.min(k - start),
                dst,
                1,
                dst_stride as isize,
                accumulate || start > 0,
                lhs.data.as_ptr().add(start * lhs.col_stride),
                lhs.col_stride as isize,
                lhs.row_stride as isize,
                rhs.data.as_ptr().add(start * rhs.row_stride),
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
        start += INNER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
