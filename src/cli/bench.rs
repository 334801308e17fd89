//! `fastflow bench`: medians on this machine, with the columns of the paper's table 1.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Tensor};
use candle_fastflow::{
    backbones::{self, Backbone},
    features::{FeatureStore, FeatureWriter},
    flow::{FastFlow, FeatureNorm, FlowConfig, Latent, MapKind, anomaly_map},
    imaging::Preprocessing,
    training::{Adam, AdamConfig, batch_gradients},
};
use image::{Rgb, RgbImage};
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
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: common::Compute,
}

/// Medians in milliseconds a batch.
#[derive(Serialize)]
struct Timing {
    backbone_id: String,
    weights: &'static str,
    device: String,
    threads: usize,
    batch: usize,
    preprocess: f64,
    backbone: f64,
    flow: f64,
    map: f64,
    /// Backbone, flow and map; decoding and preprocessing left out.
    whole: f64,
    /// Images a second at `whole`.
    fps: f64,
    /// What the flow and its map add to the backbone, an image.
    additional_ms: f64,
    additional_params: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_step_ms: Option<f64>,
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
    let config = FlowConfig::preset(args.preset.into(), &backbone.info().id, &shapes)?;
    let mut flow = FastFlow::init(&config, &shapes, 0, &device)?;
    let images = pattern(&input, usize::from(args.batch), &device)?;
    let features = backbone.features(&images)?;
    if config.norm == FeatureNorm::Standardise {
        flow.set_statistics(store(&features, 1)?.channel_statistics())?;
    }
    let mut timing = time_inference(&args, backbone.as_ref(), &flow, &images)?;
    timing.weights = weights;
    timing.device = if device.is_cpu() {
        "cpu".into()
    } else {
        "cuda".into()
    };
    if args.train {
        let batch = if args.batch == 1 {
            TRAIN_BATCH
        } else {
            usize::from(args.batch)
        };
        timing.train_step_ms = Some(time_training(&flow, &features, batch, &device)?);
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

fn pattern(input: &Preprocessing, batch: usize, device: &Device) -> anyhow::Result<Tensor> {
    let image = pattern_image(input);
    let one = input.to_tensor(&image, device)?;
    Ok(Tensor::cat(&vec![one; batch], 0)?)
}

fn pattern_image(input: &Preprocessing) -> RgbImage {
    let (width, height) = (2 * input.width as u32, 2 * input.height as u32);
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 3) as u8, (y * 5) as u8, (x ^ y) as u8])
    })
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

fn time_inference(
    args: &Args,
    backbone: &dyn Backbone,
    flow: &FastFlow,
    images: &Tensor,
) -> anyhow::Result<Timing> {
    let input = &backbone.info().preprocessing;
    let size = (input.height, input.width);
    let batch = usize::from(args.batch);
    let photo = pattern_image(input);
    let device = images.device();
    let (mut times, mut whole) = ([const { Vec::new() }; 4], Vec::new());
    // The first round warms caches and is not counted.
    for round in 0..=args.repeat {
        let (preprocess, _) = timed(device, || Ok(input.to_tensor(&photo, device)?))?;
        let (backbone_ms, features) = timed(device, || Ok(backbone.features(images)?))?;
        let (flow_ms, latents) = timed(device, || Ok(flow.forward(&features)?))?;
        let (map_ms, _) = timed(device, || map(&latents, size))?;
        let (whole_ms, _) = timed(device, || {
            map(&flow.forward(&backbone.features(images)?)?, size)
        })?;
        if round > 0 {
            for (all, one) in
                times
                    .iter_mut()
                    .zip([preprocess * batch as f64, backbone_ms, flow_ms, map_ms])
            {
                all.push(one);
            }
            whole.push(whole_ms);
        }
    }
    let [preprocess, backbone_ms, flow_ms, map_ms] = times.map(median);
    let whole = median(whole);
    Ok(Timing {
        backbone_id: backbone.info().id.clone(),
        weights: "",
        device: String::new(),
        threads: rayon::current_num_threads(),
        batch,
        preprocess,
        backbone: backbone_ms,
        flow: flow_ms,
        map: map_ms,
        whole,
        fps: 1e3 * batch as f64 / whole,
        additional_ms: (whole - backbone_ms) / batch as f64,
        additional_params: flow.parameter_count(),
        train_step_ms: None,
        train_batch: None,
    })
}

fn map(latents: &[Latent], size: (usize, usize)) -> anyhow::Result<Tensor> {
    Ok(anomaly_map(latents, MapKind::Prob, size)?)
}

fn time_training(
    flow: &FastFlow,
    features: &[Tensor],
    batch: usize,
    device: &Device,
) -> anyhow::Result<f64> {
    const STEPS: usize = 4;
    let store = store(features, batch)?;
    let records: Vec<usize> = (0..batch).collect();
    let mut adam = Adam::new(flow.parameters(), AdamConfig::default())?;
    let mut times = Vec::new();
    for step in 0..STEPS {
        let (ms, ()) = timed(device, || {
            let gradients = batch_gradients(flow, &store, &records, device)?;
            Ok(adam.step(&gradients.values, 1.0 / batch as f32)?)
        })?;
        if step > 0 {
            times.push(ms);
        }
    }
    Ok(median(times))
}

/// Milliseconds until the device is done.
fn timed<T>(device: &Device, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let started = Instant::now();
    let result = work()?;
    device.synchronize()?;
    Ok((started.elapsed().as_secs_f64() * 1e3, result))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

fn show(timing: &Timing, json: bool) -> anyhow::Result<()> {
    if json {
        return common::print_line(serde_json::to_string(timing)?);
    }
    let t = timing;
    common::print_line(format!(
        "{} ({} weights), {} threads on {}, batch {}, medians in ms a batch",
        t.backbone_id, t.weights, t.threads, t.device, t.batch
    ))?;
    for (name, ms) in [
        ("preprocess", t.preprocess),
        ("backbone", t.backbone),
        ("flow", t.flow),
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
    if let (Some(ms), Some(batch)) = (t.train_step_ms, t.train_batch) {
        common::print_line(format!("training step, batch {batch:<7} {ms:>9.0}"))?;
    }
    Ok(())
}
