//! What a filter must say about distances, so that few of them need be measured.

use std::ops::Range;

use super::LARGEST;

/// Rows of a chunk, which a task reads while a block of queries passes.
pub(super) const CHUNK: usize = 256;
/// Groups of a chunk: rows this far apart are in the same group.
pub(super) const GROUPS: usize = 16;

/// Bounds of all distances, by groups of rows.
pub(super) trait Filter: Sync {
    /// Queries as the filter reads them.
    type Queries: Sync;

    /// Rearranges `queries [Q, C]`.
    fn prepare(&self, queries: &[f32]) -> Self::Queries;

    /// Blocks of queries for [`Filter::keys`].
    fn blocks(&self, queries: &Self::Queries) -> Vec<Range<usize>>;

    /// Writes the least key of each of a chunk's [`GROUPS`] groups for each query of a block to where `of` says.
    fn keys<'k>(
        &self,
        queries: &Self::Queries,
        block: Range<usize>,
        chunk: usize,
        of: impl Fn(usize) -> &'k mut [f32],
    );

    /// How keys and distances of a query belong together; none if it is not finite.
    fn bound(&self, queries: &Self::Queries, query: usize) -> Option<Bound>;
}

/// What the keys of a query say about squared distances: `base + scale * key`, with an error of at most `error` in it
/// and of at most `blur` in its root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) base: f64,
    pub(super) scale: f64,
    pub(super) error: f64,
    pub(super) blur: f64,
}

impl Bound {
    /// No row of this key is farther, squared.
    pub(super) fn farthest(&self, key: f32) -> f64 {
        let square = self.base + self.scale * f64::from(key) + self.error;
        (square.max(0.0).sqrt() + self.blur).powi(2)
    }

    /// No row that is at most so far has a larger key.
    pub(super) fn largest_key(&self, square: f64) -> f32 {
        let square = (square.sqrt() + self.blur).powi(2) + self.error;
        (((square - self.base) / self.scale) as f32).next_up()
    }
}

/// `|x|^2`, unless it is not finite or so large that a distance might overflow.
pub(super) fn square_norm(x: &[f32]) -> Option<f64> {
    let norm: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    (norm < LARGEST).then_some(norm)
}
