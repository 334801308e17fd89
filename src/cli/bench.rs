//! `fastflow bench`: medians on this machine, with the columns of the paper's table 1.

use std::path::PathBuf;

use anyhow::bail;
use candle_fastflow::{
    backbones::{Taps, input_features},
    estimators::{
        Method,
        flow::{Activations, Preset},
    },
    speed::{Fitted, Speed, Subject, TrainingSpeed, input_pattern},
    training::Settings,
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
    /// What models normal features; FastFlow by default
    #[arg(long, value_parser = common::names::<Method>())]
    method: Option<Method>,
    /// Where features leave the backbone, for example 2,3; the method's by default
    #[arg(long, value_name = "N,N,...")]
    taps: Option<Taps>,
    /// The flow's settings
    #[arg(long, value_enum, hide_possible_values = true)]
    preset: Option<Preset>,
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
    method: Method,
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
    let settings = Settings {
        method: Some(args.method.unwrap_or_default()),
        preset: args.preset,
        taps: args.taps.clone(),
        ..Settings::default()
    };
    let weights = args.backbone_weights.as_deref();
    let subject = Subject::new(&settings, &args.backbone, weights, &device)?;
    let (batch, repeat) = (usize::from(args.batch), usize::from(args.repeat));
    let speed = subject.speed(batch, repeat, &device)?;
    let mut timing = Timing {
        backbone_id: subject.backbone.info().id.clone(),
        method: args.method.unwrap_or_default(),
        weights: subject.weights,
        device: if device.is_cpu() { "cpu" } else { "cuda" },
        speed,
        train_step_ms: None,
        train_gradients_ms: None,
        train_batch: None,
    };
    if args.train {
        let images = input_pattern(&subject.config.preprocessing, 1, &device)?;
        let features = input_features(subject.backbone.as_ref(), &images)?;
        let Fitted::Trained(mut model) = subject.fitted else {
            bail!(
                "{} has no training steps to time",
                args.method.unwrap_or_default()
            );
        };
        let batch = if args.batch == 1 {
            TRAIN_BATCH
        } else {
            usize::from(args.batch)
        };
        if args.rebuild_activations {
            model.set_activations(Activations::Rebuild);
        }
        let training = TrainingSpeed::measure(model.as_ref(), &features, batch, &device)?;
        timing.train_step_ms = Some(training.step);
        timing.train_gradients_ms = training.gradients;
        timing.train_batch = Some(batch);
    }
    show(&timing, args.json)?;
    Ok(Outcome::Done)
}

fn show(timing: &Timing, json: bool) -> anyhow::Result<()> {
    if json {
        return common::print_line(serde_json::to_string(timing)?);
    }
    let t = &timing.speed;
    common::print_line(format!(
        "{} ({} weights), {}, {} threads on {}, batch {}, medians in ms a batch",
        timing.backbone_id, timing.weights, timing.method, t.threads, timing.device, t.batch
    ))?;
    for (name, ms) in [
        ("preprocess", t.preprocess),
        ("backbone", t.backbone),
        (timing.method.word(), t.estimator),
        ("map", t.map),
        ("whole", t.whole),
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
