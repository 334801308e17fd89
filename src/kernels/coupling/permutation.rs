//! A channel permutation, valid by construction.

use std::sync::Arc;

use crate::{Error, Result};

/// Output channel `j` is input channel `indices()[j]`; each index occurs exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation(Arc<[u32]>);

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
        Ok(Self(indices.into()))
    }

    /// The input channel of every output channel.
    pub fn indices(&self) -> &[u32] {
        &self.0
    }

    /// How many channels it permutes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it permutes nothing at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Pairs of (output channel, input channel).
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0
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
