//! Greedy k-centre selection: PatchCore's coreset (Roth et al. 2021, algorithm 1).

use rayon::prelude::*;

use super::simd::{lane_sum, simd_fn};
use crate::{Error, Result};

/// Vectors of a task.
const BLOCK: usize = 2048;
/// Rounds between two calls of `tell`.
const TELL_EVERY: usize = 64;
/// The triangle inequality holds for exact distances; computed ones get this much room.
const ROOM: f32 = 1.0 - 1e-3;

/// What is known of the vectors of a block.
struct Block<'a> {
    /// Number of the first one.
    first: usize,
    rows: &'a [f32],
    /// Squared distances to the nearest centre.
    near: Vec<f32>,
    /// Which centre that is, by the order of choice.
    own: Vec<u32>,
}

/// `count` of the vectors in `rows`, `channels` values each: the one called `start`, then again and again the vector
/// whose nearest chosen one is farthest away (the first of equals). `tell` hears how many are chosen, and ends it
/// with false: then there is no result.
///
/// The rule is the plain greedy one. A vector is looked at again only where the triangle inequality leaves room: one
/// that is `d` from its own centre `c` cannot be nearer to a new centre that is `2 d` or more from `c` (Elkan 2003).
///
/// # Errors
/// When there are fewer vectors than `count`, `start` is none of them, or a value is not finite.
pub fn greedy_k_centre(
    rows: &[f32],
    channels: usize,
    count: usize,
    start: usize,
    tell: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Vec<u32>>> {
    let len = rows.len().checked_div(channels).unwrap_or(0);
    if count == 0 || count > len || start >= len || len * channels != rows.len() {
        return Err(Error::Invalid(format!(
            "cannot choose {count} of {len} vectors of {channels} values, beginning with number {start}"
        )));
    }
    if rows.par_iter().any(|value| !value.is_finite()) {
        return Err(Error::Invalid(
            "a vector to choose from holds a number that is not finite".into(),
        ));
    }
    let mut blocks: Vec<Block> = rows
        .chunks(BLOCK * channels)
        .enumerate()
        .map(|(index, rows)| Block {
            first: index * BLOCK,
            rows,
            near: vec![f32::INFINITY; rows.len() / channels],
            own: vec![0; rows.len() / channels],
        })
        .collect();
    let row = |index: u32| &rows[index as usize * channels..][..channels];
    let mut chosen = vec![start as u32];
    while chosen.len() < count {
        let newest = chosen.len() - 1;
        let centre = row(chosen[newest]);
        let reach: Vec<f32> = chosen[..newest]
            .par_iter()
            .with_min_len(512)
            .map(|&other| 0.25 * ROOM * distance(row(other), centre))
            .collect();
        let farthest = blocks
            .par_iter_mut()
            .map(|block| add(block, centre, newest as u32, &reach))
            .reduce(|| (f32::NEG_INFINITY, usize::MAX), farther);
        chosen.push(farthest.1 as u32);
        if chosen.len().is_multiple_of(TELL_EVERY) && !tell(chosen.len()) {
            return Ok(None);
        }
    }
    Ok(Some(chosen))
}

/// The farther of two, the first of equals.
fn farther(a: (f32, usize), b: (f32, usize)) -> (f32, usize) {
    if b.0 > a.0 || (b.0 == a.0 && b.1 < a.1) {
        b
    } else {
        a
    }
}

simd_fn! {
    /// `sum (a - b)^2`.
    fn distance(a: &[f32], b: &[f32]) -> f32 {
        lane_sum(a.len(), |i| (a[i] - b[i]) * (a[i] - b[i]))
    }
}

simd_fn! {
    /// Takes a new centre; `reach` is a quarter of its squared distance to each earlier one. The farthest vector.
    fn add(block: &mut Block<'_>, centre: &[f32], newest: u32, reach: &[f32]) -> (f32, usize) {
        let mut farthest = (f32::NEG_INFINITY, usize::MAX);
        let channels = centre.len();
        for index in 0..block.near.len() {
            let near = block.near[index];
            let known = reach.get(block.own[index] as usize);
            if !known.is_some_and(|reach| *reach >= near) {
                let row = &block.rows[index * channels..][..channels];
                let gap = lane_sum(channels, |i| (row[i] - centre[i]) * (row[i] - centre[i]));
                if gap < near {
                    block.near[index] = gap;
                    block.own[index] = newest;
                }
            }
            if block.near[index] > farthest.0 {
                farthest = (block.near[index], block.first + index);
            }
        }
        farthest
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Clusters of different sizes, with twins.
    fn rows(count: usize, channels: usize) -> Vec<f32> {
        let value = |i: usize| {
            let (row, channel) = (i / channels, i % channels);
            let cluster = ((row % 7 * 31 + channel) as f32).sin() * 5.0;
            let own = ((i as f32 * 12.9898).sin() * 43_758.547).fract();
            cluster + own * (1.0 + (row % 3) as f32)
        };
        let mut rows: Vec<f32> = (0..count * channels).map(value).collect();
        let twin = rows[..channels].to_vec();
        rows[(count / 2) * channels..][..channels].copy_from_slice(&twin);
        rows
    }

    /// The rule word by word.
    fn plain(rows: &[f32], channels: usize, count: usize, start: usize) -> Vec<u32> {
        let vectors: Vec<&[f32]> = rows.chunks_exact(channels).collect();
        let mut near = vec![f32::INFINITY; vectors.len()];
        let mut chosen = vec![start];
        while chosen.len() < count {
            let newest = vectors[chosen[chosen.len() - 1]];
            let mut farthest = 0;
            for (index, row) in vectors.iter().enumerate() {
                near[index] = near[index].min(distance(row, newest));
                if near[index] > near[farthest] {
                    farthest = index;
                }
            }
            chosen.push(farthest);
        }
        chosen.into_iter().map(|i| i as u32).collect()
    }

    #[test]
    fn the_choice_is_the_plain_rules_on_any_number_of_threads() {
        for (count, channels, wanted, start) in
            [(50, 3, 50, 7), (5000, 9, 400, 4999), (3000, 16, 64, 0)]
        {
            let rows = rows(count, channels);
            let expected = plain(&rows, channels, wanted, start);
            let choose = || greedy_k_centre(&rows, channels, wanted, start, &mut |_| true).unwrap();
            assert_eq!(choose().unwrap(), expected);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
            assert_eq!(pool.build().unwrap().install(choose).unwrap(), expected);
        }
    }

    #[test]
    fn it_can_be_ended_and_refuses_nonsense() {
        let rows = rows(300, 4);
        let mut heard = Vec::new();
        let mut tell = |done| {
            heard.push(done);
            done < 128
        };
        assert_eq!(greedy_k_centre(&rows, 4, 200, 0, &mut tell).unwrap(), None);
        assert_eq!(heard, [64, 128]);
        let mut on = |_| true;
        assert!(greedy_k_centre(&rows, 4, 301, 0, &mut on).is_err());
        assert!(greedy_k_centre(&rows, 4, 3, 300, &mut on).is_err());
        assert!(greedy_k_centre(&[1.0, f32::NAN], 1, 2, 0, &mut on).is_err());
    }
}
