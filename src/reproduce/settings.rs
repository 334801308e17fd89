//! What a plan says about training and scoring; the words are `train`'s flags.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, backbones,
    detector::{AugmentationRecord, Schedule},
    estimators::{
        EstimatorConfig, MapKind, Scoring, ScoringChanges,
        flow::{Coupling, FeatureNorm, FlowChanges, FlowConfig, Kernels, Preset},
    },
    imaging::{Augmentation, Preprocessing},
    training::{Stop, TrainConfig},
};

/// Settings that only change how a detector scores and is measured, not the detector.
const SCORING: [&str; 7] = [
    "map",
    "image_map",
    "pixel_map",
    "top_k",
    "image_weights",
    "smoothing",
    "pixel_size",
];

/// Whether a change of these settings needs no training.
pub(super) fn only_scoring<'a>(mut keys: impl Iterator<Item = &'a str>) -> bool {
    keys.all(|key| SCORING.contains(&key))
}

/// The settings of one cell; what is left out is as in `fastflow train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // the flags of `train --help`
pub struct Settings {
    pub preset: Preset,
    pub size: Option<usize>,
    pub epochs: Option<usize>,
    pub batch: Option<usize>,
    pub learning_rate: Option<f64>,
    pub schedule: Option<Schedule>,
    pub weight_decay: Option<f64>,
    pub gradient_clip: Option<f64>,
    #[serde(rename = "final")]
    pub final_fit: bool,
    pub stop_on: Option<StopOn>,
    pub patience: usize,
    pub false_alarm_rate: Option<f64>,
    // The flow.
    pub norm: Option<FeatureNorm>,
    pub kernels: Option<Kernels>,
    pub steps: Option<usize>,
    pub hidden: Option<f64>,
    pub clamp: Option<f32>,
    pub coupling: Option<Coupling>,
    // Augmentation; the flips are probabilities (`train` knows them and off), the rotation is in degrees.
    pub views: usize,
    pub horizontal_flip: f64,
    pub vertical_flip: f64,
    pub rotation: f64,
    pub rotation_probability: f64,
    pub quarter_turns: bool,
    // Scoring and measuring.
    pub map: Option<MapKind>,
    pub image_map: Option<MapKind>,
    pub pixel_map: Option<MapKind>,
    pub top_k: Option<usize>,
    pub image_weights: Option<Vec<f32>>,
    pub smoothing: Option<f32>,
    pub standardise_scales: bool,
    pub pixel_size: Option<usize>,
}

/// Rules of when to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopOn {
    /// When synthetic defects in held-out photos are found no better.
    Synthetic,
}

impl Default for Settings {
    fn default() -> Self {
        let views = Augmentation::default();
        Self {
            preset: Preset::Paper,
            size: None,
            epochs: None,
            batch: None,
            learning_rate: None,
            schedule: None,
            weight_decay: None,
            gradient_clip: None,
            final_fit: false,
            stop_on: None,
            patience: Stop::DEFAULT_PATIENCE,
            false_alarm_rate: None,
            norm: None,
            kernels: None,
            steps: None,
            hidden: None,
            clamp: None,
            coupling: None,
            views: 1,
            horizontal_flip: views.horizontal_flip,
            vertical_flip: views.vertical_flip,
            rotation: views.degrees,
            rotation_probability: views.rotation,
            quarter_turns: views.quarter_turns,
            map: None,
            image_map: None,
            pixel_map: None,
            top_k: None,
            image_weights: None,
            smoothing: None,
            standardise_scales: false,
            pixel_size: None,
        }
    }
}

impl Settings {
    /// The training run of these settings on a backbone (its full id), with one seed. No weights are needed, so
    /// that a plan can be checked whole.
    ///
    /// # Errors
    /// The first setting that is out of range, or does not fit the backbone.
    pub fn train_config(&self, backbone: &str, seed: u64) -> Result<TrainConfig> {
        self.check_ranges()?;
        let (input, flow, scales) = self.network(backbone)?;
        let defaults = TrainConfig::new(self.preset);
        let scoring = TrainConfig::preset_scoring(self.preset, &input, scales);
        let config = TrainConfig {
            estimator: Some(EstimatorConfig::FastFlow(flow)),
            preprocessing: Some(input),
            scoring: self.scoring(&scoring),
            epochs: self.epochs.unwrap_or(defaults.epochs),
            batch: self.batch.unwrap_or(defaults.batch),
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            schedule: self.schedule.unwrap_or(defaults.schedule),
            weight_decay: self.weight_decay.unwrap_or(defaults.weight_decay),
            gradient_clip: self.gradient_clip,
            augmentation: self.augmentation(),
            seed,
            false_alarm_rate: self.false_alarm_rate.unwrap_or(defaults.false_alarm_rate),
            final_fit: self.final_fit,
            stop: self.stop_on.map(|StopOn::Synthetic| Stop {
                patience: self.patience,
            }),
            ..defaults
        };
        config.validate()?;
        config.scoring.check_scales(scales)?;
        Ok(config)
    }

    /// What no later check would call by its name in the plan.
    fn check_ranges(&self) -> Result<()> {
        for (name, value, largest) in [
            ("horizontal_flip", self.horizontal_flip, 1.0),
            ("vertical_flip", self.vertical_flip, 1.0),
            ("rotation_probability", self.rotation_probability, 1.0),
            ("rotation (degrees)", self.rotation, 180.0),
        ] {
            if !(0.0..=largest).contains(&value) {
                return Err(Error::Invalid(format!(
                    "{name} must be 0 to {largest}, not {value}"
                )));
            }
        }
        match self.pixel_size {
            Some(0) => Err(Error::Invalid("pixel_size must be at least 1".into())),
            _ => Ok(()),
        }
    }

    /// Input and flow on a backbone, and the number of its scales.
    fn network(&self, backbone: &str) -> Result<(Preprocessing, FlowConfig, usize)> {
        let info = backbones::info(backbone)?;
        let default = info.preprocessing;
        let input = Preprocessing {
            height: self.size.unwrap_or(default.height),
            width: self.size.unwrap_or(default.width),
            ..default
        };
        input.validate(std::path::Path::new("size"))?;
        let shapes = backbones::shapes(backbone, input.height, input.width)?;
        let preset = FlowConfig::preset(self.preset, info.family, &shapes)?;
        Ok((input, self.flow().apply(preset, &shapes)?, shapes.len()))
    }

    fn scoring(&self, preset: &Scoring) -> Scoring {
        let changes = ScoringChanges {
            map: self.map,
            image_map: self.image_map,
            pixel_map: self.pixel_map,
            top_k: self.top_k,
            image_weights: self.image_weights.clone(),
            smoothing: self.smoothing,
        };
        Scoring {
            standardise_scales: self.standardise_scales,
            ..changes.apply(preset)
        }
    }

    fn flow(&self) -> FlowChanges {
        FlowChanges {
            norm: self.norm,
            kernels: self.kernels,
            steps: self.steps,
            hidden: self.hidden,
            clamp: self.clamp,
            coupling: self.coupling,
        }
    }

    fn augmentation(&self) -> Option<AugmentationRecord> {
        (self.views != 1).then_some(AugmentationRecord {
            views: Augmentation {
                horizontal_flip: self.horizontal_flip,
                vertical_flip: self.vertical_flip,
                rotation: self.rotation_probability,
                degrees: self.rotation,
                quarter_turns: self.quarter_turns,
            },
            count: self.views,
        })
    }
}
