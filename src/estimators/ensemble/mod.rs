//! Several estimators over the same features: standardised, then averaged.

mod config;
mod estimator;
mod standard;

pub use config::{EnsembleConfig, Member};
pub use estimator::Ensemble;
