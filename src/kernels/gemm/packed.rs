//! Products whose sides are rearranged once and then used by many tasks, always by our own kernel.

use std::ops::Range;

use super::micro::{Left, Order, PANEL, Target, strips};
use super::{MatRef, columns, cuts, pack, span, strided};
use crate::kernels::parallel::{self, SharedMut, with_scratch, written};

/// Rows of a left side that are multiplied with one panel after the other: with 256 columns 96 KB, which stays
/// in the second cache while the panels pass.
const ROW_BLOCK: usize = 96;

/// Elements of a right side of `inner` rows and `cols` columns as panels.
pub(crate) fn panels_len(inner: usize, cols: usize) -> usize {
    inner * cols.next_multiple_of(PANEL)
}

/// Writes `rhs`, `inner` rows of `cols` columns, as panels one after the other.
pub(crate) fn pack_panels(rhs: MatRef, (inner, cols): (usize, usize), to: &mut [f32]) {
    assert!(
        span(inner, cols, rhs.row_stride, rhs.col_stride) <= rhs.data.len(),
        "a matrix reaches past its slice"
    );
    pack_part(rhs, 0..inner, cols, to);
}

/// Rows `inner` of `rhs` as panels.
fn pack_part(rhs: MatRef, inner: Range<usize>, cols: usize, to: &mut [f32]) {
    let panels = to[..panels_len(inner.len(), cols)].chunks_exact_mut(inner.len().max(1) * PANEL);
    for (index, panel) in panels.enumerate() {
        pack::panel(rhs, inner.clone(), index * PANEL, cols, panel);
    }
}

/// [`super::gemm_into`] with a right side from [`pack_panels`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn gemm_panels(
    (m, n, k): (usize, usize, usize),
    dst: *mut f32,
    dst_stride: usize,
    accumulate: bool,
    lhs: MatRef,
    panels: &[f32],
) {
    assert!(
        span(m, k, lhs.row_stride, lhs.col_stride) <= lhs.data.len()
            && panels_len(k, n) <= panels.len(),
        "a matrix reaches past its slice"
    );
    for inner in cuts(k) {
        let left = strided(MatRef {
            data: &lhs.data[(inner.start * lhs.col_stride).min(lhs.data.len())..],
            ..lhs
        });
        for first in (0..n).step_by(PANEL) {
            let panel = &panels[first * k + inner.start * PANEL..];
            // SAFETY: columns `first` to `first + PANEL` of the target, as far as there are any.
            unsafe {
                let target = Target {
                    start: dst.add(first),
                    stride: dst_stride,
                    accumulate: accumulate || inner.start > 0,
                };
                columns((m, inner.len()), n - first, target, left, panel.as_ptr());
            }
        }
    }
}

/// A left side in the order in which the kernel reads it.
pub(crate) struct PackedRows {
    rows: usize,
    inner: usize,
    /// For each of the inner size's [`cuts`] the [`row_blocks`], in each of these the [`strips`].
    data: Vec<f32>,
}

impl PackedRows {
    /// Rearranges `rows` rows of `inner` elements, `stride` apart, on all threads.
    pub(crate) fn pack(data: &[f32], (rows, inner): (usize, usize), stride: usize) -> Self {
        let blocks: Vec<Range<usize>> = row_blocks(rows).collect();
        let pack = |index: usize, to: &SharedMut| {
            let block = blocks[index].clone();
            for cut in cuts(inner) {
                let start = rows * cut.start + block.start * cut.len();
                // SAFETY: the block's part of this cut is this task's alone.
                let to = unsafe { to.slice(start..start + block.len() * cut.len()) };
                let from = &data[block.start * stride + cut.start..];
                pack_block(from, (block.len(), cut.len()), stride, to);
            }
        };
        // SAFETY: the blocks and the cuts cover all rows and columns.
        let packed = unsafe {
            written(rows * inner, |to| {
                parallel::for_each(blocks.len(), |index| pack(index, to));
            })
        };
        Self {
            rows,
            inner,
            data: packed,
        }
    }

