//! Taking a flow's tensors out of an artifact: exactly the expected ones, each checked.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::kernels::coupling::Permutation;
use crate::{Error, Result};

/// Named tensors that are taken one by one.
pub(in crate::estimators) struct Source {
    tensors: BTreeMap<String, Tensor>,
    device: Device,
}

impl Source {
    pub(in crate::estimators) fn new(tensors: BTreeMap<String, Tensor>, device: &Device) -> Self {
        Self {
            tensors,
            device: device.clone(),
        }
    }

    /// An f32 tensor of finite values, on the device.
    pub(in crate::estimators) fn take(&mut self, name: &str, dims: &[usize]) -> Result<Tensor> {
        let tensor = self.checked(name, dims, DType::F32)?;
        // Infinities and NaN survive in a sum, which in f64 cannot overflow.
        let sum = tensor.to_dtype(DType::F64)?.flatten_all()?.sum(0)?;
        if !sum.to_scalar::<f64>()?.is_finite() {
            return Err(Error::Invalid(format!(
                "tensor `{name}` holds values that are not finite"
            )));
        }
        Ok(tensor.to_device(&self.device)?.contiguous()?)
    }

    /// A permutation of `channels` channels.
    pub(super) fn take_permutation(&mut self, name: &str, channels: usize) -> Result<Permutation> {
        let tensor = self.checked(name, &[channels], DType::U32)?;
        Permutation::new(tensor.to_vec1()?)
            .map_err(|error| Error::Invalid(format!("tensor `{name}`: {error}")))
    }

    /// Fails if some tensor was not taken.
    pub(in crate::estimators) fn finish(self) -> Result<()> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::Invalid(format!(
                "tensor `{name}` does not belong to this flow; check the configuration it was saved with"
            ))),
        }
    }

    fn checked(&mut self, name: &str, dims: &[usize], dtype: DType) -> Result<Tensor> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(Error::Invalid(format!("tensor `{name}` is missing")));
        };
        if tensor.dims() != dims || tensor.dtype() != dtype {
            return Err(Error::Shape {
                what: format!("tensor `{name}`"),
                expected: format!("{} {dims:?}", dtype.as_str()),
                found: format!("{} {:?}", tensor.dtype().as_str(), tensor.dims()),
            });
        }
        Ok(tensor)
    }
}
