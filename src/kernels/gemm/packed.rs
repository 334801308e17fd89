//! Products whose sides are rearranged once and then used by many tasks, always by our own kernel.

use std::ops::Range;

use super::micro::{Left, Order, PANEL, Target, strips};
use super::{MatRef, columns, cuts, pack, span, strided};
use crate::kernels::parallel::{self, SharedMut, written};

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
    let panels = to[..panels_len(inner, cols)].chunks_exact_mut(inner.max(1) * PANEL);
    for (index, panel) in panels.enumerate() {
        pack::panel(rhs, 0..inner, index * PANEL, cols, panel);
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

    /// The blocks of rows, for [`PackedRows::times`].
    pub(crate) fn blocks(&self) -> Vec<Range<usize>> {
        row_blocks(self.rows).collect()
    }

    /// `dst = rows * panels` on this thread: `rows` is one of the [`PackedRows::blocks`], `panels` are whole ones of
    /// [`pack_panels`] that begin with the wanted columns, of which there are `cols`.
    ///
    /// # Safety
    /// `rows.len()` rows of `cols` elements, `dst_stride` apart, must be valid for reads and writes from `dst` on, and
    /// nobody else may access them.
    pub(crate) unsafe fn times(
        &self,
        rows: Range<usize>,
        (panels, cols): (&[f32], usize),
        dst: *mut f32,
        dst_stride: usize,
    ) {
        assert!(
            panels_len(self.inner, cols) <= panels.len(),
            "a matrix reaches past its slice"
        );
        for cut in cuts(self.inner) {
            let start = self.rows * cut.start + rows.start * cut.len();
            let left = Left {
                start: self.data[start..start + rows.len() * cut.len()].as_ptr(),
                order: Order::Strips,
            };
            for first in (0..cols).step_by(PANEL) {
                let panel = &panels[first * self.inner + cut.start * PANEL..];
                // SAFETY: columns of the target that exist, by this function's contract.
                unsafe {
                    let target = Target {
                        start: dst.add(first),
                        stride: dst_stride,
                        accumulate: cut.start > 0,
                    };
                    let sizes = (rows.len(), cut.len());
                    columns(sizes, cols - first, target, left, panel.as_ptr());
                }
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
        let to = &mut to[first * inner..(first + count) * inner];
        let from = &from[first * stride..];
        match count {
            6 => pack_strip::<6>(from, inner, stride, to),
            5 => pack_strip::<5>(from, inner, stride, to),
            4 => pack_strip::<4>(from, inner, stride, to),
            3 => pack_strip::<3>(from, inner, stride, to),
            2 => pack_strip::<2>(from, inner, stride, to),
            _ => pack_strip::<1>(from, inner, stride, to),
        }
    }
}

fn pack_strip<const N: usize>(from: &[f32], inner: usize, stride: usize, to: &mut [f32]) {
    let rows: [&[f32]; N] = std::array::from_fn(|row| &from[row * stride..][..inner]);
    let (columns, _) = to.as_chunks_mut::<N>();
    for (column, to) in columns.iter_mut().enumerate() {
        *to = std::array::from_fn(|row| rows[row][column]);
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
                gemm_into((m, n, k), plain.as_mut_ptr(), n + 2, false, lhs, rhs);
                gemm_panels((m, n, k), panels.as_mut_ptr(), n + 2, false, lhs, &packed);
                for block in left.blocks() {
                    let to = rows.as_mut_ptr().add(block.start * (n + 2));
                    left.times(block, (&packed, n), to, n + 2);
                }
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
