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
