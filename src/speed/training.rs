//! How long a step of a training takes, its features at hand.

use candle_core::{Device, Tensor};

use super::{median, timed};
use crate::{
    Result,
    estimators::Trainable,
    features::{FeatureStore, FeatureWriter},
    kernels::FeatureShape,
    training::{Adam, AdamConfig, DeviceAdam, DeviceFeatures, batch_gradients, device_step},
};

/// Steps behind a median on the CPU; a GPU, whose steps are short, takes ten times as many.
const STEPS: usize = 4;

/// Medians in milliseconds a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingSpeed {
    /// A whole training step.
    pub step: f64,
    /// Its forward and backward alone; on a GPU only.
    pub gradients: Option<f64>,
}

impl TrainingSpeed {
    /// Of batches of `batch` times the first image of `features` (a map `[B, C, H, W]` a scale).
    ///
    /// # Errors
    /// When the features do not fit the model.
    pub fn measure(
        model: &dyn Trainable,
        features: &[Tensor],
        batch: usize,
        device: &Device,
    ) -> Result<Self> {
        let store = feature_store(features, batch)?;
        let records: Vec<usize> = (0..batch).collect();
        if !device.is_cpu() {
            let mut adam = DeviceAdam::new(model.parameters(), AdamConfig::default(), device)?;
            let features = DeviceFeatures::new(&store, device)?;
            let step = steps(10 * STEPS, device, || {
                device_step(model, &mut adam, &features, &records, None)
            })?;
            let maps = features.batch(&records)?;
            let gradients = steps(10 * STEPS, device, || {
                model.loss_and_gradients(&maps).map(|_| ())
            })?;
            let gradients = Some(gradients);
            return Ok(Self { step, gradients });
        }
        let mut adam = Adam::new(model.parameters(), AdamConfig::default())?;
        let step = steps(STEPS, device, || {
            let gradients = batch_gradients(model, &store, &records, device)?;
            adam.step(&gradients.values, 1.0 / batch as f32)
        })?;
        Ok(Self {
            step,
            gradients: None,
        })
    }
}

/// The first image of `features` (a map `[B, C, H, W]` a scale) as a store of `copies` records.
///
/// # Errors
/// When a map has not four dimensions.
pub fn feature_store(features: &[Tensor], copies: usize) -> Result<FeatureStore> {
    let first = |map: &Tensor| map.narrow(0, 0, 1);
    let maps = features
        .iter()
        .map(first)
        .collect::<candle_core::Result<Vec<_>>>()?;
    let shape = |map: &Tensor| -> Result<FeatureShape> {
        let (_, channels, height, width) = map.dims4()?;
        Ok(FeatureShape {
            channels,
            height,
            width,
        })
    };
    let shapes = maps.iter().map(shape).collect::<Result<Vec<_>>>()?;
    let mut writer = FeatureWriter::new(shapes, copies, u64::MAX, &std::env::temp_dir())?;
    for _ in 0..copies {
        writer.push(&maps)?;
    }
    writer.finish()
}

/// The median of `count` steps, the first ones not counted.
fn steps(count: usize, device: &Device, mut step: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(timed(device, &mut step)?.0);
    }
    Ok(median(times.split_off(count / 4)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::estimators::FeatureSource;

    #[test]
    fn a_store_repeats_the_first_image() {
        let map = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap();
        let map = map.reshape((2, 3, 2, 2)).unwrap();
        let store = feature_store(&[map], 3).unwrap();
        assert_eq!(store.len(), 3);
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        assert!((0..3).all(|record| store.map(record, 0) == values));
        let shape = &store.shapes()[0];
        assert_eq!((shape.channels, shape.height, shape.width), (3, 2, 2));
    }
}
