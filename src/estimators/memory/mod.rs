//! Methods that remember normal features: PatchCore.

mod bank;
mod config;
mod fit;
mod patchcore;

pub use config::{Grid, Metric, PatchCoreConfig, Precision};
pub use patchcore::PatchCore;
