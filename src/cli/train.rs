//! `fastflow train`: a folder of photos becomes a detector.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use candle_fastflow::{
    backbones::{self, Taps},
    datasets::{self, Dataset},
    detector::{CalibrationSource, DatasetRecord, Detector},
    estimators::{
        Method,
        flow::{Activations, Preset},
    },
    evaluation,
    imaging::Augmentation,
    training::{
        self, CURVE_FILE, InputSize, Origin, Progress, RUN_FOLDER, Settings, Stop, StopOn,
        TrainConfig, Trained, Trainer,
    },
};

use super::{
    Outcome,
    advice::said,
    card::DatasetArgs,
    common,
    dataset::DataArgs,
    method::{AugmentArgs, FlowArgs, MemoryArgs, OptimiserArgs, help},
    progress::TrainingProgress,
    scoring::ScoringArgs,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fastflow train --data photos/ --backbone wavelet --epochs 20 --out my-detector\n  \
    fastflow train --data photos/ --method patchcore --out my-detector\n  \
    fastflow train --data photos/ --from my-detector --epochs 4 --out adapted\n\n\
    DIR is a flat folder of photos of good products, folders whose names say what they hold (OK and NG, good and\n\
    scratched, train/good and test/<class>, in many languages), or a public data set. What is not certain is asked:\n  \
    fastflow train --normal photos/A --abnormal photos/B --out my-detector")]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
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
    #[arg(long, value_name = "DETECTOR", conflicts_with_all = ["method", "preset", "size", "map", "image_map", "pixel_map", "top_k", "image_weights", "standardise_scales"])]
    from: Option<String>,
    /// What models normal features: fastflow, cflow or differnet (trained), patchcore (a memory of features, filled in a minute), padim (a
    /// Gaussian a position), spade (all features of all photos), mahalanobis (a Gaussian of whole photos), or several
    /// with commas, averaged; by default the recipe that finds most, a memory for each of three input sizes
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_delimiter = ',',
        value_name = "METHOD,..."
    )]
    method: Vec<Method>,
    /// The default recipe at one input size with a smaller memory: seconds in place of a minute, and finds less
    #[arg(long, conflicts_with_all = ["method", "preset", "from"])]
    fast: bool,
    /// A FastFlow: paper, anomalib (the settings of the public ports), or whitened (whitened features, larger steps, few
    /// epochs, scores by the highest pixels: did best on screw)
    #[arg(long, value_enum, hide_possible_values = true)]
    preset: Option<Preset>,
    /// Input size in pixels: one number, or height x width as in 256x768; the backbone's by default
    #[arg(long, value_name = "PIXELS")]
    size: Option<InputSize>,
    /// Width over height of the input; by default 1, and the photos' where no method is named or they are beyond 3:2
    #[arg(long, value_name = "X", conflicts_with = "from")]
    aspect: Option<f64>,
    /// Where features leave the backbone (stages of a ResNet from 1, blocks of a transformer from 0), for example 2,3;
    /// the method's by default
    #[arg(long, value_name = "N,N,...", conflicts_with = "from")]
    taps: Option<Taps>,
    #[command(flatten)]
    flow: FlowArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Channels that are kept of all maps, drawn at random (method padim) [default: 100, of a ResNet with
    /// bottlenecks 550]
    #[arg(long, value_name = "N", conflicts_with = "from")]
    channels: Option<usize>,
    #[arg(long, value_name = "N", help = help("Passes over the photos", |d| d.epochs.to_string()))]
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
    /// Fits that each leave a part of the photos out, so that every photo counts for the threshold and for the detector
    /// (methods fitted in closed form); 1 holds a tenth of the photos out instead [default: 5; of a --method with more
    /// than 100 photos 1]
    #[arg(long, value_name = "N", conflicts_with = "stop_on")]
    folds: Option<usize>,
    /// synthetic: after every epoch score held-out photos with and without synthetic defects, and keep the best
    /// epoch's weights; no real defect is needed
    #[arg(long, value_parser = common::names::<StopOn>(), value_name = "RULE", conflicts_with = "final_fit")]
    stop_on: Option<StopOn>,
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
    photos: common::PhotoArgs,
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
        default_value_t = Settings::FALSE_ALARM_RATE,
        help_heading = "Scoring"
    )]
    false_alarm_rate: f64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: common::Compute,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut settings = settings(&args);
    let run_settings = RunSettings::of(&args)?;
    let device = args.compute.start()?;
    let mut dataset = args.data.open()?.read_as(args.photos.reading());
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
    training::require_place(&args.out).map_err(|error| anyhow!("--out {}", said(&error)))?;
    // What is wrong with the settings is said before anything is looked for.
    if args.from.is_none() {
        settings.resolve(&backbones::resolve_id(&args.backbone)?, args.seed)?;
    }
    if measures(&args, &dataset) {
        evaluation::ready(&dataset)?;
    }
    if args.from.is_none() {
        settings.follow(&dataset)?;
    }
    let (origin, mut config) = origin(&args, &settings, &device)?;
    run_settings.apply(&mut config);
    config.dataset = args
        .dataset
        .record()
        .or_else(|| recognised(args.data.dir().unwrap_or(&dataset.root)));
    let trainer = Trainer::new(config, device)?;
    let mut progress = TrainingProgress::new(args.json)?;
    progress.note(&format!("{}: {}", dataset.name, dataset.summary()));
    if let Some(different) = dataset.copies()? {
        progress.note(&format!(
            "note: of {} photos to train on only {different} {}, byte for byte: copies teach nothing",
            dataset.train.len(),
            if different == 1 { "is different" } else { "are different" }
        ));
    }
    let trained = trainer.fit(&dataset, origin, &args.out, args.resume, &mut progress)?;
    finish(&args, &dataset, trained)
}

