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
        memory::{Grid, Metric, PatchCoreConfig, Precision},
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
    /// None: the default recipe, or FastFlow where only a flow has what is asked for.
    pub method: Option<Method>,
    /// Of FastFlow.
    pub preset: Option<Preset>,
    /// Of the (first and largest) input; of one that is not square the side of a square of the same area.
    pub size: Option<usize>,
    /// Width over height of the input.
    pub aspect: Option<f64>,
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
            method: None,
            preset: None,
            size: None,
            aspect: None,
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

    /// The method; none for the default recipe.
    pub fn chosen_method(&self) -> Option<Method> {
        let of_a_flow = self.preset.is_some() || self.has_flow() || self.has_optimiser();
        self.method.or(of_a_flow.then_some(Method::FastFlow))
    }

    /// Whether the input takes the photos' shape, so that [`Self::aspect`] is to be measured where it is not given.
    pub fn follows_photos(&self) -> bool {
        self.aspect.is_none() && self.chosen_method().is_none()
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
        match (self.chosen_method(), info.family) {
            // Section 3.1: neither the finest stage, too generic, nor the last, biased to ImageNet's classes.
            (None | Some(Method::PatchCore), Family::BasicResNet | Family::BottleneckResNet) => {
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
        let of_inputs = input.inputs().into_iter();
        let of_inputs = of_inputs.map(|input| {
            backbones::shapes_with(backbone, taps.as_ref(), input.height, input.width)
        });
        let shapes = of_inputs.collect::<Result<Vec<_>>>()?.concat();
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
        let preset = record.map_or(self.preset(), |record| record.preset);
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
        let defaults = OptimiserDefaults::of(self.preset());
        let config = TrainConfig {
            preset: self.preset(),
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
        if let Some(aspect) = self.aspect
            && !(0.1..=10.0).contains(&aspect)
        {
            return Err(Error::Invalid(format!(
                "aspect must be 0.1 to 10, not {aspect}"
            )));
        }
        match self.pixel_size {
            Some(0) => Err(Error::Invalid("pixel_size must be at least 1".into())),
            _ => Ok(()),
        }
    }

    fn preset(&self) -> Preset {
        self.preset.unwrap_or(Preset::Paper)
    }

    /// The network's inputs. The default recipe looks at photos in their own shape and, through a pyramid of features,
    /// at three sizes: small defects show in a large input, and what is usual of a texture in a small one
    /// (docs/accuracy.md).
    fn input(&self, backbone: &BackboneInfo) -> Preprocessing {
        let default = backbone.preprocessing.clone();
        let recipe = self.chosen_method().is_none() && backbone.family != Family::Vit;
        let usual = if recipe {
            default.height * 3 / 2
        } else {
            default.height
        };
        let side = self.size.unwrap_or(usual);
        let aspect = self.aspect.unwrap_or(1.0);
        if !recipe && aspect == 1.0 {
            return Preprocessing {
                height: side,
                width: side,
                ..default
            };
        }
        let unit = unit(backbone);
        let shaped = |side: f64| shape(side, aspect, unit);
        let (height, width) = shaped(side as f64);
        let further = [2.0 / 3.0, 0.5].map(|share| shaped(side as f64 * share));
        Preprocessing {
            height,
            width,
            pyramid: if recipe { further.to_vec() } else { Vec::new() },
            ..default
        }
    }

    fn estimator(&self, family: Family, shapes: &[FeatureShape]) -> Result<EstimatorConfig> {
        self.refuse_foreign()?;
        let config = match self.chosen_method() {
            Some(Method::FastFlow) => {
                let preset = FlowConfig::preset(self.preset(), family, shapes)?;
                EstimatorConfig::FastFlow(self.flow().apply(preset, shapes)?)
            }
            Some(Method::PatchCore) => EstimatorConfig::PatchCore(self.patchcore(family)),
            None => EstimatorConfig::PatchCore(self.default_recipe(family)),
        };
        config.validate(shapes)?;
        Ok(config)
    }

    /// PatchCore over a pyramid of inputs; every choice is measured in docs/accuracy.md.
    fn default_recipe(&self, family: Family) -> PatchCoreConfig {
        let plain = self.patchcore(family);
        match family {
            Family::Vit => PatchCoreConfig {
                normalised: true,
                ..plain
            },
            _ => PatchCoreConfig {
                memory: self.memory.unwrap_or(5000),
                grid: Grid::Coarsest,
                inputs: 3,
                density: 5,
                normalised: true,
                ..plain
            },
        }
    }

    /// Settings of another method are a misunderstanding, not to be passed over.
    fn refuse_foreign(&self) -> Result<()> {
        let memory = self.memory.is_some()
            || self.neighbourhood.is_some()
            || self.neighbours.is_some()
            || self.metric.is_some()
            || self.precision.is_some();
        let method = self.chosen_method();
        let foreign = match method {
            Some(Method::FastFlow) => [
                (
                    memory,
                    "a memory (memory, neighbourhood, neighbours, metric)",
                ),
                (false, ""),
            ],
            Some(Method::PatchCore) | None => [
                (
                    self.has_flow() || self.preset.is_some(),
                    "a flow (preset, norm, kernels, steps, hidden, clamp, coupling)",
                ),
                (
                    self.has_optimiser(),
                    "an optimiser (epochs, batch, learning rate, schedule, stopping rule)",
                ),
            ],
        };
        let method = method.unwrap_or(Method::PatchCore);
        match foreign.iter().find(|(given, _)| *given) {
            Some((_, what)) => Err(Error::Invalid(format!(
                "the method {method} has no settings of {what}"
            ))),
            None => Ok(()),
        }
    }

    fn has_flow(&self) -> bool {
        self.flow() != FlowChanges::default()
    }

    fn has_optimiser(&self) -> bool {
        self.epochs.is_some()
            || self.batch.is_some()
            || self.learning_rate.is_some()
            || self.schedule.is_some()
            || self.weight_decay.is_some()
            || self.gradient_clip.is_some()
            || self.stop_on.is_some()
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
            ..defaults
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
        let pixels = (input.height * input.width) as f64;
        let top = |share: f64| ImageScore::TopK((pixels * share).round().max(1.0) as usize);
        match (self.chosen_method(), self.preset()) {
            // A 64th of the side smooths what single positions say; a hundredth of the pixels is a defect.
            (None, _) => Scoring {
                image_score: top(0.01),
                smoothing: Some((pixels.sqrt() / 64.0) as f32),
                ..plain
            },
            (Some(Method::PatchCore), _) | (_, Preset::Paper) => plain,
            (_, Preset::Anomalib) => Scoring {
                image_map: MapKind::Exp,
                pixel_map: MapKind::Exp,
                ..plain
            },
            (_, Preset::Whitened) => Scoring {
                image_map: MapKind::Exp,
                pixel_map: MapKind::Exp,
                image_score: top(100.0 / f64::from(256 * 256)),
                image_weights: (scales == 3).then(|| vec![0.0, 1.0, 1.0]),
                ..plain
            },
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

/// What both sides of an input must be multiples of, so that the maps of all stages cover it evenly.
fn unit(backbone: &BackboneInfo) -> usize {
    match backbone.family {
        Family::Vit if backbone.arch.contains("patch14") => 14,
        _ => 16,
    }
}

/// Height and width of an input with this aspect, of about the area of a square of this side.
fn shape(side: f64, aspect: f64, unit: usize) -> (usize, usize) {
    let whole = |length: f64| ((length / unit as f64).round() as usize).max(2) * unit;
    (whole(side / aspect.sqrt()), whole(side * aspect.sqrt()))
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
                preset: Some(Preset::Whitened),
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
            preset: Some(Preset::Whitened),
            ..Settings::default()
        };
        let tokens = tokens.resolve("deit_tiny_patch16_224", 0).unwrap();
        assert_eq!(tokens.scoring.image_weights, None);
    }

    #[test]
    fn a_method_has_its_own_taps_and_scores() {
        let patchcore = Settings {
            method: Some(Method::PatchCore),
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
            method: Some(Method::PatchCore),
            epochs: Some(3),
            ..Settings::default()
        });
        assert!(
            found.contains("patchcore") && found.contains("epochs"),
            "{found}"
        );
        let found = error(Settings {
            method: Some(Method::FastFlow),
            memory: Some(10),
            ..Settings::default()
        });
        assert!(
            found.contains("fastflow") && found.contains("memory"),
            "{found}"
        );
        let found = error(Settings {
            method: Some(Method::PatchCore),
            map: Some(MapKind::Nll),
            ..Settings::default()
        });
        assert!(found.contains("PatchCore has no map `nll`"), "{found}");
    }

    #[test]
    fn the_default_recipe_takes_the_photos_shape_at_three_sizes() {
        let recipe = Settings {
            aspect: Some(0.4),
            ..Settings::default()
        };
        let config = resolved(recipe);
        let input = &config.preprocessing;
        assert_eq!((input.height, input.width), (608, 240));
        assert_eq!(input.pyramid, [(400, 160), (304, 128)]);
        let EstimatorConfig::PatchCore(patchcore) = &config.estimator else {
            panic!("{:?}", config.estimator);
        };
        assert_eq!((patchcore.inputs, patchcore.memory), (3, 5000));
        assert_eq!(config.scoring.image_score, ImageScore::TopK(1459));
        let smaller = Settings {
            size: Some(256),
            ..Settings::default()
        };
        let input = resolved(smaller).preprocessing;
        assert_eq!((input.height, input.width), (256, 256));
        assert_eq!(input.pyramid, [(176, 176), (128, 128)]);
    }

    #[test]
    fn what_only_a_flow_has_chooses_it() {
        let epochs = Settings {
            epochs: Some(3),
            ..Settings::default()
        };
        assert_eq!(epochs.chosen_method(), Some(Method::FastFlow));
        assert_eq!(resolved(epochs).scoring.image_map, MapKind::Prob);
        assert_eq!(Settings::default().chosen_method(), None);
    }
}
