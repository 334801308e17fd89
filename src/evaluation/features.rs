//! Features of a test set that several evaluations share: scoring another way needs no backbone.

use std::path::Path;

use candle_core::Device;

use crate::{
    Result,
    datasets::Dataset,
    detector::Detector,
    estimators::{FeatureSource, NativeMaps},
    features::{Extraction, FeatureStore, Job, extract},
    imaging::View,
};

/// Feature maps of all test images of a data set, in its order.
pub struct TestFeatures {
    store: FeatureStore,
    /// Columns and rows of the photos.
    sizes: Vec<(u32, u32)>,
}

impl TestFeatures {
    /// Extracts them as `detector` sees the images; what exceeds `memory_limit` bytes goes to a file in `folder`.
    /// `progress` hears (done, total).
    ///
    /// # Errors
    /// The first image that cannot be read; a full disk.
    pub fn extract(
        detector: &Detector,
        dataset: &Dataset,
        memory_limit: u64,
        folder: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let dataset = &dataset.clone().seen_by(&detector.config().preprocessing);
        let settings = Extraction {
            backbone: detector.backbone(),
            preprocessing: &detector.config().preprocessing,
            device: detector.device(),
            memory_limit,
            folder,
        };
        let jobs = dataset.test.iter().map(|sample| Job {
            sample: sample.clone(),
            view: View::IDENTITY,
        });
        let sizes = dataset.test.iter().map(|sample| sample.dimensions());
        Ok(Self {
            sizes: sizes.collect::<Result<_>>()?,
            store: extract(&settings, &jobs.collect::<Vec<_>>(), progress)?,
        })
    }

    /// The maps of one image as `detector` makes them, and the photo's columns and rows.
    pub(super) fn maps(
        &self,
        detector: &Detector,
        record: usize,
    ) -> Result<(NativeMaps, (u32, u32))> {
        let features = self.store.batch(&[record], &Device::Cpu)?;
        let features = features.iter().map(|map| map.to_device(detector.device()));
        let features = features.collect::<candle_core::Result<Vec<_>>>()?;
        let maps = detector.maps_of_features(&features)?;
        Ok((maps, self.sizes[record]))
    }
}
