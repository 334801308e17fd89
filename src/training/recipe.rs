//! The one recipe: what the flags of `train`, the lines of a plan and a library's user say, resolved once into a
//! [`TrainConfig`]. Whatever is left out has its default here and nowhere else.

use serde::{Deserialize, Serialize};

use super::{AdamConfig, Stop, TrainConfig};
use crate::{
    Error, Result,
    backbones::{self, BackboneInfo, Taps},
    detector::{AugmentationRecord, DetectorConfig, Schedule},
    estimators::{
        EstimatorConfig, ImageScore, MapKind, Method, Scoring, ScoringChanges,
        flow::{Coupling, FeatureNorm, FlowChanges, FlowConfig, Kernels, Preset},
        memory::{Metric, PatchCoreConfig, Precision},
    },
    imaging::{Augmentation, Preprocessing},
    kernels::{Family, FeatureShape},
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

/// Settings of a training run; what is left out is the preset's or the method's. The names are `train`'s flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // the flags of `train --help`
pub struct Settings {
    pub method: Method,
    pub preset: Preset,
    pub size: Option<usize>,
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
    // Methods that remember features.
    pub memory: Option<usize>,
    pub neighbourhood: Option<usize>,
    pub neighbours: Option<usize>,
    pub metric: Option<Metric>,
    pub precision: Option<Precision>,
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
            method: Method::default(),
            preset: Preset::Paper,
            size: None,
            taps: None,
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
            memory: None,
            neighbourhood: None,
            neighbours: None,
            metric: None,
            precision: None,
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

/// A preset's optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // as in Settings
pub struct OptimiserDefaults {
    pub epochs: usize,
    pub batch: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
}

impl OptimiserDefaults {
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

impl Settings {
    /// Step size for adapting a trained flow: a fresh Adam's first steps are of full size whatever the
    /// gradient is, and at the paper's 1e-3 they undo what the parent had learnt (docs/accuracy.md).
    pub const FINE_TUNING_RATE: f64 = 1e-4;
    /// Share of normal images that may be called defective.
    pub const FALSE_ALARM_RATE: f64 = 0.01;

    /// Whether a change of these settings needs no training.
    pub fn only_scoring<'a>(mut keys: impl Iterator<Item = &'a str>) -> bool {
        keys.all(|key| SCORING.contains(&key))
    }

    /// Where features are to leave `backbone`: as asked for, or where the method wants them; none for the
    /// backbone's own taps.
    ///
    /// # Errors
    /// For an unknown id, and for taps that the backbone has not.
    pub fn backbone_taps(&self, backbone: &str) -> Result<Option<Taps>> {
        let info = backbones::info_with(backbone, self.taps.as_ref())?;
        if self.taps.is_some() {
            return Ok(info.chosen_taps());
        }
        match (self.method, info.family) {
            // Section 3.1: neither the finest stage, too generic, nor the last, biased to ImageNet's classes.
            (Method::PatchCore, Family::BasicResNet | Family::BottleneckResNet) => {
                Ok(Some(Taps::new(vec![2, 3])?))
            }
            _ => Ok(None),
        }
    }

    /// The training run of these settings on a backbone (its full id), with one seed. No weights are needed, so
    /// that a plan can be checked whole.
    ///
    /// # Errors
    /// The first setting that is out of range, or does not fit the backbone or the method.
    pub fn resolve(&self, backbone: &str, seed: u64) -> Result<TrainConfig> {
        self.check_ranges()?;
        let taps = self.backbone_taps(backbone)?;
        let info = backbones::info_with(backbone, taps.as_ref())?;
        let input = self.input(&info);
        input.validate(std::path::Path::new("size"))?;
        let shapes = backbones::shapes_with(backbone, taps.as_ref(), input.height, input.width)?;
        let estimator = self.estimator(info.family, &shapes)?;
        let scoring = self.scoring(&self.default_scoring(&estimator, &input, shapes.len()));
        let config = self.run(estimator, input, scoring, seed)?;
        config.scoring.check(&config.estimator, &shapes)?;
        Ok(config)
    }

    /// The run that adapts a detector: its input, method and scoring stay.
    ///
    /// # Errors
    /// The first setting that is out of range, or one that would change what is adapted.
    pub fn adapt(&self, parent: &DetectorConfig, seed: u64) -> Result<TrainConfig> {
        self.check_ranges()?;
        let record = parent.training.as_ref();
        let record = record.and_then(|record| record.optimisation.as_ref());
        let preset = record.map_or(self.preset, |record| record.preset);
        let settings = Self {
            learning_rate: self.learning_rate.or(Some(Self::FINE_TUNING_RATE)),
            ..self.clone()
        };
        let estimator = parent.estimator.clone();
        let (input, scoring) = (parent.preprocessing.clone(), parent.scoring.clone());
        let config = settings.run(estimator, input, scoring, seed)?;
        Ok(TrainConfig { preset, ..config })
    }

    fn run(
        &self,
        estimator: EstimatorConfig,
        preprocessing: Preprocessing,
        scoring: Scoring,
        seed: u64,
    ) -> Result<TrainConfig> {
        let defaults = OptimiserDefaults::of(self.preset);
        let config = TrainConfig {
            preset: self.preset,
            estimator,
            preprocessing,
            scoring,
            epochs: self.epochs.unwrap_or(defaults.epochs),
            batch: self.batch.unwrap_or(defaults.batch),
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            schedule: self.schedule.unwrap_or(defaults.schedule),
            weight_decay: self
                .weight_decay
                .unwrap_or(AdamConfig::default().weight_decay),
            gradient_clip: self.gradient_clip,
            augmentation: self.augmentation(),
            seed,
            dataset: None,
            false_alarm_rate: self.false_alarm_rate.unwrap_or(Self::FALSE_ALARM_RATE),
            final_fit: self.final_fit,
            stop: self.stop_on.map(|StopOn::Synthetic| Stop {
                patience: self.patience,
            }),
            activations: Default::default(),
            memory_limit: TrainConfig::DEFAULT_MEMORY_LIMIT,
            checkpoint_every: TrainConfig::CHECKPOINT_EVERY,
        };
        config.validate()?;
        Ok(config)
    }

    /// What no later check would call by its name.
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

    fn input(&self, backbone: &BackboneInfo) -> Preprocessing {
        let default = backbone.preprocessing.clone();
        Preprocessing {
            height: self.size.unwrap_or(default.height),
            width: self.size.unwrap_or(default.width),
            ..default
        }
    }

    fn estimator(&self, family: Family, shapes: &[FeatureShape]) -> Result<EstimatorConfig> {
        self.refuse_foreign()?;
        let config = match self.method {
            Method::FastFlow => {
                let preset = FlowConfig::preset(self.preset, family, shapes)?;
                EstimatorConfig::FastFlow(self.flow().apply(preset, shapes)?)
            }
            Method::PatchCore => EstimatorConfig::PatchCore(self.patchcore(family)),
        };
        config.validate(shapes)?;
        Ok(config)
    }

    /// Settings of another method are a misunderstanding, not to be passed over.
    fn refuse_foreign(&self) -> Result<()> {
        let flow = self.flow() != FlowChanges::default();
        let optimiser = self.epochs.is_some()
            || self.batch.is_some()
            || self.learning_rate.is_some()
            || self.schedule.is_some()
            || self.weight_decay.is_some()
            || self.gradient_clip.is_some()
            || self.stop_on.is_some();
        let memory = self.memory.is_some()
            || self.neighbourhood.is_some()
            || self.neighbours.is_some()
            || self.metric.is_some()
            || self.precision.is_some();
        let foreign = match self.method {
            Method::FastFlow => [(
                memory,
                "a memory (memory, neighbourhood, neighbours, metric)",
            )]
            .to_vec(),
            Method::PatchCore => vec![
                (
                    flow,
                    "a flow (norm, kernels, steps, hidden, clamp, coupling)",
                ),
                (
                    optimiser,
                    "an optimiser (epochs, batch, learning rate, schedule, stopping rule)",
                ),
            ],
        };
        match foreign.iter().find(|(given, _)| *given) {
            Some((_, what)) => Err(Error::Invalid(format!(
                "the method {} has no settings of {what}",
                self.method
            ))),
            None => Ok(()),
        }
    }

    fn patchcore(&self, family: Family) -> PatchCoreConfig {
        let defaults = PatchCoreConfig::default();
        let metric = match family {
            Family::Vit => Metric::Cosine,
            _ => defaults.metric,
        };
        PatchCoreConfig {
            neighbourhood: self.neighbourhood.unwrap_or(match family {
                // Tokens see the whole photo already.
                Family::Vit => 1,
                _ => defaults.neighbourhood,
            }),
            memory: self.memory.unwrap_or(defaults.memory),
            neighbours: self.neighbours.unwrap_or(defaults.neighbours),
            metric: self.metric.unwrap_or(metric),
            precision: self.precision.unwrap_or(defaults.precision),
        }
    }

    /// How the method scores photos that a network sees as `input` and makes `scales` feature maps of. Of a flow's
    /// preset [`Preset::Whitened`]: the mean of the highest 0.15 % of the pixels, where of three scales the finest,
    /// too noisy to say anything about a whole photo, does not count.
    fn default_scoring(
        &self,
        estimator: &EstimatorConfig,
        input: &Preprocessing,
        scales: usize,
    ) -> Scoring {
        let plain = estimator.scoring();
        if self.method != Method::FastFlow || self.preset == Preset::Paper {
            return plain;
        }
        let plain = Scoring {
            image_map: MapKind::Exp,
            pixel_map: MapKind::Exp,
            ..plain
        };
        if self.preset == Preset::Anomalib {
            return plain;
        }
        let pixels = (input.height * input.width) as f64;
        let top = (pixels * 100.0 / f64::from(256 * 256)).round().max(1.0);
        Scoring {
            image_score: ImageScore::TopK(top as usize),
            image_weights: (scales == 3).then(|| vec![0.0, 1.0, 1.0]),
            ..plain
        }
    }

    fn scoring(&self, default: &Scoring) -> Scoring {
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
            ..changes.apply(default)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn resolved(settings: Settings) -> TrainConfig {
        settings.resolve("resnet18.tv_in1k", 0).unwrap()
    }

    #[test]
    fn the_whitened_preset_is_whole_and_scores_by_the_size_of_the_input() {
        let whitened = |size| {
            resolved(Settings {
                preset: Preset::Whitened,
                size,
                ..Settings::default()
            })
        };
        let config = whitened(None);
        assert_eq!(config.scoring.image_score, ImageScore::TopK(100));
        assert_eq!(config.scoring.image_weights, Some(vec![0.0, 1.0, 1.0]));
        assert_eq!(config.scoring.image_map, MapKind::Exp);
        assert_eq!((config.epochs, config.batch), (16, 4));
        let flow = config.estimator.as_flow().unwrap();
        assert_eq!(flow.norm, FeatureNorm::Whiten);
        let large = whitened(Some(384)).scoring;
        assert_eq!(large.image_score, ImageScore::TopK(225));
        let tokens = Settings {
            preset: Preset::Whitened,
            ..Settings::default()
        };
        let tokens = tokens.resolve("deit_tiny_patch16_224", 0).unwrap();
        assert_eq!(tokens.scoring.image_weights, None);
    }

    #[test]
    fn a_method_has_its_own_taps_and_scores() {
        let patchcore = Settings {
            method: Method::PatchCore,
            ..Settings::default()
        };
        let taps = |backbone| patchcore.backbone_taps(backbone).unwrap();
        assert_eq!(taps("resnet18").unwrap().as_slice(), [2, 3]);
        assert_eq!(taps("wavelet"), None);
        let config = resolved(patchcore.clone());
        assert_eq!(config.scoring.image_map, MapKind::Distance);
        let own = Settings {
            taps: Some("1,2,3".parse().unwrap()),
            ..patchcore
        };
        assert_eq!(own.backbone_taps("resnet18").unwrap(), None);
    }

    #[test]
    fn settings_of_another_method_are_refused() {
        let error = |settings: Settings| {
            let error = settings.resolve("resnet18", 0).unwrap_err();
            error.to_string()
        };
        let found = error(Settings {
            method: Method::PatchCore,
            epochs: Some(3),
            ..Settings::default()
        });
        assert!(
            found.contains("patchcore") && found.contains("epochs"),
            "{found}"
        );
        let found = error(Settings {
            memory: Some(10),
            ..Settings::default()
        });
        assert!(
            found.contains("fastflow") && found.contains("memory"),
            "{found}"
        );
        let found = error(Settings {
            method: Method::PatchCore,
            map: Some(MapKind::Nll),
            ..Settings::default()
        });
        assert!(found.contains("PatchCore has no map `nll`"), "{found}");
    }
}