/// Where the run starts; a parent's scoring stays with it.
fn origin(
    args: &Args,
    settings: &Settings,
    device: &candle_core::Device,
) -> anyhow::Result<(Origin, TrainConfig)> {
    let weights = args.backbone_weights.clone();
    if let Some(name) = &args.from {
        let detector = common::load_detector(name, weights, device)?;
        let config = settings.adapt(detector.config(), args.seed)?;
        let (detector, name) = (Box::new(detector), name.clone());
        return Ok((Origin::Parent { detector, name }, config));
    }
    let id = backbones::resolve_id(&args.backbone)?;
    let taps = settings.backbone_taps(&id)?;
    let (backbone, record) = common::open_backbone(&id, taps.as_ref(), weights.as_deref(), device)?;
    let config = settings.resolve(&id, args.seed)?;
    Ok((Origin::Scratch { backbone, record }, config))
}

/// What the flags say of the detector.
fn settings(args: &Args) -> Settings {
    let defaults = Augmentation::default();
    let or_zero = |off: bool, probability: f64| if off { 0.0 } else { probability };
    let (optimiser, augment, scoring) = (&args.optimiser, &args.augment, args.scoring.changes());
    Settings {
        method: args
            .method
            .first()
            .copied()
            .filter(|_| args.method.len() == 1),
        ensemble: (args.method.len() > 1).then(|| args.method.clone()),
        fast: args.fast,
        preset: args.preset,
        size: args.size,
        aspect: args.aspect,
        page: args.photos.page(),
        taps: args.taps.clone(),
        epochs: args.epochs,
        batch: optimiser.batch,
        learning_rate: optimiser.learning_rate,
        schedule: optimiser.schedule,
        weight_decay: optimiser.weight_decay,
        gradient_clip: optimiser.gradient_clip,
        final_fit: args.final_fit,
        folds: args.folds,
        stop_on: args.stop_on,
        patience: args.patience,
        false_alarm_rate: Some(args.false_alarm_rate),
        norm: args.flow.norm,
        kernels: args.flow.kernels,
        steps: args.flow.steps,
        hidden: args.flow.hidden,
        clamp: args.flow.clamp,
        coupling: args.flow.coupling,
        memory: args.memory.memory,
        neighbourhood: args.memory.neighbourhood,
        neighbours: args.memory.neighbours,
        metric: args.memory.metric,
        precision: args.memory.precision,
        channels: args.channels,
        views: augment.views,
        horizontal_flip: or_zero(augment.no_horizontal_flip, defaults.horizontal_flip),
        vertical_flip: or_zero(augment.no_vertical_flip, defaults.vertical_flip),
        rotation: augment.rotation,
        rotation_probability: or_zero(augment.no_rotation, defaults.rotation),
        quarter_turns: augment.quarter_turns,
        map: scoring.map,
        image_map: scoring.image_map,
        pixel_map: scoring.pixel_map,
        top_k: scoring.top_k,
        image_weights: scoring.image_weights,
        smoothing: scoring.smoothing,
        standardise_scales: args.standardise_scales,
        pixel_size: None,
    }
}

