//! Everything a training run depends on, apart from the images.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::AdamConfig;
use crate::{
    Error, Result,
    detector::{AugmentationRecord, DatasetRecord, Schedule},
    estimators::{
        EstimatorConfig, ImageScore, MapKind, Scoring,
        flow::{Activations, Preset},
    },
    imaging::Preprocessing,
};

/// Settings of a run. Those that change the result make up its fingerprint: a checkpoint of other
/// settings is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Where the defaults came from.
    pub preset: Preset,
    /// The method and its settings; the preset's flow for the backbone where none.
    pub estimator: Option<EstimatorConfig>,
    /// The network's input; the backbone's default where none.
    pub preprocessing: Option<Preprocessing>,
    /// From latents to scores.
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
    /// Augmented views of every image, cached like the image itself; none without.
    pub augmentation: Option<AugmentationRecord>,
    /// The one seed.
    pub seed: u64,
    /// What the data set is called, for the record.
    #[serde(skip)]
    pub dataset: Option<DatasetRecord>,
    /// Share of normal images that may be called defective.
    pub false_alarm_rate: f64,
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

impl TrainConfig {
    /// Epochs unless said otherwise: far fewer than the paper's 500, where image AUROC tends to peak.
    pub const DEFAULT_EPOCHS: usize = 40;
    /// Step size for adapting a trained flow: a fresh Adam's first steps are of full size whatever the
    /// gradient is, and at the paper's 1e-3 they undo what the parent had learnt (docs/accuracy.md).
    pub const FINE_TUNING_RATE: f64 = 1e-4;
    /// Bytes of features kept in memory unless said otherwise.
    pub const DEFAULT_MEMORY_LIMIT: u64 = 4 << 30;

    /// The preset's settings: the paper's optimiser (section 4.1) or one that whitened features bear, and the
    /// preset's maps. What else scores depend on is known with the input ([`TrainConfig::preset_scoring`]).
    pub fn new(preset: Preset) -> Self {
        let map = match preset {
            Preset::Paper => MapKind::Prob,
            Preset::Anomalib | Preset::Whitened => MapKind::Exp,
        };
        let adam = AdamConfig::default();
        let (epochs, batch, learning_rate, schedule) = match preset {
            Preset::Paper | Preset::Anomalib => {
                let epochs = Self::DEFAULT_EPOCHS;
                (epochs, 32, adam.learning_rate, Schedule::Constant)
            }
            Preset::Whitened => (16, 4, 4e-3, Schedule::WarmCosine),
        };
        Self {
            preset,
            estimator: None,
            preprocessing: None,
            scoring: Scoring {
                image_map: map,
                pixel_map: map,
                image_score: ImageScore::Max,
                standardise_scales: false,
                image_weights: None,
                smoothing: None,
            },
            epochs,
            batch,
            learning_rate,
            schedule,
            weight_decay: adam.weight_decay,
            gradient_clip: None,
            augmentation: None,
            seed: 0,
            dataset: None,
            false_alarm_rate: 0.01,
            final_fit: false,
            stop: None,
            activations: Activations::Keep,
            memory_limit: Self::DEFAULT_MEMORY_LIMIT,
            checkpoint_every: Duration::from_secs(120),
        }
    }

    /// The preset's scores of photos that a network sees as `input` and makes `scales` feature maps of.
    ///
    /// Of [`Preset::Whitened`]: the mean of the highest 0.15 % of the pixels, where of three scales the finest,
    /// too noisy to say anything about a whole photo, does not count.
    pub fn preset_scoring(preset: Preset, input: &Preprocessing, scales: usize) -> Scoring {
        let plain = Self::new(preset).scoring;
        match preset {
            Preset::Paper | Preset::Anomalib => plain,
            Preset::Whitened => {
                let pixels = (input.height * input.width) as f64;
                let top = (pixels * 100.0 / f64::from(256 * 256)).round().max(1.0);
                Scoring {
                    image_score: ImageScore::TopK(top as usize),
                    image_weights: (scales == 3).then(|| vec![0.0, 1.0, 1.0]),
                    ..plain
                }
            }
        }
    }

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

#[cfg(test)]
mod tests {
    use super::{Preset, TrainConfig};
    use crate::{
        estimators::ImageScore,
        imaging::{Interpolation, Preprocessing},
    };

    #[test]
    fn the_whitened_preset_scores_by_the_size_of_the_input() {
        let scoring = |side, scales| {
            let input = Preprocessing {
                height: side,
                width: side,
                interpolation: Interpolation::Bilinear,
                crop: 1.0,
                mean: [0.5; 3],
                std: [0.5; 3],
            };
            TrainConfig::preset_scoring(Preset::Whitened, &input, scales)
        };
        assert_eq!(scoring(256, 3).image_score, ImageScore::TopK(100));
        assert_eq!(scoring(384, 3).image_score, ImageScore::TopK(225));
        assert_eq!(scoring(8, 3).image_score, ImageScore::TopK(1));
        assert_eq!(scoring(384, 3).image_weights, Some(vec![0.0, 1.0, 1.0]));
        assert_eq!(scoring(384, 1).image_weights, None);
    }
}
