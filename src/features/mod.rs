//! Backbone x images -> feature maps, extracted once and then served to training, calibration and
//! evaluation, from memory or from a mapped file.

mod extract;
mod store;

pub use extract::{Extraction, Job, extract};
pub use store::{FeatureStore, FeatureWriter};
