//! Where estimators take the training features from, whoever keeps them.

use candle_core::{Device, Tensor};

use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// Feature maps of many images, every image the same shapes.
pub trait FeatureSource: Sync {
    /// Number of images (views counted one by one).
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shapes of one image's maps, finest first.
    fn shapes(&self) -> &[FeatureShape];

    /// One map of one image, `[C, H, W]`; `record` and `scale` must exist.
    fn map(&self, record: usize, scale: usize) -> &[f32];

    /// The maps of the named images as one `[B, C, H, W]` tensor a scale.
    ///
    /// # Errors
    /// When an index is out of range or the device is out of memory.
    fn batch(&self, records: &[usize], device: &Device) -> Result<Vec<Tensor>> {
        if let Some(bad) = records.iter().find(|&&i| i >= self.len()) {
            return Err(Error::Invalid(format!(
                "feature record {bad} of {}",
                self.len()
            )));
        }
        let shapes = self.shapes().iter().enumerate();
        let one = |(scale, shape): (usize, &FeatureShape)| {
            let mut values = Vec::with_capacity(records.len() * shape.values());
            for &record in records {
                values.extend_from_slice(self.map(record, scale));
            }
            let dims = (records.len(), shape.channels, shape.height, shape.width);
            Ok(Tensor::from_vec(values, dims, device)?)
        };
        shapes.map(one).collect()
    }
}

/// Some of the maps of a source.
pub struct SomeMaps<'a> {
    source: &'a dyn FeatureSource,
    maps: &'a [usize],
    shapes: Vec<FeatureShape>,
}

impl<'a> SomeMaps<'a> {
    /// These maps of `source`, which must exist.
    pub fn new(source: &'a dyn FeatureSource, maps: &'a [usize]) -> Self {
        let shapes = maps.iter().map(|&map| source.shapes()[map]).collect();
        Self {
            source,
            maps,
            shapes,
        }
    }
}

impl FeatureSource for SomeMaps<'_> {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn map(&self, record: usize, scale: usize) -> &[f32] {
        self.source.map(record, self.maps[scale])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Features in plain vectors: `records[image][scale]`.
    pub(crate) struct Fixed {
        pub(crate) shapes: Vec<FeatureShape>,
        pub(crate) records: Vec<Vec<Vec<f32>>>,
    }

    impl FeatureSource for Fixed {
        fn len(&self) -> usize {
            self.records.len()
        }

        fn shapes(&self) -> &[FeatureShape] {
            &self.shapes
        }

        fn map(&self, record: usize, scale: usize) -> &[f32] {
            &self.records[record][scale]
        }
    }

    #[test]
    fn a_batch_holds_the_records_in_the_order_asked_for() {
        let shape = FeatureShape {
            channels: 2,
            height: 1,
            width: 2,
        };
        let features = Fixed {
            shapes: vec![shape],
            records: (0..3).map(|i| vec![vec![i as f32; 4]]).collect(),
        };
        let batch = features.batch(&[2, 0], &Device::Cpu).unwrap();
        assert_eq!(batch[0].dims(), [2, 2, 1, 2]);
        let values = batch[0].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values, [2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(features.batch(&[3], &Device::Cpu).is_err());
    }
}
