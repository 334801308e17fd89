//! What a plan says about training and scoring; the words are `train`'s flags.

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    backbones::Backbone,
    detector::{AugmentationRecord, ImageScore, Schedule, Scoring},
    flow::{Coupling, FeatureNorm, FlowChanges, FlowConfig, Kernels, MapKind, Preset},
    imaging::{Augmentation, Preprocessing},
    training::{Stop, TrainConfig},
};

/// Settings that only change how a detector scores and is measured, not the detector.
const SCORING: [&str; 6] = [
    "map",
    "image_map",
    "pixel_map",
    "top_k",
    "image_weights",
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
    pub epochs: usize,
    pub batch: usize,
    pub learning_rate: Option<f64>,
    pub schedule: Schedule,
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
    // Augmentation; probabilities of the changes.
    pub views: usize,
    pub horizontal_flip: f64,
    pub vertical_flip: f64,
    pub rotation: f64,
    pub degrees: f64,
    pub quarter_turns: bool,
    // Scoring and measuring.
    pub map: Option<MapKind>,
    pub image_map: Option<MapKind>,
    pub pixel_map: Option<MapKind>,
    pub top_k: Option<usize>,
    pub image_weights: Option<Vec<f32>>,
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
            epochs: TrainConfig::DEFAULT_EPOCHS,
            batch: TrainConfig::new(Preset::Paper).batch,
            learning_rate: None,
            schedule: Schedule::default(),
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
            rotation: views.rotation,
            degrees: views.degrees,
            quarter_turns: views.quarter_turns,
            map: None,
            image_map: None,
            pixel_map: None,
            top_k: None,
            image_weights: None,
            standardise_scales: false,
            pixel_size: None,
        }
    }
}

impl Settings {
    /// The training run of these settings with one seed; the flow is the preset's.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn train_config(&self, seed: u64) -> Result<TrainConfig> {
        let defaults = TrainConfig::new(self.preset);
        let config = TrainConfig {
            scoring: self.scoring(&defaults.scoring),
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            schedule: self.schedule,
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
        Ok(config)
    }

    /// Input size and flow, which depend on the backbone, put into `config`.
    ///
    /// # Errors
    /// When they do not fit the backbone.
    pub fn fit_to(&self, backbone: &dyn Backbone, config: &mut TrainConfig) -> Result<()> {
        let default = backbone.info().preprocessing.clone();
        let input = Preprocessing {
            height: self.size.unwrap_or(default.height),
            width: self.size.unwrap_or(default.width),
            ..default
        };
        input.validate(std::path::Path::new("size"))?;
        let shapes = backbone.shapes(input.height, input.width)?;
        let preset = FlowConfig::preset(self.preset, &backbone.info().id, &shapes)?;
        config.flow = Some(self.flow().apply(preset, &shapes)?);
        config.preprocessing = Some(input);
        Ok(())
    }

    /// `scoring` with what these settings say in its place.
    pub fn scoring(&self, scoring: &Scoring) -> Scoring {
        let kind = |own: Option<MapKind>, before| own.or(self.map).unwrap_or(before);
        Scoring {
            image_map: kind(self.image_map, scoring.image_map),
            pixel_map: kind(self.pixel_map, scoring.pixel_map),
            image_score: self.top_k.map_or(scoring.image_score, ImageScore::TopK),
            standardise_scales: self.standardise_scales,
            image_weights: self
                .image_weights
                .clone()
                .or_else(|| scoring.image_weights.clone()),
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
                rotation: self.rotation,
                degrees: self.degrees,
                quarter_turns: self.quarter_turns,
            },
            count: self.views,
        })
    }
}
