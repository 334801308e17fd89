//! Everything a training run depends on, apart from the images.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    detector::{AugmentationRecord, DatasetRecord, Schedule},
    estimators::{
        EstimatorConfig, Scoring,
        flow::{Activations, Preset},
    },
    imaging::Preprocessing,
};

/// Settings of a run, as [`super::Settings`] resolves them. Those that change the result make up its fingerprint: a checkpoint of other
/// settings is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Where the defaults came from.
    pub preset: Preset,
    /// The method and its settings.
    pub estimator: EstimatorConfig,
    /// The network's input.
    pub preprocessing: Preprocessing,
    /// From the estimator's maps to scores.
    pub scoring: Scoring,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step; shrinks to the number of images.
    pub batch: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// How it changes over the run.
    pub schedule: Schedule,
    /// L2 term.
    pub weight_decay: f64,
    /// Largest gradient norm of a step; none for no limit.
    pub gradient_clip: Option<f64>,
    /// Whether, without a limit of its own, a step's gradient is limited by what was usual in earlier epochs.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub adaptive_clip: bool,
    /// Augmented views of every image, cached like the image itself; none without.
    pub augmentation: Option<AugmentationRecord>,
    /// The one seed.
    pub seed: u64,
    /// What the data set is called, for the record.
    #[serde(skip)]
    pub dataset: Option<DatasetRecord>,
    /// Share of normal images that may be called defective.
    pub false_alarm_rate: f64,
    /// Fits that each leave a part of the images out, so that all of them tell the threshold; 1 to hold some out instead.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub folds: usize,
    /// Train once more on all normal images after the threshold is found.
    pub final_fit: bool,
    /// Keep the epoch that finds synthetic defects best; the last one where none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop: Option<Stop>,
    /// Whether the reverse pass rebuilds activations instead of keeping them.
    #[serde(skip)]
    pub activations: Activations,
    /// Feature maps up to this many bytes stay in memory.
    #[serde(skip)]
    pub memory_limit: u64,
    /// Time between checkpoints.
    #[serde(skip)]
    pub checkpoint_every: Duration,
}

/// The stopping rule (early stopping): after every epoch held-out photos are scored with and without synthetic defects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Epochs without a better one after which training ends.
    pub patience: usize,
}

impl Stop {
    /// Epochs to wait unless said otherwise.
    pub const DEFAULT_PATIENCE: usize = 20;
}

fn one() -> usize {
    1
}

fn is_one(folds: &usize) -> bool {
    *folds == 1
}

impl TrainConfig {
    /// Most [`Self::folds`].
    pub const MAX_FOLDS: usize = 20;
    /// Bytes of features kept in memory unless said otherwise.
    pub const DEFAULT_MEMORY_LIMIT: u64 = 4 << 30;
    /// Time between checkpoints unless said otherwise.
    pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(120);

    /// Checks ranges.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, what: &str| {
            if ok {
                Ok(())
            } else {
                Err(Error::Invalid(what.to_string()))
            }
        };
        check(
            (1..=100_000).contains(&self.epochs),
            "epochs must be 1 to 100000",
        )?;
        check((1..=4096).contains(&self.batch), "batch must be 1 to 4096")?;
        let positive = |v: f64| v.is_finite() && v > 0.0;
        check(
            positive(self.learning_rate),
            "the learning rate must be a positive number",
        )?;
        check(
            self.weight_decay.is_finite() && self.weight_decay >= 0.0,
            "the weight decay must be zero or a positive number",
        )?;
        check(
            self.gradient_clip.is_none_or(positive),
            "the gradient's largest norm must be a positive number",
        )?;
        check(
            self.false_alarm_rate > 0.0 && self.false_alarm_rate < 1.0,
            "the false-alarm rate must lie between 0 and 1",
        )?;
        check(
            (1..=Self::MAX_FOLDS).contains(&self.folds),
            "folds must be 1 to 20",
        )?;
        if self.folds > 1 && !self.estimator.method().is_closed() {
            return Err(self
                .estimator
                .lacks("folds: it is fitted once, and some images are held out"));
        }
        check(
            self.stop.is_none_or(|stop| stop.patience > 0),
            "the patience must be at least 1 epoch",
        )?;
        check(
            self.stop.is_none() || !self.final_fit,
            "a stopping rule judges by the held-out photos, on which a final fit trains; leave out one of the two",
        )?;
        if let Some(augmentation) = &self.augmentation {
            check(
                (1..=64).contains(&augmentation.count),
                "cached views must be 1 to 64 an image",
            )?;
            augmentation.views.validate(Path::new("augmentation"))?;
        }
        self.scoring.validate()
    }
}
