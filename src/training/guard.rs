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
    /// That of the training images in the last sound epoch; none before the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) nll: Option<f64>,
}

/// What gradients are limited to after epochs with these mean norms: a few times the smallest. Nothing in the first
/// epoch, whose norms fall by orders of magnitude. Adam divides by the gradients' own size, so that a limit that is often
/// reached does little harm, while one image that explodes no longer decides about all weights.
pub(super) fn adaptive_limit(norms: impl Iterator<Item = f64>) -> Option<f64> {
    const TIMES: f64 = 2.0;
    norms.reduce(f64::min).map(|least| TIMES * least)
}

impl Guard {
    pub(super) fn is_new(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an epoch that left held-out images this likely, and saw training images so likely, is one to go on from.
    pub(super) fn accepts(&self, held_out_nll: f64, nll: f64) -> bool {
        let no_jump = |last: Option<f64>, now: f64| match last {
            Some(last) => now <= last + JUMP,
            None => now.is_finite(),
        };
        no_jump(self.held_out_nll, held_out_nll) && no_jump(self.nll, nll)
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
    fn gradients_are_limited_by_the_calmest_epoch() {
        assert_eq!(adaptive_limit([].into_iter()), None);
        assert_eq!(adaptive_limit([9.0, 2.5, 4.0].into_iter()), Some(5.0));
    }

    #[test]
    fn a_jump_is_not_accepted_and_steps_get_smaller() {
        let mut guard = Guard::default();
        assert!(guard.accepts(3.0, 4.0) && !guard.accepts(f64::NAN, 1.0));
        assert_eq!(guard.factor(), 1.0);
        guard.held_out_nll = Some(0.94);
        assert!(guard.accepts(1.2, 80.0) && !guard.accepts(592.0, 1.0));
        assert!(!guard.accepts(f64::NAN, 1.0));
        // Single training images that explode, while held-out ones are as likely as before.
        guard.nll = Some(0.9);
        assert!(guard.accepts(1.0, 1.1) && !guard.accepts(1.0, 17.4));
        guard.setbacks = 2;
        assert_eq!(guard.factor(), 0.0625);
        assert!(guard.may_retry());
        guard.setbacks = 5;
        assert!(!guard.may_retry());
    }
}
