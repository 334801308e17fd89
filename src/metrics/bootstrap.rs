//! How far a metric could be off by the choice of test images.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Ranking;
use super::binned::BinnedPixels;
use crate::{Error, Result};

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// As people read it: `0.631 to 0.814`.
impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} to {:.3}", self.low, self.high)
    }
}

/// What is drawn, and what the interval is to cover.
#[derive(Debug, Clone, Copy)]
pub struct Resampling {
    /// Draws.
    pub draws: usize,
    /// The interval's coverage, for example 0.95.
    pub level: f64,
    /// Draws of one seed are the same.
    pub seed: u64,
}

/// Percentile bootstrap of metrics over images: normal and defective images are each drawn again with
/// replacement.
///
/// # Errors
/// [`Error::Metric`] as [`Ranking::new`], or when there are no draws or the level is not between 0 and 1.
pub fn bootstrap<const N: usize>(
    scores: &[f64],
    defective: &[bool],
    metrics: [fn(&Ranking) -> f64; N],
    resampling: Resampling,
) -> Result<[Interval; N]> {
    Ranking::new(scores, defective)?;
    let images = Images::new(defective.iter().copied());
    resampling.percentiles(|rng| {
        let drawn = images.draw(rng);
        let labels: Vec<bool> = drawn.iter().map(|&i| defective[i]).collect();
        let scores: Vec<f64> = drawn.into_iter().map(|i| scores[i]).collect();
        let ranking = Ranking::new(&scores, &labels)?;
        Ok(metrics.map(|metric| metric(&ranking)))
    })
}

/// The same of metrics over pixels: whole images are drawn, not pixels, because pixels of an image are alike.
/// Images with defective pixels are drawn apart from those without.
///
/// # Errors
/// [`Error::Metric`] as [`bootstrap`]'s.
pub fn bootstrap_pixels<const N: usize>(
    images: &[&BinnedPixels],
    metrics: [fn(&Ranking) -> f64; N],
    resampling: Resampling,
) -> Result<[Interval; N]> {
    BinnedPixels::ranking(images.iter().copied())?;
    let kinds = Images::new(images.iter().map(|image| image.is_defective()));
    resampling.percentiles(|rng| {
        let drawn = kinds.draw(rng).into_iter().map(|i| images[i]);
        let ranking = BinnedPixels::ranking(drawn)?;
        Ok(metrics.map(|metric| metric(&ranking)))
    })
}

/// Indices of the normal and of the defective images.
struct Images {
    kinds: [Vec<usize>; 2],
}

impl Images {
    fn new(defective: impl Iterator<Item = bool>) -> Self {
        let mut kinds = [Vec::new(), Vec::new()];
        for (index, is_defective) in defective.enumerate() {
            kinds[usize::from(is_defective)].push(index);
        }
        Self { kinds }
    }

    /// As many of each kind as there are, with replacement.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut drawn = Vec::with_capacity(self.kinds[0].len() + self.kinds[1].len());
        for kind in &self.kinds {
            drawn.extend((0..kind.len()).map(|_| kind[rng.random_range(0..kind.len())]));
        }
        drawn
    }
}

impl Resampling {
    /// Intervals of what `one` finds in each draw.
    fn percentiles<const N: usize>(
        self,
        one: impl Fn(&mut ChaCha8Rng) -> Result<[f64; N]> + Sync,
    ) -> Result<[Interval; N]> {
        let Self { draws, level, seed } = self;
        if draws == 0 || !(level > 0.0 && level < 1.0) {
            return Err(Error::Metric {
                metric: "bootstrap",
                reason: format!(
                    "needs draws and a level between 0 and 1, found {draws} and {level}"
                ),
            });
        }
        let draw = |index: usize| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index as u64);
            one(&mut rng)
        };
        let values: Vec<[f64; N]> = (0..draws)
            .into_par_iter()
            .map(draw)
            .collect::<Result<_>>()?;
        let tail = (1.0 - level) / 2.0;
        Ok(std::array::from_fn(|metric| {
            let mut sorted: Vec<f64> = values.iter().map(|values| values[metric]).collect();
            sorted.sort_by(f64::total_cmp);
            Interval {
                low: quantile(&sorted, tail),
                high: quantile(&sorted, 1.0 - tail),
            }
        }))
    }
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
