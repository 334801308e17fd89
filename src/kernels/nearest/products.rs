//! The filter in f32: `|m|^2 / 2 - q m` by this crate's products.

use std::ops::Range;

use super::filter::{Bound, CHUNK, Filter, GROUPS, square_norm};
use crate::kernels::gemm::{MatRef, PANEL, PackedRows, pack_panels, panels_len};
use crate::kernels::parallel::with_scratch;
use crate::kernels::simd::simd_fn;

/// Rows as panels for products.
#[derive(Debug)]
pub(super) struct Products {
    channels: usize,
    panels: Vec<f32>,
    /// Half the squared norm of each row; infinite where a panel has no row.
    halves: Vec<f32>,
    /// The largest norm.
    largest: f64,
}

/// Queries in the order in which products read them.
pub(super) struct Queries {
    packed: PackedRows,
    /// Squared norms, of those that are finite.
    norms: Vec<Option<f64>>,
}

impl Products {
    /// Of `rows [N, C]`.
    pub(super) fn new(rows: &[f32], channels: usize) -> Self {
        let len = rows.len() / channels;
        let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let norms: Vec<f64> = rows.chunks_exact(channels).map(norm).collect();
        let mut panels = vec![0f32; panels_len(channels, len)];
        let columns = MatRef::rows(rows, channels).transposed();
        pack_panels(columns, (channels, len), &mut panels);
        let mut halves: Vec<f32> = norms.iter().map(|norm| (norm / 2.0) as f32).collect();
        halves.resize(len.next_multiple_of(PANEL), f32::INFINITY);
        Self {
            channels,
            panels,
            halves,
            largest: norms.iter().copied().fold(0.0, f64::max).sqrt(),
        }
    }
}

impl Filter for Products {
    type Queries = Queries;

    fn prepare(&self, queries: &[f32]) -> Queries {
        let sizes = (queries.len() / self.channels, self.channels);
        let norms = queries.chunks_exact(self.channels).map(square_norm);
        Queries {
            packed: PackedRows::pack(queries, sizes, self.channels),
            norms: norms.collect(),
        }
    }

    fn blocks(&self, queries: &Queries) -> Vec<Range<usize>> {
        queries.packed.blocks()
    }

    fn keys<'k>(
        &self,
        queries: &Queries,
        block: Range<usize>,
        chunk: usize,
        of: impl Fn(usize) -> &'k mut [f32],
    ) {
        let first = chunk * CHUNK;
        let cols = CHUNK.min(self.halves.len() - first);
        let (panels, halves) = (
            &self.panels[first * self.channels..],
            &self.halves[first..][..cols],
        );
        with_scratch(block.len() * cols, |room| {
            // SAFETY: as many rows as the block has.
            unsafe {
                let to = room.as_mut_ptr();
                queries
                    .packed
                    .times(block.clone(), (panels, cols), to, cols);
            }
            for (query, products) in block.zip(room.chunks_exact(cols)) {
                least_of_groups(products, halves, of(query));
            }
        });
    }

    fn bound(&self, queries: &Queries, query: usize) -> Option<Bound> {
        let base = queries.norms[query]?;
        // Of a sum of C products in any order, the norm and their difference (Higham 2002, section 3.1).
        let rounding = (self.channels + 8) as f64 * f64::from(f32::EPSILON) / 2.0 * 1.01;
        Some(Bound {
            base,
            scale: 2.0,
            error: 2.0 * rounding * self.largest * (base.sqrt() + self.largest),
            blur: 0.0,
        })
    }
}

simd_fn! {
    fn least_of_groups(products: &[f32], halves: &[f32], to: &mut [f32]) {
        let mut least = [f32::INFINITY; GROUPS];
        let panels = products.as_chunks::<GROUPS>().0.iter();
        for (products, halves) in panels.zip(halves.as_chunks::<GROUPS>().0) {
            for lane in 0..GROUPS {
                let key = halves[lane] - products[lane];
                least[lane] = if key < least[lane] { key } else { least[lane] };
            }
        }
        to.copy_from_slice(&least);
    }
}