    /// `dst = self * rhs` (or `+=`) on this thread; `rhs` has `cols` columns.
    ///
    /// # Safety
    /// As [`super::gemm_into`].
    pub(crate) unsafe fn times(
        &self,
        rhs: MatRef,
        cols: usize,
        dst: *mut f32,
        dst_stride: usize,
        accumulate: bool,
    ) {
        assert!(
            span(self.inner, cols, rhs.row_stride, rhs.col_stride) <= rhs.data.len(),
            "a matrix reaches past its slice"
        );
        for cut in cuts(self.inner) {
            with_scratch(panels_len(cut.len(), cols), |panels| {
                pack_part(rhs, cut.clone(), cols, panels);
                let accumulate = accumulate || cut.start > 0;
                for block in row_blocks(self.rows) {
                    // SAFETY: the block's rows of the target, by this function's contract.
                    unsafe {
                        let target = Target {
                            start: dst.add(block.start * dst_stride),
                            stride: dst_stride,
                            accumulate,
                        };
                        self.block(block, &cut, target, (panels, cols));
                    }
                }
            });
        }
    }

    /// A block of rows, part `cut` of their inner size, times all panels.
    ///
    /// # Safety
    /// As [`super::gemm_into`] for `target`.
    unsafe fn block(
        &self,
        block: Range<usize>,
        cut: &Range<usize>,
        target: Target,
        (panels, cols): (&[f32], usize),
    ) {
        let start = self.rows * cut.start + block.start * cut.len();
        let left = Left {
            start: self.data[start..start + block.len() * cut.len()].as_ptr(),
            order: Order::Strips,
        };
        for first in (0..cols).step_by(PANEL) {
            let panel = &panels[first * cut.len()..];
            // SAFETY: columns of the target that exist, by this function's contract.
            unsafe {
                let target = Target {
                    start: target.start.add(first),
                    ..target
                };
                columns(
                    (block.len(), cut.len()),
                    cols - first,
                    target,
                    left,
                    panel.as_ptr(),
                );
            }
        }
    }
}

/// Blocks of rows; the last is longer rather than very short.
fn row_blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = rows - start;
        let count = if left < ROW_BLOCK + ROW_BLOCK / 8 {
            left
        } else {
            ROW_BLOCK
        };
        start += count;
        (count > 0).then_some(start - count..start)
    })
}

/// Strips of rows, each column by column.
fn pack_block(from: &[f32], (rows, inner): (usize, usize), stride: usize, to: &mut [f32]) {
    for (first, count) in strips(rows) {
        let strip = &mut to[first * inner..(first + count) * inner];
        for row in 0..count {
            let from = &from[(first + row) * stride..][..inner];
            let to = strip[row..].iter_mut().step_by(count);
            to.zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::gemm_into;
    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i + seed) * 37 % 101) as f32 / 50.0 - 1.0)
            .collect()
    }

    /// Packed sides give the bits that unpacked ones give, whatever the sizes.
    #[test]
    fn packing_changes_no_bit() {
        for (m, n, k) in [
            (1, 1, 1),
            (7, 33, 5),
            (103, 40, 300),
            (200, 16, 513),
            (97, 96, 64),
        ] {
            let (a, b) = (values(m * k, 0), values(n * k, 5));
            let (lhs, rhs) = (MatRef::rows(&a, k), MatRef::rows(&b, k).transposed());
            let [mut plain, mut panels, mut rows] = [0; 3].map(|_| values(m * (n + 2), 9));
            let mut packed = vec![0.0; panels_len(k, n)];
            pack_panels(rhs, (k, n), &mut packed);
            let left = PackedRows::pack(&a, (m, k), k);
            // SAFETY: rows of n + 2 elements, the first n of which are the product's.
            unsafe {
                gemm_into((m, n, k), plain.as_mut_ptr(), n + 2, true, lhs, rhs);
                gemm_panels((m, n, k), panels.as_mut_ptr(), n + 2, true, lhs, &packed);
                left.times(rhs, n, rows.as_mut_ptr(), n + 2, true);
            }
            let gap = |found: &[f32]| {
                let gaps = found.iter().zip(&plain).map(|(a, b)| (a - b).abs());
                gaps.fold(0f32, f32::max)
            };
            // To the bit where `gemm_into` uses the same kernel.
            let most = if super::super::avx2_is_best() {
                0.0
            } else {
                1e-4
            };
            assert!(gap(&panels) <= most && gap(&rows) <= most, "{m} {n} {k}");
        }
    }
}
