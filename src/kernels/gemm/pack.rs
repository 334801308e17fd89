//! Panels of a product's right side, sixteen columns wide.

use super::MatRef;
use super::micro::PANEL;
use crate::kernels::lanes::{Kernel, LANES, Lanes, dispatch};

/// Writes rows `inner` and columns `first..first + PANEL` of `rhs`, which has `cols`, one row after
/// the other; columns that do not exist become zeros.
pub(super) fn panel(
    rhs: MatRef,
    inner: std::ops::Range<usize>,
    first: usize,
    cols: usize,
    to: &mut [f32],
) {
    let width = PANEL.min(cols - first);
    let source = &rhs.data[inner.start * rhs.row_stride + first * rhs.col_stride..];
    if rhs.row_stride == 1 && width == PANEL {
        dispatch(Turn {
            source,
            stride: rhs.col_stride,
            to: &mut to[..inner.len() * PANEL],
        });
        return;
    }
    for (p, row) in to.chunks_exact_mut(PANEL).take(inner.len()).enumerate() {
        let source = &source[p * rhs.row_stride..];
        if rhs.col_stride == 1 && width == PANEL {
            row.copy_from_slice(&source[..PANEL]);
        } else {
            row.fill(0.0);
            let values = source.iter().step_by(rhs.col_stride.max(1));
            row[..width]
                .iter_mut()
                .zip(values)
                .for_each(|(to, x)| *to = *x);
        }
    }
}

/// Columns that lie one after the other, `stride` apart, to rows of a panel.
struct Turn<'a> {
    source: &'a [f32],
    stride: usize,
    to: &'a mut [f32],
}

impl Kernel for Turn<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { source, stride, to } = self;
        let inner = to.len() / PANEL;
        assert!(
            (PANEL - 1) * stride + inner <= source.len(),
            "columns past the slice"
        );
        let mut offsets = [[0; LANES]; 2];
        for (half, offsets) in offsets.iter_mut().enumerate() {
            for (lane, offset) in offsets.iter_mut().enumerate() {
                *offset = (half * LANES + lane) * stride;
            }
        }
        let whole = inner / 4 * 4;
        for p in (0..whole).step_by(4) {
            for (half, offsets) in offsets.iter().enumerate() {
                // SAFETY: rows p to p + 3 of each column, and of the panel.
                unsafe {
                    let rows = l.load_columns4(source.as_ptr().add(p), offsets);
                    for (i, row) in rows.into_iter().enumerate() {
                        l.store(to.as_mut_ptr().add((p + i) * PANEL + half * LANES), row);
                    }
                }
            }
        }
        for p in whole..inner {
            for col in 0..PANEL {
                to[p * PANEL + col] = source[col * stride + p];
            }
        }
    }
}
