//! DifferNet (Rudolph et al. 2021): a fully connected flow over the pooled features of whole photos, seen at several
//! sizes and turned by quarters.

mod config;
mod coupling;
mod estimator;
mod vectors;

pub use config::DifferNetConfig;
pub use estimator::DifferNet;
