//! Backbone x images -> feature maps of a training run: extracted once, then served to the fit, its stopping rule and
//! the calibration, from memory or from a mapped file. Evaluation and inference extract image by image.

mod extract;
mod records;
mod store;

pub use extract::{Extraction, Job, extract};
pub use records::Records;
pub use store::{FeatureStore, FeatureWriter};
