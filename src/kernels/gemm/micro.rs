//! The inner loop of our products: up to six rows times a panel of sixteen columns, in registers.
//!
//! The `gemm` crate's kernel for AVX2 keeps its sums in memory (its 0.19, built by rustc 1.95: 41
//! GFLOP/s on a Zen 3 core that gives 82 to this one), so AVX2 goes through here.

use crate::kernels::lanes::{Kernel, LANES, Lanes};

/// Columns of a panel.
pub(crate) const PANEL: usize = 2 * LANES;
/// Rows at a time: 12 sums, two vectors of the panel and one of the left side fill 16 registers.
const ROWS: usize = 6;

/// The left side of a product.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) start: *const f32,
    pub(super) order: Order,
}

/// How a left side lies in memory.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// Element (r, p) is at `r * row + p * col`.
    Strided { row: usize, col: usize },
    /// The strips of [`strips`] one after the other, each column by column.
    Strips,
}

/// Rows of sixteen sums.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
    /// Whether the product is added to what is there.
    pub(super) accumulate: bool,
}

/// `target = left * right`, `rows` x [`PANEL`], with inner size `inner`.
///
/// All elements must be valid for reading, those of the target for writing, and nobody else may
/// access the target: who makes one promises it.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) left: Left,
    /// A panel: `inner` rows of [`PANEL`] floats.
    pub(super) right: *const f32,
    pub(super) target: Target,
}

impl Kernel for Product {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for (first, count) in strips(self.rows) {
            // SAFETY: rows `first..first + count` of the product, by the maker's promise.
            unsafe {
                match count {
                    6 => self.strip::<L, 6>(l, first),
                    5 => self.strip::<L, 5>(l, first),
                    4 => self.strip::<L, 4>(l, first),
                    3 => self.strip::<L, 3>(l, first),
                    2 => self.strip::<L, 2>(l, first),
                    _ => self.strip::<L, 1>(l, first),
                }
            }
        }
    }
}

/// The strips of `rows` rows, as first row and number of rows.
#[inline(always)]
pub(super) fn strips(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let count = strip(rows - first);
        first += count;
        (count > 0).then_some((first - count, count))
    })
}

/// How many of the rows left come next: not six and then one, whose sums would wait for each other.
#[inline(always)]
fn strip(left: usize) -> usize {
    if left <= ROWS || left >= 2 * ROWS {
        left.min(ROWS)
    } else {
        left.div_ceil(2)
    }
}

impl Product {
    /// `N` rows from `first` on.
    ///
    /// # Safety
    /// The product must have them.
    #[inline(always)]
    unsafe fn strip<L: Lanes, const N: usize>(&self, l: L, first: usize) {
        // SAFETY: the strip's rows of both, by this function's contract.
        unsafe {
            match self.left.order {
                Order::Strided { row, col } => {
                    let left = self.left.start.add(first * row);
                    self.sum::<L, N>(l, first, left, (row, col));
                }
                Order::Strips => {
                    let left = self.left.start.add(first * self.inner);
                    self.sum::<L, N>(l, first, left, (1, N));
                }
            }
        }
    }

    /// `N` rows whose left side starts at `left`.
    ///
    /// # Safety
    /// As [`Product::strip`].
    #[inline(always)]
    unsafe fn sum<L: Lanes, const N: usize>(
        &self,
        l: L,
        first: usize,
        left: *const f32,
        (row, col): (usize, usize),
    ) {
        let mut sums = [[l.splat(0.0); 2]; N];
        // SAFETY: elements of both sides and the target's rows, by this function's contract.
        unsafe {
            for p in 0..self.inner {
                let panel = self.right.add(p * PANEL);
                let (low, high) = (l.load(panel), l.load(panel.add(LANES)));
                let mut r = 0;
                while r < N {
                    let x = l.splat(*left.add(r * row + p * col));
                    sums[r] = [
                        l.mul_add(x, low, sums[r][0]),
                        l.mul_add(x, high, sums[r][1]),
                    ];
                    r += 1;
                }
            }
            let target = self.target;
            for (r, [low, high]) in sums.into_iter().enumerate() {
                let at = target.start.add((first + r) * target.stride);
                let (low, high) = if target.accumulate {
                    (l.add(low, l.load(at)), l.add(high, l.load(at.add(LANES))))
                } else {
                    (low, high)
                };
                l.store(at, low);
                l.store(at.add(LANES), high);
            }
        }
    }
}
