//! Backbone x images -> feature maps, extracted once and then served to training, calibration and
//! evaluation, from memory or from a mapped file.

mod extract;
mod records;
mod store;

pub use extract::{Extraction, Job, extract};
pub use records::Records;
pub use store::{FeatureStore, FeatureWriter};
