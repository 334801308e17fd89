//! What is done about a run that leaves the rails: back to the last sound state, and on with smaller steps.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Nats a feature value by which held-out images may become less likely within an epoch. Runs that overfit lose some
/// hundredths; those that diverged on real sets lost hundreds.
const JUMP: f64 = 0.5;
/// After so many returns the run ends with the last sound state.
const MOST_SETBACKS: u32 = 5;
/// What the step size is multiplied by at each return.
const SLOWER: f64 = 0.25;

/// How often a run went back, and what its last sound state was worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Guard {
    /// Returns so far.
    pub(super) setbacks: u32,
    /// Held-out negative log-likelihood a value of the last sound state; none before the first epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) held_out_nll: Option<f64>,
}

impl Guard {
    pub(super) fn is_new(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an epoch that left held-out images this likely is one to go on from.
    pub(super) fn accepts(&self, held_out_nll: f64) -> bool {
        match self.held_out_nll {
            Some(last) => held_out_nll <= last + JUMP,
            None => held_out_nll.is_finite(),
        }
    }

    /// Whether there may be one more attempt.
    pub(super) fn may_retry(&self) -> bool {
        self.setbacks < MOST_SETBACKS
    }

    /// What the step size is multiplied by.
    pub(super) fn factor(&self) -> f64 {
        SLOWER.powi(self.setbacks as i32)
    }
}

/// Copies: the optimizer goes on in the model's own memory.
pub(super) fn copied(tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let tensors = tensors.into_iter();
    tensors
        .map(|(name, tensor)| Ok((name, tensor.copy()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_not_accepted_and_steps_get_smaller() {
        let mut guard = Guard::default();
        assert!(guard.accepts(3.0) && !guard.accepts(f64::NAN));
        assert_eq!(guard.factor(), 1.0);
        guard.held_out_nll = Some(0.94);
        assert!(guard.accepts(1.2) && !guard.accepts(592.0) && !guard.accepts(f64::NAN));
        guard.setbacks = 2;
        assert_eq!(guard.factor(), 0.0625);
        assert!(guard.may_retry());
        guard.setbacks = 5;
        assert!(!guard.may_retry());
    }
}
