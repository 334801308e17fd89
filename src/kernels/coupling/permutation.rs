//! A channel permutation, valid by construction.

use std::sync::Arc;

use crate::{Error, Result};

/// Output channel `j` is input channel `indices()[j]`; each index occurs exactly once.
#[derive(Debug, Clone)]
pub struct Permutation {
    indices: Arc<[u32]>,
    /// Its copy on a GPU, made when first needed.
    #[cfg(feature = "cuda")]
    uploaded: Arc<std::sync::Mutex<Option<Uploaded>>>,
}

#[cfg(feature = "cuda")]
#[derive(Debug)]
struct Uploaded {
    device: candle_core::cuda_backend::DeviceId,
    indices: Arc<candle_core::cuda_backend::cudarc::driver::CudaSlice<u32>>,
}

impl PartialEq for Permutation {
    fn eq(&self, other: &Self) -> bool {
        self.indices == other.indices
    }
}

impl Eq for Permutation {}

impl Permutation {
    /// # Errors
    /// When some index is missing or occurs twice.
    pub fn new(indices: Vec<u32>) -> Result<Self> {
        let mut seen = vec![false; indices.len()];
        for &index in &indices {
            match seen.get_mut(index as usize) {
                Some(slot) if !*slot => *slot = true,
                _ => {
                    return Err(Error::Invalid(format!(
                        "not a permutation of {} channels: index {index} is out of range or repeated",
                        indices.len()
                    )));
                }
            }
        }
        Ok(Self {
            indices: indices.into(),
            #[cfg(feature = "cuda")]
            uploaded: Arc::default(),
        })
    }

    /// The input channel of every output channel.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// How many channels it permutes.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether it permutes nothing at all.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The indices in the device's memory.
    #[cfg(feature = "cuda")]
    pub(super) fn on_device(
        &self,
        device: &candle_core::CudaDevice,
    ) -> candle_core::Result<Arc<candle_core::cuda_backend::cudarc::driver::CudaSlice<u32>>> {
        let uploaded = self.uploaded.lock();
        let mut uploaded = uploaded.unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*uploaded {
            Some(copy) if copy.device == device.id() => Ok(copy.indices.clone()),
            _ => {
                let indices = Arc::new(device.clone_htod(&self.indices[..])?);
                *uploaded = Some(Uploaded {
                    device: device.id(),
                    indices: indices.clone(),
                });
                Ok(indices)
            }
        }
    }

    /// Pairs of (output channel, input channel).
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        self.indices
            .iter()
            .enumerate()
            .map(|(output, &input)| (output, input as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::Permutation;

    #[test]
    fn accepts_permutations_only() {
        assert!(Permutation::new(vec![2, 0, 1]).is_ok());
        assert!(Permutation::new(vec![2, 0, 2]).is_err());
        assert!(Permutation::new(vec![1, 2, 3]).is_err());
    }
}
