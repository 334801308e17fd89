//! Detection metrics, exact and with ties handled: scores are never clamped or binned.
//!
//! Every metric follows from a [`Ranking`]: how many normal scores lie above, beside and below each
//! defective one. For images it is built from a slice ([`Ranking::new`]), for pixels in two passes
//! over the maps ([`DefectivePixels`], then [`NormalPixels`]), so that memory grows with the number of
//! defective pixels only. Higher scores mean more likely defective.

mod binned;
mod bootstrap;
mod pixels;
mod ranking;
mod regions;

pub use binned::{BinnedPixels, Bins};
pub use bootstrap::{Interval, Resampling, bootstrap, bootstrap_pixels};
pub use pixels::{DefectivePixels, NormalPixels};
pub use ranking::{F1, Ranking};
pub use regions::regions;

/// The false-positive rate up to which the PRO curve is integrated, as in the MVTec AD paper.
pub const AUPRO_LIMIT: f64 = 0.3;
