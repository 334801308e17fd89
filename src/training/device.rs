//! Training where the features and the flow are on a GPU: steps are only queued, and nothing is read back within an
//! epoch but the loss, now and then. Runs on any device; on the CPU the lanes of `gradients` are faster.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};

use super::AdamConfig;
use crate::{
    Error, Result,
    estimators::{FeatureSource, Trainable},
    kernels::FeatureShape,
    kernels::adam::{AdamStep, Decided, Decision, adam_step},
    kernels::device::free_memory,
};

/// Adam whose moments live beside the parameters (see [`super::Adam`]).
pub struct DeviceAdam {
    config: AdamConfig,
    slots: Vec<Slot>,
    decision: Decision,
    /// What was decided when it was read last.
    seen: Decided,
    step: u64,
    /// Steps of an earlier run, which this decision did not count.
    restored: u64,
}

struct Slot {
    name: String,
    parameter: Var,
    /// `[2, n]`
    moments: Tensor,
}

/// What steps since the last reading came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progressed {
    /// Sum of their losses.
    pub loss: f64,
    /// Sum of their gradients' norms.
    pub gradient_norm: f64,
    /// Loss and norm of the step that was refused, after which none was taken.
    pub refused: Option<(f64, f64)>,
}

impl DeviceAdam {
    /// A fresh optimizer of named parameters, all on `device`.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(
        parameters: Vec<(String, Var)>,
        config: AdamConfig,
        device: &Device,
    ) -> Result<Self> {
        let decision = Decision::new(parameters.len(), device)?;
        let slots = parameters.into_iter().map(|(name, parameter)| {
            let moments = Tensor::zeros((2, parameter.elem_count()), DType::F32, device)?;
            Ok(Slot {
                name,
                parameter,
                moments,
            })
        });
        Ok(Self {
            config,
            slots: slots.collect::<Result<_>>()?,
            seen: decision.read()?,
            decision,
            step: 0,
            restored: 0,
        })
    }

    /// Steps queued so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The step size from the next step on.
    pub fn set_learning_rate(&mut self, rate: f64) {
        self.config.learning_rate = rate;
    }

    /// Queues one step along `gradients` (in the order of the parameters), sums over `images` like `loss`; `clip`
    /// bounds their norm an image. A loss or norm that is not finite refuses this step and all after it.
    ///
    /// # Errors
    /// When tensors do not fit or the device failed before.
    pub fn step(
        &mut self,
        gradients: &[Tensor],
        loss: &Tensor,
        images: usize,
        clip: Option<f64>,
    ) -> Result<()> {
        self.decision.decide(gradients, loss, images, clip)?;
        self.step += 1;
        let c = self.config;
        let exponent = self.step as f64;
        let step = AdamStep {
            beta1: c.beta1 as f32,
            beta2: c.beta2 as f32,
            decay: c.weight_decay as f32,
            rate: (c.learning_rate / (1.0 - c.beta1.powf(exponent))) as f32,
            inverse2: (1.0 / (1.0 - c.beta2.powf(exponent)).sqrt()) as f32,
            epsilon: c.epsilon as f32,
        };
        let moments: Vec<Tensor> = self.slots.iter().map(|slot| slot.moments.clone()).collect();
        let parameters = self.slots.iter().map(|slot| slot.parameter.as_tensor());
        let parameters: Vec<Tensor> = parameters.cloned().collect();
        adam_step(step, &self.decision, gradients, &moments, &parameters)
    }

    /// Waits for the queued steps and says what they came to since the last call.
    ///
    /// # Errors
    /// When the device failed.
    pub fn progressed(&mut self) -> Result<Progressed> {
        let now = self.decision.read()?;
        let progressed = Progressed {
            loss: now.loss - self.seen.loss,
            gradient_norm: now.gradient_norm - self.seen.gradient_norm,
            refused: now.refused,
        };
        // Refused steps did not happen.
        self.step = self.restored + now.steps;
        self.seen = now;
        Ok(progressed)
    }

    /// Moments by name, as [`super::Adam::state`] names them, on the CPU.
    ///
    /// # Errors
    /// When the device failed.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for slot in &self.slots {
            let moments = slot.moments.to_device(&Device::Cpu)?;
            for (row, kind) in ["first", "second"].into_iter().enumerate() {
                state.insert(format!("adam.{kind}.{}", slot.name), moments.get(row)?);
            }
        }
        Ok(state)
    }

    /// Takes up where `state` was saved.
    ///
    /// # Errors
    /// When a moment is missing or of another size.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, step: u64) -> Result<()> {
        for slot in &mut self.slots {
            let saved = ["first", "second"].map(|kind| {
                let name = format!("adam.{kind}.{}", slot.name);
                let saved = state.get(&name);
                saved.ok_or_else(|| Error::Training(format!("the checkpoint lacks `{name}`")))
            });
            let [first, second] = saved;
            let moments = Tensor::stack(&[first?, second?], 0)?;
            if moments.dims() != slot.moments.dims() {
                return Err(Error::Shape {
                    what: format!("checkpoint tensor `adam.first.{}`", slot.name),
                    expected: format!("{:?}", &slot.moments.dims()[1..]),
                    found: format!("{:?}", &moments.dims()[1..]),
                });
            }
            slot.moments = moments.to_device(slot.moments.device())?;
        }
        (self.step, self.restored) = (step, step);
        Ok(())
    }
}

