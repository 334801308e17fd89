//! How a detector was made: the training record of `config.json`.

use serde::{Deserialize, Serialize};

use crate::{estimators::flow::Preset, imaging::Augmentation};

/// How a detector was made: enough to do it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// The data set, as whoever trained on it named it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dataset: Option<DatasetRecord>,
    /// SHA-256 over names and contents of the training images.
    pub data_hash: String,
    /// Images it was fitted to.
    pub images: usize,
    /// Normal images kept out of it, relative to the data set's folder.
    pub held_out: Vec<String>,
    /// Fits of which each left a part of the images out, for the threshold; none where images were held out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub folds: Option<usize>,
    /// Whether a last run added the held-out images (threshold kept).
    pub final_fit: bool,
    /// The one seed.
    pub seed: u64,
    /// Augmentation, and how many views of an image were cached; none without.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub augmentation: Option<AugmentationRecord>,
    /// The optimiser's run, of a method that has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub optimisation: Option<OptimisationRecord>,
    /// The detector that training started from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<String>,
    /// Version of the program.
    pub program: String,
}

/// How a method that learns by gradient steps did it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimisationRecord {
    /// The preset the settings started from.
    pub preset: Preset,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// How the step size changed over the run.
    #[serde(skip_serializing_if = "Schedule::is_constant", default)]
    pub schedule: Schedule,
    /// L2 term added to the gradient.
    pub weight_decay: f64,
    /// Largest norm of a step's gradient; none where it is not limited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gradient_clip: Option<f64>,
    /// Mean negative log-likelihood a feature value of the held-out images, in nats.
    pub held_out_nll: f64,
    /// The epoch whose weights these are, where not the last one's; the threshold then comes from photos
    /// that also chose the epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stopping: Option<StoppingRecord>,
}

/// The epoch that found synthetic defects in held-out photos best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoppingRecord {
    /// From 1.
    pub epoch: usize,
    /// Image AUROC of the held-out photos with synthetic defects against those without.
    pub synthetic_auroc: f64,
}

/// A data set by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetRecord {
    /// Its proper name, for example `MVTec AD`.
    pub name: String,
    /// SPDX id of its licence, if it states one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub licence: Option<String>,
}

/// How the optimizer's step size changes over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It does not (the paper).
    #[default]
    Constant,
    /// Half a cosine from the full step size to nothing at the run's end (Loshchilov and Hutter 2017, no restarts).
    Cosine,
    /// The same after a straight rise over the run's first twentieth: a large step size does no harm while Adam's
    /// averages are still those of a few steps.
    #[serde(rename = "warm-cosine")]
    WarmCosine,
}

impl Schedule {
    /// The factor on the step size of step `step` (from 0) of `steps`.
    pub fn factor(self, step: u64, steps: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine => half_cosine(step, steps),
            Self::WarmCosine => {
                let rise = steps / 20;
                match step.checked_sub(rise) {
                    None => (step + 1) as f64 / (rise + 1) as f64,
                    Some(after) => half_cosine(after, steps - rise),
                }
            }
        }
    }

    /// Whether a step's factor depends on how many steps there will be.
    pub fn follows_length(self) -> bool {
        !self.is_constant()
    }

    fn is_constant(&self) -> bool {
        *self == Self::Constant
    }
}

fn half_cosine(step: u64, steps: u64) -> f64 {
    let passed = step as f64 / steps.max(1) as f64;
    0.5 * (1.0 + (std::f64::consts::PI * passed.min(1.0)).cos())
}

/// Augmentation as it was used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentationRecord {
    /// The distribution of views.
    pub views: Augmentation,
    /// Views of each image, the first being the image as it is.
    pub count: usize,
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn the_step_size_falls_along_half_a_cosine_or_stays() {
        let cosine = |step| Schedule::Cosine.factor(step, 8);
        assert_eq!(cosine(0), 1.0);
        assert!((cosine(2) - 0.853_553_39).abs() < 1e-8);
        assert!((cosine(4) - 0.5).abs() < 1e-12);
        assert!(cosine(7) > 0.0 && cosine(8).abs() < 1e-12 && cosine(9).abs() < 1e-12);
        assert_eq!(Schedule::Constant.factor(5, 8), 1.0);
    }

    #[test]
    fn the_warm_cosine_rises_first() {
        let warm = |step| Schedule::WarmCosine.factor(step, 60);
        let rise = [0.25, 0.5, 0.75, 1.0];
        assert_eq!([0, 1, 2, 3].map(warm), rise);
        let falls = (3..60).all(|step| warm(step) > warm(step + 1));
        assert!(falls && warm(60).abs() < 1e-12);
        // A run of a few steps has no time to rise.
        assert_eq!(Schedule::WarmCosine.factor(0, 8), 1.0);
    }
}
