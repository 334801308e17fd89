//! Taking an estimator's tensors out of an artifact: exactly the expected ones, each checked.

use std::{collections::BTreeMap, ops::RangeInclusive};

use candle_core::{DType, Device, Tensor};

use crate::kernels::coupling::Permutation;
use crate::{Error, Result};

/// Named tensors that are taken one by one.
pub(super) struct Source {
    tensors: BTreeMap<String, Tensor>,
    device: Device,
}

impl Source {
    pub(super) fn new(tensors: BTreeMap<String, Tensor>, device: &Device) -> Self {
        Self {
            tensors,
            device: device.clone(),
        }
    }

    /// An f32 tensor of finite values, on the device.
    pub(super) fn take(&mut self, name: &str, dims: &[usize]) -> Result<Tensor> {
        let tensor = self.checked(name, dims, DType::F32)?;
        expect_finite(name, &tensor)?;
        Ok(tensor.to_device(&self.device)?.contiguous()?)
    }

    /// What channels are divided by: positive numbers, `[channels]`.
    pub(super) fn take_deviations(&mut self, name: &str, channels: usize) -> Result<Tensor> {
        let std = self.take(name, &[channels])?;
        match std.min(0)?.to_scalar::<f32>()? > 0.0 {
            true => Ok(std),
            false => Err(Error::Invalid(format!(
                "tensor `{name}` must hold positive numbers"
            ))),
        }
    }

    /// Rows of finite values of any float type, `[N, channels]`, on the CPU as they lie in the file.
    pub(super) fn take_rows(
        &mut self,
        name: &str,
        rows: RangeInclusive<usize>,
        channels: usize,
    ) -> Result<Tensor> {
        let tensor = self.named(name)?;
        let fits =
            matches!(tensor.dims(), &[found, width] if rows.contains(&found) && width == channels);
        if !fits || !tensor.dtype().is_float() {
            let count = match rows.start() == rows.end() {
                true => rows.start().to_string(),
                false => format!("{} to {}", rows.start(), rows.end()),
            };
            return Err(misfit(name, format!("{count} rows of {channels}"), &tensor));
        }
        for row in 0..tensor.dim(0)?.div_ceil(ROWS) {
            let some = ROWS.min(tensor.dim(0)? - row * ROWS);
            expect_finite(name, &tensor.narrow(0, row * ROWS, some)?)?;
        }
        Ok(tensor.contiguous()?)
    }

    /// Numbers below `below`, ascending.
    pub(super) fn take_ascending(
        &mut self,
        name: &str,
        count: usize,
        below: usize,
    ) -> Result<Vec<u32>> {
        let numbers = self.checked(name, &[count], DType::U32)?.to_vec1::<u32>()?;
        let ascend = numbers.windows(2).all(|pair| pair[0] < pair[1]);
        if ascend && numbers.last().is_none_or(|&last| (last as usize) < below) {
            return Ok(numbers);
        }
        Err(Error::Invalid(format!(
            "tensor `{name}` must ascend and stay below {below}"
        )))
    }

    /// A permutation of `channels` channels.
    pub(super) fn take_permutation(&mut self, name: &str, channels: usize) -> Result<Permutation> {
        let tensor = self.checked(name, &[channels], DType::U32)?;
        Permutation::new(tensor.to_vec1()?)
            .map_err(|error| Error::Invalid(format!("tensor `{name}`: {error}")))
    }

    /// [`Self::take_rows`] as f32 on the device.
    pub(super) fn take_values(
        &mut self,
        name: &str,
        rows: RangeInclusive<usize>,
        channels: usize,
    ) -> Result<Tensor> {
        let rows = self.take_rows(name, rows, channels)?;
        Ok(rows.to_dtype(DType::F32)?.to_device(&self.device)?)
    }

    /// Fails if some tensor was not taken.
    pub(super) fn finish(self) -> Result<()> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::Invalid(format!(
                "tensor `{name}` does not belong to this estimator; check the configuration it was saved with"
            ))),
        }
    }

    fn checked(&mut self, name: &str, dims: &[usize], dtype: DType) -> Result<Tensor> {
        let tensor = self.named(name)?;
        if tensor.dims() != dims || tensor.dtype() != dtype {
            let expected = format!("{} {dims:?}", dtype.as_str());
            return Err(misfit(name, expected, &tensor));
        }
        Ok(tensor)
    }

    fn named(&mut self, name: &str) -> Result<Tensor> {
        let tensor = self.tensors.remove(name);
        tensor.ok_or_else(|| Error::Invalid(format!("tensor `{name}` is missing")))
    }
}

/// Rows that are looked at together: f64 copies stay small.
const ROWS: usize = 4096;

fn misfit(name: &str, expected: String, tensor: &Tensor) -> Error {
    Error::Shape {
        what: format!("tensor `{name}` (is it of another backbone or input?)"),
        expected,
        found: format!("{} {:?}", tensor.dtype().as_str(), tensor.dims()),
    }
}

fn expect_finite(name: &str, tensor: &Tensor) -> Result<()> {
    // Infinities and NaN survive in a sum, which in f64 cannot overflow.
    let sum = tensor.to_dtype(DType::F64)?.flatten_all()?.sum(0)?;
    if sum.to_scalar::<f64>()?.is_finite() {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "tensor `{name}` holds a number that is not finite"
    )))
}
