//! How far a metric could be off by the choice of test images.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Ranking;
use crate::{Error, Result};

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Percentile bootstrap of a metric over images: normal and defective images are each drawn again
/// with replacement, `resamples` times. `level` is the interval's coverage, for example 0.95.
///
/// # Errors
/// [`Error::Metric`] as [`Ranking::new`], or when `resamples` is 0 or `level` is not between 0 and 1.
pub fn bootstrap(
    scores: &[f64],
    defective: &[bool],
    metric: impl Fn(&Ranking) -> f64 + Sync,
    resamples: usize,
    level: f64,
    seed: u64,
) -> Result<Interval> {
    Ranking::new(scores, defective)?;
    if resamples == 0 || !(level > 0.0 && level < 1.0) {
        return Err(Error::Metric {
            metric: "bootstrap",
            reason: format!(
                "needs resamples and a level between 0 and 1, found {resamples} and {level}"
            ),
        });
    }
    let of = |class: bool| {
        (0..scores.len())
            .filter(|&i| defective[i] == class)
            .collect::<Vec<_>>()
    };
    let (normal, bad) = (of(false), of(true));
    let one = |index: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        let mut draw = |from: &[usize]| -> Vec<f64> {
            from.iter()
                .map(|_| scores[from[rng.random_range(0..from.len())]])
                .collect()
        };
        let drawn = [draw(&normal), draw(&bad)].concat();
        let labels: Vec<bool> = (0..drawn.len()).map(|i| i >= normal.len()).collect();
        Ranking::new(&drawn, &labels).map(|ranking| metric(&ranking))
    };
    let mut values: Vec<f64> = (0..resamples)
        .into_par_iter()
        .map(one)
        .collect::<Result<_>>()?;
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Ok(Interval {
        low: quantile(&values, tail),
        high: quantile(&values, 1.0 - tail),
    })
}

/// Linear interpolation between sorted values.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    below + (above - below) * place.fract()
}
