//! The one recipe: what the flags of `train`, the lines of a plan and a library's user say, resolved once into a
//! [`TrainConfig`]. Whatever is left out has its default here and nowhere else.

use serde::{Deserialize, Serialize};

use super::{AdamConfig, Stop, TrainConfig};
use crate::{
    Error, Result,
    backbones::{self, BackboneInfo, Taps},
    datasets::Dataset,
    detector::{AugmentationRecord, DetectorConfig, Schedule},
    estimators::{
        EstimatorConfig, ImageScore, MapKind, Method, Scoring, ScoringChanges,
        cflow::CFlowConfig,
        differnet::DifferNetConfig,
        ensemble::{EnsembleConfig, Member},
        flow::{Coupling, FeatureNorm, FlowChanges, FlowConfig, Kernels, Preset},
        gaussian::PaDiMConfig,
        memory::{Grid, Metric, PatchCoreConfig, Precision, SpadeConfig},
    },
    imaging::{Augmentation, Preprocessing},
    kernels::{Family, FeatureShape},
};

mod methods;
mod resolve;
mod size;
#[cfg(test)]
mod tests;

pub use size::{InputSize, Shape};

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

/// Settings that mean the same to every method: how photos are seen and detectors judged.
const OF_ANY_METHOD: [&str; 6] = [
    "size",
    "aspect",
    "page",
    "final",
    "false_alarm_rate",
    "pixel_size",
];

/// Fits that each leave a part of the photos out, where the threshold comes from all of them.
const FOLDS: usize = 5;
/// So few photos that holding a tenth of them out tells little of a threshold.
const FEW_TO_HOLD_OUT: usize = 100;

/// Settings of a training run; what is left out is the preset's or the method's. The names are `train`'s flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // the flags of `train --help`
pub struct Settings {
    /// None: the default recipe, or FastFlow where only a flow has what is asked for.
    pub method: Option<Method>,
    /// In place of one method: several, averaged.
    pub ensemble: Option<Vec<Method>>,
    /// The default recipe with one input size and a smaller memory: seconds.
    pub fast: bool,
    /// Of FastFlow.
    pub preset: Option<Preset>,
    /// Of the (first and largest) input: both sides, or one number: the side of a square, or of a square of the same
    /// area where [`Self::aspect`] makes it another shape.
    pub size: Option<InputSize>,
    /// Width over height of the input.
    pub aspect: Option<f64>,
    /// Which page of files with several, from 1.
    pub page: Option<usize>,
    pub taps: Option<Taps>,
    // The optimiser, of a method that has one.
    pub epochs: Option<usize>,
    pub batch: Option<usize>,
    pub learning_rate: Option<f64>,
    pub schedule: Option<Schedule>,
    pub weight_decay: Option<f64>,
    pub gradient_clip: Option<f64>,
    #[serde(rename = "final")]
    pub final_fit: bool,
    /// Of methods fitted in closed form: 1 holds photos out for the threshold.
    pub folds: Option<usize>,
    pub stop_on: Option<StopOn>,
    pub patience: usize,
    pub false_alarm_rate: Option<f64>,
    // The flow; of CFLOW-AD the steps alone.
    pub norm: Option<FeatureNorm>,
    pub kernels: Option<Kernels>,
    pub steps: Option<usize>,
    pub hidden: Option<f64>,
    pub clamp: Option<f32>,
    pub coupling: Option<Coupling>,
    // Methods that remember features.
    pub memory: Option<usize>,
    pub neighbourhood: Option<usize>,
    pub neighbours: Option<usize>,
    pub metric: Option<Metric>,
    pub precision: Option<Precision>,
    // Gaussians.
    pub channels: Option<usize>,
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
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum StopOn {
    /// When synthetic defects in held-out photos are found no better.
    Synthetic,
}

impl Default for Settings {
    fn default() -> Self {
        let views = Augmentation::default();
        Self {
            method: None,
            ensemble: None,
            fast: false,
            preset: None,
            size: None,
            aspect: None,
            page: None,
            taps: None,
            epochs: None,
            batch: None,
            learning_rate: None,
            schedule: None,
            weight_decay: None,
            gradient_clip: None,
            final_fit: false,
            folds: None,
            stop_on: None,
            patience: Stop::DEFAULT_PATIENCE,
            false_alarm_rate: None,
            norm: None,
            kernels: None,
            steps: None,
            hidden: None,
            clamp: None,
            coupling: None,
            memory: None,
            neighbourhood: None,
            neighbours: None,
            metric: None,
            precision: None,
            channels: None,
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

/// The optimiser of a preset, or of CFLOW-AD.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // as in Settings
pub struct OptimiserDefaults {
    pub epochs: usize,
    pub batch: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
}

impl OptimiserDefaults {
    /// CFLOW-AD's: a step sees all positions of its photos, where the paper's 2e-4 is for steps of 256 positions, of which
    /// a batch has twenty (docs/accuracy.md).
    pub const CFLOW: Self = Self {
        epochs: 24,
        batch: 4,
        learning_rate: 1e-3,
        schedule: Schedule::WarmCosine,
    };
    /// DifferNet's (Rudolph et al. 2021, section 4.2): Adam at 2e-4; far fewer epochs than its 192.
    pub const DIFFERNET: Self = Self {
        epochs: 48,
        batch: 32,
        learning_rate: 2e-4,
        schedule: Schedule::Constant,
    };

    /// Those of a method; of an ensemble its trained member's.
    pub fn of_method(estimator: &EstimatorConfig, preset: Preset) -> Self {
        match estimator {
            EstimatorConfig::DifferNet(_) => Self::DIFFERNET,
            EstimatorConfig::CFlow(_) => Self::CFLOW,
            EstimatorConfig::Ensemble(ensemble) => {
                let mut members = ensemble.members.iter().map(|member| &member.estimator);
                match members.find(|estimator| estimator.is_trained()) {
                    Some(trained) => Self::of_method(trained, preset),
                    None => Self::of(preset),
                }
            }
            _ => Self::of(preset),
        }
    }

    /// The paper's (section 4.1) with far fewer epochs than its 500, where image AUROC tends to peak; or one that
    /// whitened features bear.
    pub fn of(preset: Preset) -> Self {
        match preset {
            Preset::Paper | Preset::Anomalib => Self {
                epochs: 40,
                batch: 32,
                learning_rate: AdamConfig::default().learning_rate,
                schedule: Schedule::Constant,
            },
            Preset::Whitened => Self {
                epochs: 16,
                batch: 4,
                learning_rate: 4e-3,
                schedule: Schedule::WarmCosine,
            },
        }
    }
}
