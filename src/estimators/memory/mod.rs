//! Methods that remember normal features: PatchCore thins them, SPADE keeps all.

mod bank;
mod config;
mod fit;
mod patchcore;
mod spade;

pub use super::embedding::{Grid, Metric};
pub use config::{PatchCoreConfig, Precision};
pub use patchcore::PatchCore;
pub use spade::{Spade, SpadeConfig};
