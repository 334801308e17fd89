//! Benchmarks: how fast a detector and its training are on this machine. An inspection's columns are those of the paper's
//! table 1, "additional" meaning beside the backbone.

mod subject;
mod training;

use std::time::Instant;

use candle_core::{Device, Tensor};
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

pub use subject::{Fitted, Subject};
pub use training::{TrainingSpeed, feature_store};

use crate::{
    Result,
    backbones::{Backbone, input_features},
    estimators::{Estimator, Scoring},
    imaging::Preprocessing,
};

/// Medians in milliseconds a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Worker threads.
    pub threads: usize,
    /// Images at a time.
    pub batch: usize,
    /// Resizing and normalising photos of twice the input's sides.
    pub preprocess: f64,
    /// The frozen network.
    pub backbone: f64,
    /// The estimator (of FastFlow, whose word it is in JSON, all chains of the flow).
    #[serde(rename = "flow")]
    pub estimator: f64,
    /// Maps of all scales at the input's size, and the image scores.
    pub map: f64,
    /// Backbone, estimator and map; decoding and preprocessing left out.
    pub whole: f64,
    /// Images a second at `whole`.
    pub fps: f64,
    /// What the estimator and its map add to the backbone, an image.
    pub additional_ms: f64,
    /// Trainable parameters of the estimator.
    pub additional_params: usize,
}

impl Speed {
    /// Medians over `repeat` rounds of `batch` images, after one that is not counted.
    ///
    /// # Errors
    /// When backbone and estimator do not fit.
    pub fn measure(
        backbone: &dyn Backbone,
        estimator: &dyn Estimator,
        scoring: &Scoring,
        input: &Preprocessing,
        batch: usize,
        repeat: usize,
        device: &Device,
    ) -> Result<Self> {
        let photo = photo(input);
        let images = input_pattern(input, batch, device)?;
        let size = (input.height, input.width);
        let (mut times, mut whole) = ([const { Vec::new() }; 4], Vec::new());
        // The first round warms caches.
        for round in 0..=repeat {
            let (preprocess, _) = timed(device, || input.to_tensors(&photo, device))?;
            let (backbone_ms, features) = timed(device, || input_features(backbone, &images))?;
            let estimator_ms = time_estimator(estimator, &features, scoring, device)?;
            let inspect = |features: &[Tensor]| estimator.inspect(features, scoring, None, size);
            let (inspected, _) = timed(device, || inspect(&features))?;
            let (all, _) = timed(device, || inspect(&input_features(backbone, &images)?))?;
            if round > 0 {
                let map_ms = (inspected - estimator_ms).max(0.0);
                let round = [preprocess * batch as f64, backbone_ms, estimator_ms, map_ms];
                times
                    .iter_mut()
                    .zip(round)
                    .for_each(|(all, ms)| all.push(ms));
                whole.push(all);
            }
        }
        let [preprocess, backbone, estimator_ms, map] = times.map(median);
        let whole = median(whole);
        Ok(Self {
            threads: rayon::current_num_threads(),
            batch,
            preprocess,
            backbone,
            estimator: estimator_ms,
            map,
            whole,
            fps: 1e3 * batch as f64 / whole,
            additional_ms: (whole - backbone) / batch as f64,
            additional_params: estimator.parameter_count(),
        })
    }
}

/// What comes before the maps are put together.
fn time_estimator(
    estimator: &dyn Estimator,
    features: &[Tensor],
    scoring: &Scoring,
    device: &Device,
) -> Result<f64> {
    let (ms, ()) = timed(device, || match estimator.as_flow() {
        Some(flow) => flow.forward(features).map(|_| ()),
        None => estimator.native_maps(features, scoring).map(|_| ()),
    })?;
    Ok(ms)
}

/// A batch of every input, made by a formula: what is on a picture does not change the speed.
///
/// # Errors
/// When the input's size makes no sense.
pub fn input_pattern(input: &Preprocessing, batch: usize, device: &Device) -> Result<Vec<Tensor>> {
    let one = input.to_tensors(&photo(input), device)?.into_iter();
    one.map(|one| Ok(Tensor::cat(&vec![one; batch], 0)?))
        .collect()
}

fn photo(input: &Preprocessing) -> RgbImage {
    let (width, height) = (2 * input.width as u32, 2 * input.height as u32);
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 3) as u8, (y * 5) as u8, (x ^ y) as u8])
    })
}

/// Milliseconds until the device is done.
///
/// # Errors
/// What `work` returns.
pub fn timed<T>(device: &Device, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let started = Instant::now();
    let result = work()?;
    device.synchronize()?;
    Ok((started.elapsed().as_secs_f64() * 1e3, result))
}

/// NaN of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}
