//! One memory: the remembered features of one input, and what a distance to them counts.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::{PatchCoreConfig, Precision};
use crate::estimators::tensors::Source;
use crate::{Result, kernels::nearest::Memory};

/// A bank as tensors.
pub(super) struct BankTensors {
    /// `[N, C]`.
    pub(super) memory: Tensor,
    /// What distances to each are multiplied by, `[N]`; none where they count alike.
    pub(super) weights: Option<Tensor>,
}

impl BankTensors {
    /// Takes them into an artifact's tensors.
    pub(super) fn name(self, input: usize, tensors: &mut BTreeMap<String, Tensor>) {
        tensors.insert(memory_name(input), self.memory);
        if let Some(weights) = self.weights {
            tensors.insert(weights_name(input), weights);
        }
    }
}

pub(super) fn memory_name(input: usize) -> String {
    format!("banks.{input}.memory")
}

fn weights_name(input: usize) -> String {
    format!("banks.{input}.weights")
}

/// A bank to look into.
#[derive(Debug)]
pub(super) struct Bank {
    pub(super) memory: Memory,
    weights: Option<Vec<f32>>,
}

impl Bank {
    /// Takes the bank's tensors out of an artifact.
    pub(super) fn take(
        config: &PatchCoreConfig,
        input: usize,
        channels: usize,
        source: &mut Source,
    ) -> Result<Self> {
        let memory = source.take_values(&memory_name(input), 1..=config.memory, channels)?;
        let weights = match config.weighs() {
            false => None,
            true => {
                let weights = source.take(&weights_name(input), &[memory.dim(0)?])?;
                Some(weights.to_vec1::<f32>()?)
            }
        };
        Ok(Self {
            memory: Memory::new(&memory)?,
            weights,
        })
    }

    /// Its tensors again.
    pub(super) fn tensors(&self, precision: Precision) -> Result<BankTensors> {
        let rows = self.memory.rows();
        let weights = self.weights.as_ref().map(|weights| {
            let count = weights.len();
            Tensor::from_slice(weights, count, &Device::Cpu)
        });
        Ok(BankTensors {
            memory: match precision {
                Precision::F32 => rows.clone(),
                Precision::F16 => rows.to_dtype(DType::F16)?,
            },
            weights: weights.transpose()?,
        })
    }

    /// What a distance to this remembered feature counts.
    pub(super) fn weight(&self, row: u32) -> f32 {
        self.weights
            .as_ref()
            .and_then(|weights| weights.get(row as usize).copied())
            .unwrap_or(1.0)
    }
}
