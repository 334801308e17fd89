//! `fastflow bench`: medians on this machine, with the columns of the paper's table 1.

use std::path::PathBuf;

use candle_core::Device;
use candle_fastflow::{
    backbones::{self, Backbone},
    estimators::flow::{Activations, FastFlow, FlowConfig},
    speed::{Speed, TrainingSpeed, feature_store, input_pattern},
    training::TrainConfig,
};
use serde::Serialize;

use super::{Outcome, common, train::PresetArg};

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow bench --backbone resnet18 --json --train")]
pub struct Args {
    /// Backbone id (timm's arch.tag)
    #[arg(long, value_name = "ID")]
    backbone: String,
    /// Its weights; seeded random ones without (speed is the same)
    #[arg(long, value_name = "FILE")]
    backbone_weights: Option<PathBuf>,
    /// The flow's settings
    #[arg(long, value_enum, default_value = "paper")]
    preset: PresetArg,
    /// Images at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Repetitions behind each median
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Also time one training step of the flow (batch 32 unless --batch is given), features at hand
    #[arg(long)]
    train: bool,
    /// The training step rebuilds activations instead of keeping them
    #[arg(long, requires = "train")]
    rebuild_activations: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: common::Compute,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Timing {
    backbone_id: String,
    weights: &'static str,
    device: &'static str,
    #[serde(flatten)]
    speed: Speed,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_step_ms: Option<f64>,
    /// Its forward and backward alone; on a GPU only.
    #[serde(skip_serializing_if = "Option::is_none")]
    train_gradients_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_batch: Option<usize>,
}

/// Batch of the training step (the paper's) unless one was asked for.
const TRAIN_BATCH: usize = 32;

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let device = args.compute.start()?;
    let (backbone, weights) = backbone(&args, &device)?;
    let input = backbone.info().preprocessing.clone();
    let shapes = backbone.shapes(input.height, input.width)?;
    let config = FlowConfig::preset(args.preset.into(), backbone.info().family, &shapes)?;
    let mut flow = FastFlow::init(&config, &shapes, 0, &device)?;
    let images = input_pattern(&input, usize::from(args.batch), &device)?;
    let features = backbone.features(&images)?;
    flow.fit_norm(&feature_store(&features, 1)?)?;
    let (batch, repeat) = (usize::from(args.batch), usize::from(args.repeat));
    let scoring = TrainConfig::preset_scoring(args.preset.into(), &input, shapes.len());
    let network = backbone.as_ref();
    let speed = Speed::measure(network, &flow, &scoring, &input, batch, repeat, &device)?;
    let mut timing = Timing {
        backbone_id: backbone.info().id.clone(),
        weights,
        device: if device.is_cpu() { "cpu" } else { "cuda" },
        speed,
        train_step_ms: None,
        train_gradients_ms: None,
        train_batch: None,
    };
    if args.train {
        let batch = if args.batch == 1 {
            TRAIN_BATCH
        } else {
            usize::from(args.batch)
        };
        if args.rebuild_activations {
            flow.set_activations(Activations::Rebuild);
        }
        let training = TrainingSpeed::measure(&flow, &features, batch, &device)?;
        timing.train_step_ms = Some(training.step);
        timing.train_gradients_ms = training.gradients;
        timing.train_batch = Some(batch);
    }
    show(&timing, args.json)?;
    Ok(Outcome::Done)
}

fn backbone(args: &Args, device: &Device) -> anyhow::Result<(Box<dyn Backbone>, &'static str)> {
    let id = backbones::resolve_id(&args.backbone)?;
    match &args.backbone_weights {
        Some(path) => Ok((backbones::load(&id, Some(path), device)?, "file")),
        None if !backbones::needs_weights(&id) => {
            Ok((backbones::load(&id, None, device)?, "embedded"))
        }
        None => Ok((backbones::load_random(&id, 0, device)?, "random")),
    }
}

fn show(timing: &Timing, json: bool) -> anyhow::Result<()> {
    if json {
        return common::print_line(serde_json::to_string(timing)?);
    }
    let t = &timing.speed;
    common::print_line(format!(
        "{} ({} weights), {} threads on {}, batch {}, medians in ms a batch",
        timing.backbone_id, timing.weights, t.threads, timing.device, t.batch
    ))?;
    for (name, ms) in [
        ("preprocess", t.preprocess),
        ("backbone", t.backbone),
        ("flow", t.estimator),
        ("map", t.map),
        ("whole (backbone, flow, map)", t.whole),
    ] {
        common::print_line(format!("{name:28} {ms:>9.2}"))?;
    }
    common::print_line(format!(
        "{:28} {:>9.1}\n{:28} {:>9.2}\n{:28} {:>9.3}",
        "images a second",
        t.fps,
        "additional ms an image",
        t.additional_ms,
        "additional parameters (M)",
        t.additional_params as f64 / 1e6
    ))?;
    if let (Some(ms), Some(batch)) = (timing.train_step_ms, timing.train_batch) {
        common::print_line(format!("training step, batch {batch:<7} {ms:>9.0}"))?;
    }
    Ok(())
}
