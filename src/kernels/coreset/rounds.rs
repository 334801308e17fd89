//! The rounds of the selection.

use rayon::prelude::*;

use super::CHUNK;
use super::leads::{BLOCK, DIRECTIONS, LEVEL, Leads};
use crate::kernels::parallel;
use crate::kernels::simd::{lane_sum, simd_fn};

/// Rounds between two calls of `tell`.
const TELL_EVERY: usize = 64;

/// The square of a centre that was taken: less than that of any row, so that it is not taken again.
const TAKEN: f32 = -1.0;
/// `|c - new|^2` against `|x - c|^2`, with room for rounding.
const TWICE_SQUARED: f32 = 4.001;

/// What is known after some rounds.
pub(super) struct Rounds<'a> {
    rows: &'a [f32],
    dims: usize,
    leads: Option<Leads>,
    chunks: Vec<Chunk>,
    /// Taken so far.
    centres: Vec<u32>,
    /// Their vectors.
    vectors: Vec<f32>,
}

/// Consecutive rows.
struct Chunk {
    first: usize,
    /// Squared distances to the nearest centre.
    squares: Vec<f32>,
    /// Which of the centres that is.
    owners: Vec<u32>,
    /// The largest of the squares.
    farthest: f32,
}

/// A round's newest centre.
struct Newest<'a> {
    number: u32,
    vector: &'a [f32],
    /// Its coordinates in [`Leads`].
    leads: [f32; DIRECTIONS],
    /// Squared distances to the centres before it.
    gaps: &'a [f32],
}

impl<'a> Rounds<'a> {
    /// Of `rows [N, dims]` whose norms are at most `largest`, from row `start` on.
    pub(super) fn new(rows: &'a [f32], dims: usize, largest: f64, start: usize) -> Self {
        let len = rows.len() / dims;
        let from = &rows[start * dims..][..dims];
        let mut chunks: Vec<Chunk> = (0..len)
            .step_by(CHUNK)
            .map(|first| Chunk::new(first, CHUNK.min(len - first)))
            .collect();
        each(&mut chunks, |chunk| {
            let rows = rows[chunk.first * dims..].chunks_exact(dims);
            for (square, row) in chunk.squares.iter_mut().zip(rows) {
                *square = square_distance(row, from);
            }
            chunk.measure();
        });
        let mut rounds = Self {
            rows,
            dims,
            leads: Leads::of(rows, dims, largest),
            chunks,
            centres: Vec::new(),
            vectors: Vec::new(),
        };
        rounds.take(start);
        rounds
    }

    /// Until `count` are taken, or `tell` wants to end.
    pub(super) fn run(
        mut self,
        count: usize,
        tell: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Vec<u32>> {
        let mut gaps = Vec::new();
        while self.centres.len() < count {
            let row = self.farthest();
            self.gaps(row, &mut gaps);
            self.round(row, &gaps);
            self.take(row);
            if self.centres.len().is_multiple_of(TELL_EVERY) && !tell(self.centres.len()) {
                return None;
            }
        }
        Some(self.centres)
    }

    fn take(&mut self, row: usize) {
        let vector = &self.rows[row * self.dims..][..self.dims];
        self.centres.push(row as u32);
        self.vectors.extend_from_slice(vector);
        let chunk = &mut self.chunks[row / CHUNK];
        chunk.squares[row % CHUNK] = TAKEN;
        chunk.measure();
    }

    /// The first of the rows farthest from all centres.
    fn farthest(&self) -> usize {
        let mut best = &self.chunks[0];
        for chunk in &self.chunks {
            if chunk.farthest > best.farthest {
                best = chunk;
            }
        }
        let is_it = |square: &f32| *square == best.farthest;
        best.first + best.squares.iter().position(is_it).unwrap_or_default()
    }

    /// Squared distances of all centres to `row`.
    fn gaps(&self, row: usize, gaps: &mut Vec<f32>) {
        let new = &self.rows[row * self.dims..][..self.dims];
        gaps.resize(self.centres.len(), 0.0);
        let shared = parallel::SharedMut::new(gaps);
        parallel::for_each(self.centres.len().div_ceil(CHUNK), |task| {
            let range = task * CHUNK..self.centres.len().min((task + 1) * CHUNK);
            let centres = self.vectors[range.start * self.dims..].chunks_exact(self.dims);
            // SAFETY: this range is this task's alone.
            let gaps = unsafe { shared.slice(range) };
            for (gap, centre) in gaps.iter_mut().zip(centres) {
                *gap = square_distance(centre, new);
            }
        });
    }

    /// Measures what may have come nearer.
    fn round(&mut self, row: usize, gaps: &[f32]) {
        let mut leads = [0f32; DIRECTIONS];
        if let Some(all) = &self.leads {
            let block = &all.values[row / BLOCK * BLOCK * DIRECTIONS..];
            let own = block.iter().skip(row % BLOCK).step_by(BLOCK);
            leads.iter_mut().zip(own).for_each(|(to, x)| *to = *x);
        }
        let newest = Newest {
            number: self.centres.len() as u32,
            vector: &self.rows[row * self.dims..][..self.dims],
            leads,
            gaps,
        };
        let (rows, leads) = (self.rows, self.leads.as_ref());
        each(&mut self.chunks, |chunk| {
            if update(chunk, rows, leads, &newest) {
                chunk.measure();
            }
        });
    }
}

impl Chunk {
    fn new(first: usize, len: usize) -> Self {
        Self {
            first,
            squares: vec![f32::INFINITY; len],
            owners: vec![0; len],
            farthest: f32::INFINITY,
        }
    }

