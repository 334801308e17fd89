//! What members are made comparable by.

use candle_core::{Device, Tensor};

use crate::estimators::ScaleStatistics;
use crate::{Error, Result};

/// Mean and deviation over held-out normal images of a member's image scores and of its maps' values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Standard {
    pub(super) score: ScaleStatistics,
    pub(super) map: ScaleStatistics,
}

/// Nothing taken off, nothing divided.
const NONE: ScaleStatistics = ScaleStatistics {
    mean: 0.0,
    std: 1.0,
};

/// Of values that are there one by one; those of a single value, or of values all alike, divide by nothing.
pub(super) fn moments(values: impl IntoIterator<Item = f32>) -> ScaleStatistics {
    let found = ScaleStatistics::of(values);
    let varies = found.std > 1e-6 * found.mean.abs().max(f32::MIN_POSITIVE);
    ScaleStatistics {
        std: if varies { found.std } else { NONE.std },
        ..found
    }
}

/// `(x - mean) / std`.
pub(super) fn standardised(values: &Tensor, by: ScaleStatistics) -> Result<Tensor> {
    let std = f64::from(by.std);
    Ok(((values - f64::from(by.mean))? / std)?)
}

impl Standard {
    pub(super) const NONE: Self = Self {
        score: NONE,
        map: NONE,
    };

    /// All members', `[members, 4]`: the score's mean and deviation, the map's.
    pub(super) fn to_tensor(all: &[Self]) -> Result<Tensor> {
        let values = all
            .iter()
            .flat_map(|s| [s.score.mean, s.score.std, s.map.mean, s.map.std]);
        let values: Vec<f32> = values.collect();
        Ok(Tensor::from_vec(values, (all.len(), 4), &Device::Cpu)?)
    }

    /// What [`Self::to_tensor`] made of `members`.
    ///
    /// # Errors
    /// For another shape, and for numbers that nothing can be standardised by.
    pub(super) fn from_tensor(name: &str, tensor: &Tensor, members: usize) -> Result<Vec<Self>> {
        if tensor.dims() != [members, 4] {
            return Err(Error::Shape {
                what: format!("tensor `{name}`"),
                expected: format!("[{members}, 4]"),
                found: format!("{:?}", tensor.dims()),
            });
        }
        let rows = tensor.to_dtype(candle_core::DType::F32)?.to_vec2::<f32>()?;
        let usable =
            |row: &Vec<f32>| row.iter().all(|v| v.is_finite()) && row[1] > 0.0 && row[3] > 0.0;
        if !rows.iter().all(usable) {
            return Err(Error::Invalid(format!(
                "tensor `{name}` holds a number that is not finite, or a deviation of zero"
            )));
        }
        let moments = |mean, std| ScaleStatistics { mean, std };
        let one = |row: &Vec<f32>| Self {
            score: moments(row[0], row[1]),
            map: moments(row[2], row[3]),
        };
        Ok(rows.iter().map(one).collect())
    }
}
