//! `fastflow bench`: medians on this machine, with the columns of the paper's table 1.

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use candle_fastflow::{
    backbones::{self, Backbone},
    estimators::flow::{Activations, FastFlow, FlowConfig, Preset},
    evaluation::speed::{Speed, input_pattern, median, timed},
    features::{FeatureStore, FeatureWriter},
    training::{
        Adam, AdamConfig, DeviceAdam, DeviceFeatures, TrainConfig, batch_gradients, device_step,
    },
};
use serde::Serialize;

use super::{Outcome, common};

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
    #[arg(long, value_parser = common::names::<Preset>(), default_value = "paper")]
    preset: Preset,
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
    let config = FlowConfig::preset(args.preset, backbone.info().family, &shapes)?;
    let mut flow = FastFlow::init(&config, &shapes, 0, &device)?;
    let images = input_pattern(&input, usize::from(args.batch), &device)?;
    let features = backbone.features(&images)?;
    flow.fit_norm(&store(&features, 1)?)?;
    let (batch, repeat) = (usize::from(args.batch), usize::from(args.repeat));
    let scoring = TrainConfig::preset_scoring(args.preset, &input, shapes.len());
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
        let (step, gradients) = time_training(&flow, &features, batch, &device)?;
        timing.train_step_ms = Some(step);
        timing.train_gradients_ms = gradients;
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

/// Features of the batch's first image as a store of `copies` records.
fn store(features: &[Tensor], copies: usize) -> anyhow::Result<FeatureStore> {
    let maps = features
        .iter()
        .map(|map| Ok(map.narrow(0, 0, 1)?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let shapes = maps
        .iter()
        .map(|map| {
            let (_, channels, height, width) = map.dims4()?;
            Ok(candle_fastflow::kernels::FeatureShape {
                channels,
                height,
                width,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut writer = FeatureWriter::new(shapes, copies, u64::MAX, &std::env::temp_dir())?;
    for _ in 0..copies {
        writer.push(&maps)?;
    }
    Ok(writer.finish()?)
}

/// A training step, and on a GPU its forward and backward alone.
fn time_training(
    flow: &FastFlow,
    features: &[Tensor],
    batch: usize,
    device: &Device,
) -> anyhow::Result<(f64, Option<f64>)> {
    const STEPS: usize = 4;
    let store = store(features, batch)?;
    let records: Vec<usize> = (0..batch).collect();
    if !device.is_cpu() {
        let mut adam = DeviceAdam::new(flow.parameters(), AdamConfig::default(), device)?;
        let features = DeviceFeatures::new(&store, device)?;
        let step = steps(10 * STEPS, device, || {
            device_step(flow, &mut adam, &features, &records, None)
        })?;
        let maps = features.batch(&records)?;
        let gradients = steps(10 * STEPS, device, || {
            flow.device_loss_and_gradients(&maps).map(|_| ())
        })?;
        return Ok((step, Some(gradients)));
    }
    let mut adam = Adam::new(flow.parameters(), AdamConfig::default())?;
    let step = steps(STEPS, device, || {
        let gradients = batch_gradients(flow, &store, &records, device)?;
        adam.step(&gradients.values, 1.0 / batch as f32)
    })?;
    Ok((step, None))
}

/// The median of `count` steps, the first ones not counted.
fn steps(
    count: usize,
    device: &Device,
    mut step: impl FnMut() -> candle_fastflow::Result<()>,
) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(timed(device, &mut step)?.0);
    }
    Ok(median(times.split_off(count / 4)))
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
