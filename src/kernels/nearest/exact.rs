//! From bounds to neighbours: direct differences with the rows that may be among them.

use std::ops::Range;

use super::filter::{Bound, CHUNK, Filter, GROUPS};
use crate::kernels::parallel::{self, SharedMut, written};
use crate::kernels::simd::{lane_sum, simd_fn};

/// Keys in memory at a time: 16 MB.
const KEYS: usize = 1 << 22;

/// One search.
pub(super) struct Search<'a, F> {
    pub(super) filter: &'a F,
    /// `[N, C]`
    pub(super) rows: &'a [f32],
    pub(super) channels: usize,
    pub(super) k: usize,
}

/// A neighbour: squared distance and row.
type Near = (f32, u32);

impl<F: Filter> Search<'_, F> {
    fn len(&self) -> usize {
        self.rows.len() / self.channels
    }

    /// Squared distances and rows of the k nearest of each query.
    pub(super) fn run(&self, queries: &[f32]) -> (Vec<f32>, Vec<u32>) {
        let groups = self.len().div_ceil(CHUNK) * GROUPS;
        let mut found = Vec::with_capacity(queries.len() / self.channels * self.k);
        for part in queries.chunks((KEYS / groups).max(1) * self.channels) {
            found.extend(self.part(part, groups));
        }
        found.into_iter().unzip()
    }

    /// The same of so few queries that their keys have room.
    fn part(&self, queries: &[f32], groups: usize) -> Vec<Near> {
        let prepared = self.filter.prepare(queries);
        let (blocks, chunks) = (self.filter.blocks(&prepared), self.len().div_ceil(CHUNK));
        let count = queries.len() / self.channels;
        // SAFETY: the tasks cover all queries and chunks.
        let keys = unsafe {
            written(count * groups, |keys| {
                parallel::for_each(blocks.len() * chunks, |task| {
                    let (chunk, block) = (task / blocks.len(), &blocks[task % blocks.len()]);
                    self.filter.keys(&prepared, block.clone(), chunk, |query| {
                        let start = query * groups + chunk * GROUPS;
                        keys.slice(start..start + GROUPS)
                    });
                });
            })
        };
        let mut distances = vec![f32::NAN; count * self.k];
        let mut rows = vec![0f32; count * self.k];
        let (to, indices) = (SharedMut::new(&mut distances), SharedMut::new(&mut rows));
        parallel::for_each(count, |query| {
            let x = &queries[query * self.channels..][..self.channels];
            let near = match self.filter.bound(&prepared, query) {
                Some(bound) => self.near(x, &keys[query * groups..][..groups], bound),
                None => (0..self.k as u32).map(|row| (f32::NAN, row)).collect(),
            };
            let range: Range<usize> = query * self.k..(query + 1) * self.k;
            // SAFETY: these are this query's, whose task alone touches them.
            let (to, indices) = unsafe { (to.slice(range.clone()), indices.slice(range)) };
            for (i, (distance, row)) in near.into_iter().enumerate() {
                to[i] = distance;
                indices[i] = f32::from_bits(row);
            }
        });
        let rows = rows.into_iter().map(f32::to_bits);
        distances.into_iter().zip(rows).collect()
    }

    /// The k nearest rows of `x`.
    fn near(&self, x: &[f32], keys: &[f32], bound: Bound) -> Vec<Near> {
        // Direct differences round too: neither by more than this factor.
        let rounding = 1.0 + 3.0 * (self.channels as f64 / 16.0 + 24.0) * f64::from(f32::EPSILON);
        let largest = bound.largest_key(bound.farthest(self.kth(keys)) * rounding);
        let mut groups = at_most(keys, largest);
        groups.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut near: Vec<Near> = Vec::with_capacity(self.k + 1);
        for (key, group) in groups {
            if let Some(last) = near.get(self.k - 1)
                && key > bound.largest_key(f64::from(last.0) * rounding)
            {
                break;
            }
            let first = group / GROUPS * CHUNK + group % GROUPS;
            for row in (first..self.len().min(first + CHUNK)).step_by(GROUPS) {
                let distance = square_distance(x, &self.rows[row * self.channels..]);
                self.insert(&mut near, (distance, row as u32));
            }
        }
        near
    }

    /// A key that at least k rows do not exceed, if there are k groups.
    fn kth(&self, keys: &[f32]) -> f32 {
        if self.k == 1 {
            return least(keys);
        }
        if self.k > keys.len() {
            return f32::INFINITY;
        }
        let mut keys = keys.to_vec();
        *keys.select_nth_unstable_by(self.k - 1, f32::total_cmp).1
    }

    /// Keeps the k nearest, ascending; of equally near ones the first rows.
    fn insert(&self, near: &mut Vec<Near>, new: Near) {
        let before = |other: &Near| *other < new;
        if near.len() == self.k && near.last().is_some_and(before) {
            return;
        }
        near.insert(near.partition_point(before), new);
        near.truncate(self.k);
    }
}

simd_fn! {
    fn least(keys: &[f32]) -> f32 {
        let mut lanes = [f32::INFINITY; GROUPS];
        for keys in keys.as_chunks::<GROUPS>().0 {
            for (lane, key) in lanes.iter_mut().zip(keys) {
                *lane = if *key < *lane { *key } else { *lane };
            }
        }
        lanes.into_iter().fold(f32::INFINITY, f32::min)
    }
}

/// Groups whose key is at most `largest`.
fn at_most(keys: &[f32], largest: f32) -> Vec<(f32, usize)> {
    let mut found = Vec::new();
    for (chunk, keys) in keys.as_chunks::<GROUPS>().0.iter().enumerate() {
        if !any_at_most(keys, largest) {
            continue;
        }
        let groups = keys.iter().enumerate();
        let these = groups.filter(|(_, key)| **key <= largest);
        found.extend(these.map(|(lane, key)| (*key, chunk * GROUPS + lane)));
    }
    found
}

/// Without a branch for each.
#[inline(always)]
fn any_at_most(keys: &[f32; GROUPS], largest: f32) -> bool {
    keys.iter().fold(false, |any, key| any | (*key <= largest))
}

simd_fn! {
    /// `|a - b|^2` over the channels of `a`, of which `b` has at least as many.
    fn square_distance(a: &[f32], b: &[f32]) -> f32 {
        let b = &b[..a.len()];
        lane_sum(a.len(), |i| {
            let gap = a[i] - b[i];
            gap * gap
        })
    }
}
