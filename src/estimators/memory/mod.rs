//! Methods that remember normal features: PatchCore.

mod bank;
mod config;
mod fit;
mod patchcore;

pub use super::embedding::{Grid, Metric};
pub use config::{PatchCoreConfig, Precision};
pub use patchcore::PatchCore;
