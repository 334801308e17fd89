//! `fastflow train`: a folder of photos becomes a detector.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use candle_fastflow::{
    datasets::{self, Dataset},
    detector::{AugmentationRecord, DatasetRecord, Detector, Schedule},
    estimators::{
        EstimatorConfig, Scoring,
        flow::{Activations, Coupling, FeatureNorm, FlowChanges, FlowConfig, Kernels, Preset},
    },
    evaluation,
    imaging::{Augmentation, Preprocessing},
    training::{Origin, Progress, RUN_FOLDER, Stop, TrainConfig, Trained, Trainer},
};

use super::{Outcome, card::DatasetArgs, common, progress::TrainingProgress, scoring::ScoringArgs};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fastflow train --data photos/ --backbone wavelet --epochs 20 --out my-detector\n  \
    fastflow train --data photos/ --from my-detector --epochs 4 --out adapted\n\n\
    DIR is a flat folder of photos of good products, or a data set in MVTec AD's layout\n\
    (train/good, test/<class>, ground_truth/<class>).")]
pub struct Args {
    /// Photos of good products
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where the detector goes
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Backbone id (timm's arch.tag)
    #[arg(
        long,
        value_name = "ID",
        default_value = "resnet18",
        conflicts_with = "from"
    )]
    backbone: String,
    /// The backbone's weights, where they are not to be looked for
    #[arg(long, value_name = "FILE")]
    backbone_weights: Option<PathBuf>,
    /// Start from this detector's flow (fine-tuning)
    #[arg(long, value_name = "DETECTOR", conflicts_with_all = ["preset", "size", "map", "image_map", "pixel_map", "top_k", "image_weights", "standardise_scales"])]
    from: Option<String>,
    /// paper, anomalib (the settings of the public ports), or whitened (whitened features, larger steps, few
    /// epochs, scores by the highest pixels: did best on screw)
    #[arg(long, value_parser = common::names::<Preset>(), default_value = "paper")]
    preset: Preset,
    /// Input size in pixels; the backbone's by default
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    #[command(flatten)]
    flow: FlowArgs,
    /// Passes over the photos [default: 40, of preset whitened 16]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// The one seed: same seed, photos and machine kind, same detector
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Go on from the checkpoint in the out folder
    #[arg(long)]
    resume: bool,
    /// Train once more on all normal photos, held-out ones included, after the threshold is found
    #[arg(long = "final")]
    final_fit: bool,
    /// synthetic: after every epoch score held-out photos with and without synthetic defects, and keep the best
    /// epoch's weights; no real defect is needed
    #[arg(long, value_enum, value_name = "RULE", conflicts_with = "final_fit")]
    stop_on: Option<StopArg>,
    /// With --stop-on: epochs without a better one after which training ends
    #[arg(long, value_name = "N", requires = "stop_on", default_value_t = Stop::DEFAULT_PATIENCE)]
    patience: usize,
    /// Do not measure on the data set's test images at the end
    #[arg(long)]
    no_eval: bool,
    /// The detector's name; the data folder's by default
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    optimiser: OptimiserArgs,
    #[command(flatten)]
    augment: AugmentArgs,
    #[command(flatten)]
    scoring: ScoringArgs,
    /// Standardise every scale on held-out normals before averaging
    #[arg(long, help_heading = "Scoring")]
    standardise_scales: bool,
    /// Share of good products that may be called defective
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 0.01,
        help_heading = "Scoring"
    )]
    false_alarm_rate: f64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: common::Compute,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum StopArg {
    Synthetic,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Flow (the preset's by default)")]
struct FlowArgs {
    /// What is done to the features before the first step; whiten (channels uncorrelated and of unit variance)
    /// learns fastest
    #[arg(long, value_parser = common::names::<FeatureNorm>(), conflicts_with = "from")]
    norm: Option<FeatureNorm>,
    /// Kernel sizes of the steps' subnets: 3-1 (alternating) or 3-3
    #[arg(long, value_parser = common::names::<Kernels>(), conflicts_with = "from")]
    kernels: Option<Kernels>,
    /// Coupling steps a scale
    #[arg(long, value_name = "N", conflicts_with = "from")]
    steps: Option<usize>,
    /// Hidden width of the subnets, as a multiple of the preset's
    #[arg(long, value_name = "X", conflicts_with = "from")]
    hidden: Option<f64>,
    /// Bound of each step's log-scale
    #[arg(long, value_name = "X", conflicts_with = "from")]
    clamp: Option<f32>,
    /// affine, or additive (steps shift only: the Jacobian's determinant is the same for every photo)
    #[arg(long, value_parser = common::names::<Coupling>(), conflicts_with = "from")]
    coupling: Option<Coupling>,
}

impl FlowArgs {
    /// What was given in place of the preset's.
    fn changes(&self) -> FlowChanges {
        FlowChanges {
            norm: self.norm,
            kernels: self.kernels,
            steps: self.steps,
            hidden: self.hidden,
            clamp: self.clamp,
            coupling: self.coupling,
        }
    }
}

#[derive(clap::Args)]
#[command(next_help_heading = "Optimiser")]
struct OptimiserArgs {
    /// Photos a step [default: 32, of preset whitened 4]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Adam's step size [default: 0.001, of preset whitened 0.004, with --from 0.0001]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Step size over the run: constant, cosine (falls to nothing at the end), or warm-cosine (rises first,
    /// which rates far above 0.001 need)
    /// [default: constant, of preset whitened warm-cosine]
    #[arg(long, value_parser = common::names::<Schedule>())]
    schedule: Option<Schedule>,
    /// L2 term
    #[arg(long, value_name = "X", default_value_t = 1e-5)]
    weight_decay: f64,
    /// Limit the gradient's norm
    #[arg(long, value_name = "X")]
    gradient_clip: Option<f64>,
    /// Gigabytes of features kept in memory before they go to a mapped file
    #[arg(long, value_name = "GB", default_value_t = 4.0)]
    feature_memory: f64,
    /// Rebuild activations in the reverse pass by the flow's inverse instead of keeping them: less memory, more time
    #[arg(long)]
    rebuild_activations: bool,
    /// Seconds between checkpoints
    #[arg(long, value_name = "S", default_value_t = 120.0)]
    checkpoint_every: f64,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Augmentation")]
struct AugmentArgs {
    /// Cache N views of every photo: itself and N - 1 augmented ones (the paper's flips and rotation)
    #[arg(long, value_name = "N", default_value_t = 1)]
    views: usize,
    /// No horizontal flip (probability .5)
    #[arg(long)]
    no_horizontal_flip: bool,
    /// No vertical flip (probability .3)
    #[arg(long)]
    no_vertical_flip: bool,
    /// No rotation (probability .7): for products that always lie the same way
    #[arg(long)]
    no_rotation: bool,
    /// Largest rotation
    #[arg(long, value_name = "DEGREES", default_value_t = 15.0)]
    rotation: f64,
    /// Quarter turns too
    #[arg(long)]
    quarter_turns: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let config = train_config(&args)?;
    let device = args.compute.start()?;
    let mut dataset = datasets::open(&args.data)?;
    if let Some(name) = &args.name {
        dataset.name = name.clone();
    }
    if !args.resume
        && args
            .out
            .join(candle_fastflow::detector::CONFIG_FILE)
            .exists()
    {
        bail!(
            "{}: holds a detector already; name another folder for --out",
            args.out.display()
        );
    }
    if measures(&args, &dataset) {
        evaluation::ready(&dataset)?;
    }
    let (origin, config) = origin(&args, config, &device)?;
    let trainer = Trainer::new(config, device)?;
    let mut progress = TrainingProgress::new(args.json)?;
    progress.note(&format!(
        "{}: {} photos of good products",
        dataset.name,
        dataset.train.len()
    ));
    let trained = trainer.fit(&dataset, origin, &args.out, args.resume, &mut progress)?;
    finish(&args, &dataset, trained)
}

/// Where the run starts; a parent's scoring stays with it.
fn origin(
    args: &Args,
    mut config: TrainConfig,
    device: &candle_core::Device,
) -> anyhow::Result<(Origin, TrainConfig)> {
    let weights = args.backbone_weights.clone();
    if let Some(name) = &args.from {
        let detector = common::load_detector(name, weights, device)?;
        config.scoring = detector.config().scoring.clone();
        if let Some(record) = &detector.config().training {
            config.preset = record
                .optimisation
                .as_ref()
                .map_or(config.preset, |run| run.preset);
        }
        return Ok((
            Origin::Parent {
                detector: Box::new(detector),
                name: name.clone(),
            },
            config,
        ));
    }
    let (backbone, record) = common::open_backbone(&args.backbone, weights.as_deref(), device)?;
    if let Some(size) = args.size {
        let default = backbone.info().preprocessing.clone();
        config.preprocessing = Some(Preprocessing {
            height: size,
            width: size,
            ..default
        });
    }
    let input = config
        .preprocessing
        .as_ref()
        .unwrap_or(&backbone.info().preprocessing);
    input.validate(Path::new("--size"))?;
    let shapes = backbone.shapes(input.height, input.width)?;
    let preset = FlowConfig::preset(config.preset, backbone.info().family, &shapes)?;
    config.scoring = scoring(
        args,
        TrainConfig::preset_scoring(config.preset, input, shapes.len()),
    );
    let changes = args.flow.changes();
    if changes != FlowChanges::default() {
        config.estimator = Some(EstimatorConfig::FastFlow(changes.apply(preset, &shapes)?));
    }
    Ok((Origin::Scratch { backbone, record }, config))
}

fn train_config(args: &Args) -> anyhow::Result<TrainConfig> {
    let mut config = TrainConfig::new(args.preset);
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.seed = args.seed;
    config.final_fit = args.final_fit;
    config.stop = args.stop_on.map(|StopArg::Synthetic| Stop {
        patience: args.patience,
    });
    config.dataset = args.dataset.record().or_else(|| recognised(&args.data));
    let optimiser = &args.optimiser;
    config.batch = optimiser.batch.unwrap_or(config.batch);
    if args.from.is_some() {
        config.learning_rate = TrainConfig::FINE_TUNING_RATE;
    }
    config.learning_rate = optimiser.learning_rate.unwrap_or(config.learning_rate);
    config.schedule = optimiser.schedule.unwrap_or(config.schedule);
    config.weight_decay = optimiser.weight_decay;
    config.gradient_clip = optimiser.gradient_clip;
    if !(0.0..=1e6).contains(&optimiser.feature_memory) {
        bail!("--feature-memory must be 0 or more gigabytes");
    }
    config.memory_limit = (optimiser.feature_memory * f64::from(1 << 30)) as u64;
    if optimiser.rebuild_activations {
        config.activations = Activations::Rebuild;
    }
    config.checkpoint_every =
        Duration::try_from_secs_f64(optimiser.checkpoint_every).context("--checkpoint-every")?;
    config.augmentation = augmentation(&args.augment);
    config.scoring = scoring(args, config.scoring);
    config.false_alarm_rate = args.false_alarm_rate;
    config.validate()?;
    Ok(config)
}

fn scoring(args: &Args, preset: Scoring) -> Scoring {
    Scoring {
        standardise_scales: args.standardise_scales,
        ..args.scoring.apply(&preset)
    }
}

/// The data set's name where its files tell it.
fn recognised(data: &Path) -> Option<DatasetRecord> {
    datasets::recognise(data).map(|known| DatasetRecord {
        name: known.name.into(),
        licence: known.licence.map(String::from),
    })
}

fn augmentation(args: &AugmentArgs) -> Option<AugmentationRecord> {
    let defaults = Augmentation::default();
    let or_zero = |off: bool, probability: f64| if off { 0.0 } else { probability };
    let views = Augmentation {
        horizontal_flip: or_zero(args.no_horizontal_flip, defaults.horizontal_flip),
        vertical_flip: or_zero(args.no_vertical_flip, defaults.vertical_flip),
        rotation: or_zero(args.no_rotation, defaults.rotation),
        degrees: args.rotation,
        quarter_turns: args.quarter_turns,
    };
    (args.views != 1).then_some(AugmentationRecord {
        views,
        count: args.views,
    })
}

/// Whether there is something to evaluate on, and it is wanted.
fn measures(args: &Args, dataset: &Dataset) -> bool {
    !args.no_eval && dataset.test.iter().any(|sample| sample.is_defective())
}

/// Evaluates where that is wanted, and says what was made.
fn finish(args: &Args, dataset: &Dataset, trained: Trained) -> anyhow::Result<Outcome> {
    let Trained {
        mut detector,
        history,
    } = trained;
    super::plots::training_curve(&args.out.join(RUN_FOLDER).join("curve.svg"), &history)?;
    if measures(args, dataset) {
        let quiet = args.json;
        let bar = super::progress::counter(quiet, "evaluating", dataset.test.len());
        let evaluation =
            evaluation::evaluate(&detector, dataset, Default::default(), &mut |done, _| {
                bar.set_position(done as u64);
            })?;
        bar.finish_and_clear();
        detector.config_mut().metrics = evaluation.metrics.to_map();
        detector.save(&args.out)?;
    }
    report(args, &detector)
}

fn report(args: &Args, detector: &Detector) -> anyhow::Result<Outcome> {
    let config = detector.config();
    let calibration = config
        .calibration
        .as_ref()
        .context("the detector has no threshold")?;
    let record = config.training.as_ref();
    let record = record.and_then(|record| record.optimisation.as_ref());
    let kept = record.and_then(|record| record.stopping.as_ref());
    if args.json {
        common::print_line(serde_json::json!({
            "out": args.out, "name": config.name, "epochs": record.map(|t| t.epochs), "seed": args.seed,
            "kept_epoch": kept.map(|s| s.epoch), "held_out_nll": record.map(|t| t.held_out_nll),
            "threshold": calibration.threshold, "metrics": config.metrics,
        }))?;
        return Ok(Outcome::Done);
    }
    for (name, value) in &config.metrics {
        common::print_line(format!("{name:14} {value:.4}"))?;
    }
    if let (Some(kept), Some(record)) = (kept, record) {
        common::print_line(format!(
            "kept           epoch {} of {}: synthetic defects found with AUROC {:.4}",
            kept.epoch, record.epochs, kept.synthetic_auroc
        ))?;
    }
    common::print_line(format!(
        "threshold      {:.4}   (about {:.1} % of good products score above it)\n\
         saved to       {}\n\
         inspect with   fastflow infer {} PHOTOS --out overlays",
        calibration.threshold,
        100.0 * calibration.false_alarm_rate,
        args.out.display(),
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}
