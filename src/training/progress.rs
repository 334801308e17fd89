//! What a run tells while it works.

use serde::{Deserialize, Serialize};

/// One epoch, as it stands in the events file and on the training curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Mean over the images of the loss: `0.5 * sum z^2 - log|det J|`, summed over scales.
    pub loss: f64,
    /// The same as nats a feature value, with the constant.
    pub nll: f64,
    /// That of the held-out normal images.
    pub held_out_nll: f64,
    /// Image AUROC of held-out photos with synthetic defects against those without, where the stopping
    /// rule asks for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub synthetic_auroc: Option<f64>,
    /// Mean over the steps of the gradient's norm.
    pub gradient_norm: f64,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Hears how a run goes on. Every method has an empty default.
pub trait Progress {
    /// Features of `done` of `total` images are extracted.
    fn features(&mut self, _done: usize, _total: usize) {}
    /// A fit in closed form is at `done` of `total`.
    fn fitting(&mut self, _done: usize, _total: usize) {}
    /// Step `step` of `steps` in epoch `epoch` of `epochs` (both from 1) had this loss an image.
    fn step(&mut self, _epoch: usize, _epochs: usize, _step: usize, _steps: usize, _loss: f64) {}
    /// An epoch ended.
    fn epoch(&mut self, _record: &EpochRecord, _epochs: usize) {}
    /// A remark worth a line.
    fn note(&mut self, _text: &str) {}
    /// Asked after every step: true ends the run with a checkpoint.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Hears nothing.
pub struct Silent;

impl Progress for Silent {}

/// What to say of a run after which held-out images are less likely than after its first epoch.
pub(super) fn diverged(history: &[EpochRecord]) -> Option<String> {
    let (first, last) = (history.first()?.held_out_nll, history.last()?.held_out_nll);
    (last > first).then(|| {
        format!(
            "warning: held-out photos became less likely in training ({first:.3} nats a value after the first epoch, \
             {last:.3} after the last), so this detector is worth little: lower the learning rate, let it rise and \
             fall (schedule warm-cosine), limit the gradient, or train for fewer epochs"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{EpochRecord, diverged};

    #[test]
    fn a_run_that_ends_worse_than_its_first_epoch_is_told_of() {
        let history = |held_out: &[f64]| -> Vec<EpochRecord> {
            let record = |(index, &held_out_nll)| EpochRecord {
                epoch: index + 1,
                loss: 1.0,
                nll: 1.0,
                held_out_nll,
                synthetic_auroc: None,
                gradient_norm: 1.0,
                seconds: 1.0,
            };
            held_out.iter().enumerate().map(record).collect()
        };
        assert!(diverged(&history(&[0.9, 2.0, 0.3])).is_none());
        assert!(diverged(&history(&[0.9])).is_none() && diverged(&[]).is_none());
        let message = diverged(&history(&[40.0, 7436.0, 737.0]));
        assert!(
            message
                .is_some_and(|message| message.contains("40.000") && message.contains("737.000"))
        );
    }
}
