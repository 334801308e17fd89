//! One memory: the remembered features of one input, and what a distance to them counts.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::{PatchCoreConfig, Precision};
use crate::kernels::nearest::Memory;
use crate::{Error, Result};

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
    /// Takes the bank's tensors out of `tensors`.
    pub(super) fn take(
        config: &PatchCoreConfig,
        input: usize,
        channels: usize,
        tensors: &mut BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let name = memory_name(input);
        let memory = taken(&name, tensors)?;
        let fits = matches!(memory.dims(), &[rows, found] if rows > 0 && rows <= config.memory && found == channels);
        if !fits {
            return Err(Error::Shape {
                what: format!("tensor `{name}` (is it of another backbone?)"),
                expected: format!("1 to {} rows of {channels}", config.memory),
                found: format!("{:?}", memory.dims()),
            });
        }
        let memory = finite(&name, &memory)?;
        let weights = if config.weighs() {
            let name = weights_name(input);
            let weights = finite(&name, &taken(&name, tensors)?)?;
            if weights.dims() != [memory.dim(0)?] {
                return Err(Error::Shape {
                    what: format!("tensor `{name}`"),
                    expected: format!("[{}]", memory.dim(0)?),
                    found: format!("{:?}", weights.dims()),
                });
            }
            Some(weights.to_vec1::<f32>()?)
        } else {
            None
        };
        Ok(Self {
            memory: Memory::new(&memory.to_device(device)?)?,
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

fn taken(name: &str, tensors: &mut BTreeMap<String, Tensor>) -> Result<Tensor> {
    let tensor = tensors.remove(name);
    tensor.ok_or_else(|| Error::Invalid(format!("tensor `{name}` is missing")))
}

/// As f32, or an error where a value is not finite.
fn finite(name: &str, tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.to_dtype(DType::F32)?;
    // A sum of squares that overflows is no feature of a network either.
    let total = tensor.sqr()?.sum_all()?.to_scalar::<f32>()?;
    if total.is_finite() {
        return Ok(tensor);
    }
    Err(Error::Invalid(format!(
        "tensor `{name}` holds a number that is not finite"
    )))
}
