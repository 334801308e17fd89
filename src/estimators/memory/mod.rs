//! Methods that remember normal features: PatchCore.

mod config;
mod embedding;
mod fit;
mod patchcore;

pub use config::{Metric, PatchCoreConfig, Precision};
pub use patchcore::PatchCore;