    fn measure(&mut self) {
        self.farthest = largest(&self.squares);
    }
}

/// As [`parallel::for_each`] over chunks.
fn each(chunks: &mut [Chunk], task: impl Fn(&mut Chunk) + Send + Sync) {
    if parallel::threads() == 1 {
        chunks.iter_mut().for_each(task);
    } else {
        chunks.par_iter_mut().for_each(task);
    }
}

simd_fn! {
    /// Takes the newest centre into account; whether any row of the chunk is its now.
    fn update(chunk: &mut Chunk, rows: &[f32], leads: Option<&Leads>, newest: &Newest) -> bool {
        let dims = newest.vector.len();
        let mut changed = false;
        for block in 0..chunk.squares.len().div_ceil(BLOCK) {
            let range = block * BLOCK..chunk.squares.len().min((block + 1) * BLOCK);
            let first = chunk.first + range.start;
            let (squares, owners) = (&mut chunk.squares[range.clone()], &mut chunk.owners[range]);
            let mut open = owned_too_far(squares, owners, newest.gaps);
            if open != 0 && let Some(leads) = leads {
                open &= leads_too_near(squares, leads, first, newest);
            }
            while open != 0 {
                let lane = open.trailing_zeros() as usize;
                open &= open - 1;
                let row = &rows[(first + lane) * dims..][..dims];
                let square = square(row, newest.vector);
                if square < squares[lane] {
                    squares[lane] = square;
                    owners[lane] = newest.number;
                    changed = true;
                }
            }
        }
        changed
    }
}

/// A bit for each row that its own centre does not shield from the newest.
#[inline(always)]
fn owned_too_far(squares: &[f32], owners: &[u32], gaps: &[f32]) -> u32 {
    let mut open = 0;
    for (lane, (square, owner)) in squares.iter().zip(owners).enumerate() {
        let near = gaps[*owner as usize] < TWICE_SQUARED * square;
        open |= u32::from(near) << lane;
    }
    open
}

/// A bit for each row of the block from `first` on whose coordinates do not prove it far from the newest.
#[inline(always)]
fn leads_too_near(squares: &[f32], leads: &Leads, first: usize, newest: &Newest) -> u32 {
    let mut limits = [f32::NEG_INFINITY; BLOCK];
    for (limit, square) in limits.iter_mut().zip(squares) {
        *limit = leads.limit(*square);
    }
    let block = &leads.values[first * DIRECTIONS..][..BLOCK * DIRECTIONS];
    let mut sums = [0f32; BLOCK];
    let mut open = 0;
    for level in 0..DIRECTIONS / LEVEL {
        let columns = block[level * LEVEL * BLOCK..].as_chunks::<BLOCK>().0;
        for (column, new) in columns.iter().zip(&newest.leads[level * LEVEL..][..LEVEL]) {
            for lane in 0..BLOCK {
                let gap = column[lane] - new;
                sums[lane] += gap * gap;
            }
        }
        open = 0;
        for lane in 0..BLOCK {
            open |= u32::from(sums[lane] < limits[lane]) << lane;
        }
        if open == 0 {
            break;
        }
    }
    open
}

/// `|a - b|^2`
#[inline(always)]
fn square(a: &[f32], b: &[f32]) -> f32 {
    lane_sum(a.len(), |i| {
        let gap = a[i] - b[i];
        gap * gap
    })
}

simd_fn! {
    /// [`square`], the same bits.
    pub(super) fn square_distance(a: &[f32], b: &[f32]) -> f32 {
        square(a, &b[..a.len()])
    }
}

simd_fn! {
    fn largest(squares: &[f32]) -> f32 {
        let (blocks, rest) = squares.as_chunks::<16>();
        let mut lanes = [f32::NEG_INFINITY; 16];
        for block in blocks {
            for (lane, square) in lanes.iter_mut().zip(block) {
                *lane = if *square > *lane { *square } else { *lane };
            }
        }
        lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
    }
}