/// What the flags say of the run, which does not change the detector.
struct RunSettings {
    memory_limit: u64,
    activations: Activations,
    checkpoint_every: Duration,
}

impl RunSettings {
    fn of(args: &Args) -> anyhow::Result<Self> {
        let optimiser = &args.optimiser;
        if !(0.0..=1e6).contains(&optimiser.feature_memory) {
            bail!("--feature-memory must be 0 or more gigabytes");
        }
        Ok(Self {
            memory_limit: (optimiser.feature_memory * f64::from(1 << 30)) as u64,
            activations: if optimiser.rebuild_activations {
                Activations::Rebuild
            } else {
                Activations::Keep
            },
            checkpoint_every: Duration::try_from_secs_f64(optimiser.checkpoint_every)
                .context("--checkpoint-every")?,
        })
    }

    fn apply(self, config: &mut TrainConfig) {
        config.memory_limit = self.memory_limit;
        config.activations = self.activations;
        config.checkpoint_every = self.checkpoint_every;
    }
}

/// The data set's name where its files tell it.
fn recognised(data: &Path) -> Option<DatasetRecord> {
    datasets::recognise(data).map(|known| DatasetRecord {
        name: known.name.into(),
        licence: known.licence.map(String::from),
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
    if !history.is_empty() {
        super::plots::training_curve(&args.out.join(RUN_FOLDER).join(CURVE_FILE), &history)?;
    }
    if measures(args, dataset) {
        let quiet = args.json;
        let bar = super::progress::counter(quiet, "evaluating", dataset.test.len());
        let evaluation =
            evaluation::evaluate(&detector, dataset, Default::default(), &mut |done, _| {
                bar.set_position(done as u64);
            })?;
        bar.finish_and_clear();
        common::tell(evaluation.notes(&detector));
        detector.set_metrics(evaluation.metrics.to_map());
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
        let mut object = serde_json::json!({
            "name": config.name, "epochs": record.map(|t| t.epochs), "seed": args.seed,
            "kept_epoch": kept.map(|s| s.epoch), "held_out_nll": record.map(|t| t.held_out_nll),
            "threshold": calibration.threshold, "calibrated_by": calibration.source, "metrics": config.metrics,
        });
        common::put_path(&mut object, "out", &args.out);
        common::print_line(object)?;
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
    let expected = match calibration.source {
        CalibrationSource::MirroredViews => "a guess from mirrored training photos".to_string(),
        _ => format!(
            "about {:.1} % of good products score above it",
            100.0 * calibration.false_alarm_rate
        ),
    };
    common::print_line(format!(
        "threshold      {:.4}   ({expected})\n\
         saved to       {}\n\
         inspect with   fastflow infer {} PHOTOS --out overlays",
        calibration.threshold,
        args.out.display(),
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}
