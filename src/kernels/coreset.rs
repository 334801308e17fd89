//! Greedy k-centre (to be replaced by the pruned kernel).
use crate::Result;
use rayon::prelude::*;
/// Greedy.
pub fn greedy_k_centre(
    rows: &[f32],
    channels: usize,
    count: usize,
    start: usize,
    tell: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Vec<u32>>> {
    let n = rows.len() / channels;
    let mut nearest = vec![f32::INFINITY; n];
    let mut chosen = vec![start as u32];
    while chosen.len() < count {
        let centre = chosen[chosen.len() - 1] as usize * channels;
        let centre = &rows[centre..centre + channels];
        let far = nearest
            .par_chunks_mut(4096)
            .zip(rows.par_chunks(4096 * channels))
            .enumerate()
            .map(|(c, (nearest, rows))| {
                let mut far = (f32::NEG_INFINITY, usize::MAX);
                for (i, (d, row)) in nearest
                    .iter_mut()
                    .zip(rows.chunks_exact(channels))
                    .enumerate()
                {
                    let s: f32 = row.iter().zip(centre).map(|(a, b)| (a - b) * (a - b)).sum();
                    *d = d.min(s);
                    if *d > far.0 {
                        far = (*d, c * 4096 + i);
                    }
                }
                far
            })
            .reduce(
                || (f32::NEG_INFINITY, usize::MAX),
                |a, b| {
                    if b.0 > a.0 || (b.0 == a.0 && b.1 < a.1) {
                        b
                    } else {
                        a
                    }
                },
            );
        chosen.push(far.1 as u32);
        if chosen.len().is_multiple_of(64) && !tell(chosen.len()) {
            return Ok(None);
        }
    }
    Ok(Some(chosen))
}
