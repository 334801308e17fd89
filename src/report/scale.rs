//! One colour for one score, the same in every picture of a detector.

use crate::{Error, Result};

/// The span of scores that the colours stand for.
///
/// It belongs to the detector, not to the picture: scaled to its own extremes, even a good product would
/// have something red.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColourScale {
    /// At and below this score nothing is shown.
    pub lo: f32,
    /// At and above this score the strongest colour is shown.
    pub hi: f32,
}

impl ColourScale {
    /// A scale from `lo` to `hi`.
    ///
    /// # Errors
    /// When they are not finite or `lo` is not below `hi`.
    pub fn new(lo: f32, hi: f32) -> Result<Self> {
        if lo.is_finite() && hi.is_finite() && lo < hi {
            return Ok(Self { lo, hi });
        }
        Err(Error::Invalid(format!(
            "colour scale {lo} to {hi}: needs two finite scores, the lower first"
        )))
    }

    /// The scale whose middle is the detector's threshold: what is normal stays blue and faint, and only
    /// what is clearly beyond the threshold turns red. `typical` is a score of the map that most of a
    /// good image does not exceed.
    ///
    /// # Errors
    /// As [`ColourScale::new`].
    pub fn around(typical: f32, threshold: f32) -> Result<Self> {
        Self::new(typical, 2.0 * threshold - typical)
    }

    /// The middle of the scale; the threshold, where [`ColourScale::around`] made it.
    pub fn middle(&self) -> f32 {
        0.5 * (self.lo + self.hi)
    }

    /// Place of a score on the scale, 0 to 1. Not a number is an alarm: 1.
    pub fn place(&self, score: f32) -> f32 {
        let place = (score - self.lo) / (self.hi - self.lo);
        if place.is_nan() {
            1.0
        } else {
            place.clamp(0.0, 1.0)
        }
    }

    /// R, G, B of a score.
    pub fn colour(&self, score: f32) -> [u8; 3] {
        colorous::TURBO
            .eval_continuous(f64::from(self.place(score)))
            .into_array()
    }

    /// How much of the photo the colour of a score covers, 0 to 1: nothing at `lo`, and never all.
    pub fn opacity(&self, score: f32) -> f32 {
        const MOST: f32 = 0.72;
        let place = self.place(score);
        MOST * place * place * (3.0 - 2.0 * place)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn red_begins_beyond_the_threshold() {
        let scale = ColourScale::around(1.0, 3.0).unwrap();
        assert_eq!((scale.lo, scale.hi, scale.middle()), (1.0, 5.0, 3.0));
        for step in 0..=100 {
            let score = step as f32 * 0.06;
            let [red, green, blue] = scale.colour(score);
            if score < 3.0 {
                assert!(
                    red < green.max(blue).max(40),
                    "{score}: {red} {green} {blue}"
                );
            }
            if score > 4.5 {
                assert!(red > green && red > blue, "{score}: {red} {green} {blue}");
            }
        }
    }

    #[test]
    fn opacity_grows_with_the_score() {
        let scale = ColourScale::new(-2.0, 2.0).unwrap();
        assert_eq!(scale.opacity(-9.0), 0.0);
        assert!(
            scale.opacity(-1.0) < scale.opacity(0.0) && scale.opacity(0.0) < scale.opacity(1.0)
        );
        assert_eq!(scale.opacity(2.0), scale.opacity(900.0));
        assert_eq!(scale.place(f32::NAN), 1.0);
    }

    #[test]
    fn a_scale_needs_two_scores() {
        for (lo, hi) in [
            (1.0, 1.0),
            (2.0, 1.0),
            (f32::NAN, 1.0),
            (0.0, f32::INFINITY),
        ] {
            assert!(ColourScale::new(lo, hi).is_err());
        }
    }
}
