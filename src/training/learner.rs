//! The optimizer of a run: on the CPU every step is looked at, on a GPU steps are queued and looked at now and then.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::{Adam, AdamConfig, DeviceAdam};
use crate::{Result, estimators::Trainable};

/// Adam, where the model is.
pub(super) enum Learner {
    Host(Adam),
    Device(DeviceAdam),
}

impl Learner {
    pub(super) fn new(model: &dyn Trainable, config: AdamConfig, device: &Device) -> Result<Self> {
        let parameters = model.parameters();
        Ok(match device {
            Device::Cpu => Self::Host(Adam::new(parameters, config)?),
            _ => Self::Device(DeviceAdam::new(parameters, config, device)?),
        })
    }

    pub(super) fn steps(&self) -> u64 {
        match self {
            Self::Host(adam) => adam.steps(),
            Self::Device(adam) => adam.steps(),
        }
    }

    pub(super) fn set_learning_rate(&mut self, rate: f64) {
        match self {
            Self::Host(adam) => adam.set_learning_rate(rate),
            Self::Device(adam) => adam.set_learning_rate(rate),
        }
    }

    /// Moments by name, on the CPU.
    pub(super) fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        match self {
            Self::Host(adam) => adam.state(),
            Self::Device(adam) => adam.state(),
        }
    }

    pub(super) fn restore(&mut self, state: &BTreeMap<String, Tensor>, step: u64) -> Result<()> {
        match self {
            Self::Host(adam) => adam.restore(state, step),
            Self::Device(adam) => adam.restore(state, step),
        }
    }
}
