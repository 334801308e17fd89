//! Some records of a store: one extraction serves training, held-out photos and the final fit.

use super::FeatureStore;
use crate::{estimators::FeatureSource, kernels::FeatureShape};

/// Records of a [`FeatureStore`] in an order of their own.
pub struct Records<'a> {
    store: &'a FeatureStore,
    records: Vec<usize>,
}

impl<'a> Records<'a> {
    /// These records of `store`, which must exist.
    pub fn new(store: &'a FeatureStore, records: Vec<usize>) -> Self {
        Self { store, records }
    }
}

impl FeatureSource for Records<'_> {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn shapes(&self) -> &[FeatureShape] {
        self.store.shapes()
    }

    fn map(&self, record: usize, scale: usize) -> &[f32] {
        self.store.map(self.records[record], scale)
    }
}