/// A resident set may take one part in so many of the free memory: the rest is for weights, moments and activations.
const SHARE: u64 = 2;
/// Images that a flow takes at a time where nothing is trained.
pub(super) const EVALUATION_BATCH: usize = 16;

/// Cached features on the flow's device where they fit; else batches are copied there one by one.
pub struct DeviceFeatures<'a> {
    store: &'a dyn FeatureSource,
    device: Device,
    resident: Option<Vec<Tensor>>,
}

impl<'a> DeviceFeatures<'a> {
    /// Copies everything to `device`, if that leaves enough of its memory.
    ///
    /// # Errors
    /// When the device fails for another reason than its memory.
    pub fn new(store: &'a dyn FeatureSource, device: &Device) -> Result<Self> {
        let mut features = Self::streamed(store, device);
        if !fits(store, device)? {
            return Ok(features);
        }
        features.resident = match on_device(store, device) {
            Ok(maps) => Some(maps),
            Err(Error::GpuMemory(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(features)
    }

    /// Copies nothing yet.
    pub fn streamed(store: &'a dyn FeatureSource, device: &Device) -> Self {
        Self {
            store,
            device: device.clone(),
            resident: None,
        }
    }

    /// What the features are of.
    pub fn store(&self) -> &'a dyn FeatureSource {
        self.store
    }

    /// Where batches appear.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether every image's maps stay on the device.
    pub fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    /// The maps of these records, one `[B, C, H, W]` tensor a scale.
    ///
    /// # Errors
    /// When a record does not exist or the device is out of memory.
    pub fn batch(&self, records: &[usize]) -> Result<Vec<Tensor>> {
        let Some(maps) = &self.resident else {
            return self.store.batch(records, &self.device);
        };
        let indices: Vec<u32> = records.iter().map(|&record| record as u32).collect();
        let indices = Tensor::from_vec(indices, records.len(), &self.device)?;
        maps.iter()
            .map(|map| Ok(map.index_select(&indices, 0)?))
            .collect()
    }
}

/// All maps on `device`, one `[N, C, H, W]` tensor a scale, in the order of the records.
///
/// # Errors
/// When the device is out of memory.
fn on_device(store: &dyn FeatureSource, device: &Device) -> Result<Vec<Tensor>> {
    /// Records that are copied at a time: the host holds each only once more.
    const CHUNK: usize = 64;
    let records: Vec<usize> = (0..store.len()).collect();
    let empty = |shape: &FeatureShape| {
        let dims = (store.len(), shape.channels, shape.height, shape.width);
        Ok(Tensor::zeros(dims, DType::F32, device)?)
    };
    let all: Vec<Tensor> = store.shapes().iter().map(empty).collect::<Result<_>>()?;
    for (chunk, records) in records.chunks(CHUNK).enumerate() {
        for (maps, part) in all.iter().zip(store.batch(records, device)?) {
            maps.slice_set(&part, 0, chunk * CHUNK)?;
        }
    }
    Ok(all)
}

fn fits(store: &dyn FeatureSource, device: &Device) -> Result<bool> {
    // candle's `index_select` counts a tensor's values in 32 bits on a GPU.
    let shapes = store.shapes().iter();
    let largest = shapes.map(|shape| shape.values() * store.len()).max();
    let countable = largest.is_some_and(|values| u32::try_from(values).is_ok());
    let values: usize = store.shapes().iter().map(FeatureShape::values).sum();
    let bytes = (values * store.len() * size_of::<f32>()) as u64;
    let free = free_memory(device)?;
    Ok(!store.is_empty() && free.is_none_or(|free| countable && bytes <= free / SHARE))
}

/// Queues one training step.
///
/// # Errors
/// When tensors do not fit or the device failed before.
pub fn device_step(
    model: &dyn Trainable,
    adam: &mut DeviceAdam,
    features: &DeviceFeatures<'_>,
    records: &[usize],
    clip: Option<f64>,
) -> Result<()> {
    let (loss, gradients) = model.loss_and_gradients(&features.batch(records)?)?;
    adam.step(&gradients, &loss, records.len(), clip)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        estimators::flow::{Coupling, FastFlow, FeatureNorm, FlowConfig, Kernels},
        features::{FeatureStore, FeatureWriter},
        kernels::FeatureShape,
        training::{Adam, batch_gradients},
    };

    fn store(images: usize) -> FeatureStore {
        let shapes = [(6, 5, 4), (4, 3, 3)].map(|(channels, height, width)| FeatureShape {
            channels,
            height,
            width,
        });
        let folder = std::env::temp_dir();
        let mut writer = FeatureWriter::new(shapes.to_vec(), images, u64::MAX, &folder).unwrap();
        for image in 0..images {
            let map = |shape: &FeatureShape| {
                let value = |i: usize| ((i * 7 + image * 131) as f32 * 0.37).sin();
                let values: Vec<f32> = (0..shape.values()).map(value).collect();
                let dims = (1, shape.channels, shape.height, shape.width);
                Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
            };
            writer
                .push(&shapes.iter().map(map).collect::<Vec<_>>())
                .unwrap();
        }
        writer.finish().unwrap()
    }

    fn flow(store: &FeatureStore) -> FastFlow {
        let config = FlowConfig {
            steps: 2,
            kernels: Kernels::Alternating,
            hidden: vec![3, 2],
            clamp: 2.0,
            norm: FeatureNorm::LayerNormAffine,
            coupling: Coupling::Affine,
            neighbourhood: 1,
        };
        FastFlow::init(&config, store.shapes(), 3, &Device::Cpu).unwrap()
    }

    fn values(flow: &FastFlow) -> Vec<f32> {
        let parameters = flow.parameters();
        let all = parameters
            .iter()
            .map(|(_, var)| var.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        all.collect::<Vec<_>>().concat()
    }

    fn config() -> AdamConfig {
        AdamConfig {
            weight_decay: 1e-2,
            ..AdamConfig::default()
        }
    }

    const BATCHES: [[usize; 3]; 4] = [[0, 1, 2], [3, 4, 0], [4, 2, 1], [0, 3, 2]];

    #[test]
    fn queued_steps_are_the_hosts_steps() {
        for clip in [None, Some(0.5)] {
            let store = store(5);
            let (host, device) = (flow(&store), flow(&store));
            let mut adam = Adam::new(host.parameters(), config()).unwrap();
            let mut queued = DeviceAdam::new(device.parameters(), config(), &Device::Cpu).unwrap();
            let features = DeviceFeatures::new(&store, &Device::Cpu).unwrap();
            assert!(features.is_resident());
            let (mut loss, mut norms) = (0.0, 0.0);
            for batch in &BATCHES {
                let gradients = batch_gradients(&host, &store, batch, &Device::Cpu).unwrap();
                let norm = gradients.norm() / 3.0;
                (loss, norms) = (loss + gradients.loss, norms + norm);
                let factor = clip.map_or(1.0, |limit| f64::min(1.0, limit / norm)) / 3.0;
                adam.step(&gradients.values, factor as f32).unwrap();
                device_step(&device, &mut queued, &features, batch, clip).unwrap();
            }
            let progressed = queued.progressed().unwrap();
            assert!(
                (progressed.loss / loss - 1.0).abs() < 1e-4,
                "{progressed:?} {loss}"
            );
            assert!((progressed.gradient_norm / norms - 1.0).abs() < 1e-4);
            assert_eq!(queued.progressed().unwrap(), Progressed::default());
            for (found, expected) in values(&device).iter().zip(values(&host)) {
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }

    #[test]
    fn restored_state_continues_to_the_same_bits_on_either_side() {
        let store = store(5);
        let features = DeviceFeatures::new(&store, &Device::Cpu).unwrap();
        let step = |flow: &FastFlow, adam: &mut DeviceAdam, batch: &[usize]| {
            device_step(flow, adam, &features, batch, None).unwrap();
        };
        let start =
            |flow: &FastFlow| DeviceAdam::new(flow.parameters(), config(), &Device::Cpu).unwrap();
        let unbroken = flow(&store);
        let mut whole = start(&unbroken);
        BATCHES
            .iter()
            .for_each(|batch| step(&unbroken, &mut whole, batch));
        let broken = flow(&store);
        let mut before = start(&broken);
        BATCHES[..2]
            .iter()
            .for_each(|batch| step(&broken, &mut before, batch));
        let mut after = start(&broken);
        after
            .restore(&before.state().unwrap(), before.steps())
            .unwrap();
        BATCHES[2..]
            .iter()
            .for_each(|batch| step(&broken, &mut after, batch));
        assert_eq!(values(&broken), values(&unbroken));
        assert_eq!(
            (after.steps(), after.progressed().unwrap().refused),
            (4, None)
        );
        assert_eq!(after.steps(), 4);
        // A checkpoint of the CPU's optimizer is the same.
        let mut host = Adam::new(broken.parameters(), config()).unwrap();
        host.restore(&after.state().unwrap(), 4).unwrap();
        assert_eq!(host.state().unwrap().len(), after.state().unwrap().len());
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_everything() {
        let store = store(5);
        let flow = flow(&store);
        let mut adam = DeviceAdam::new(flow.parameters(), config(), &Device::Cpu).unwrap();
        let features = DeviceFeatures::new(&store, &Device::Cpu).unwrap();
        device_step(&flow, &mut adam, &features, &BATCHES[0], None).unwrap();
        let good = values(&flow);
        let (_, gradients) = flow
            .device_loss_and_gradients(&features.batch(&[1]).unwrap())
            .unwrap();
        let bad = Tensor::new(f64::NAN, &Device::Cpu).unwrap();
        adam.step(&gradients, &bad, 1, None).unwrap();
        device_step(&flow, &mut adam, &features, &BATCHES[1], None).unwrap();
        assert_eq!(values(&flow), good);
        let progressed = adam.progressed().unwrap();
        assert!(progressed.refused.unwrap().0.is_nan() && progressed.loss.is_finite());
        assert_eq!(adam.steps(), 1);
    }
}
