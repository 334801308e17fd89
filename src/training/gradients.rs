//! Gradients of one batch, spread over the cores without the result depending on how many there are.
//!
//! A batch is cut into a fixed number of lanes; a lane's images go through forward and backward
//! together on one worker, whose activations are all that is alive, so memory is bounded at any
//! batch size. Lanes are added up in their order: the sum is the same to the bit on any machine
//! with the same instruction set.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::device::{DeviceFeatures, EVALUATION_BATCH};
use crate::{
    Result,
    estimators::{FeatureSource, Trainable},
};

/// Lanes of a batch. More lanes keep more cores busy and cost one gradient buffer a running lane.
const LANES: usize = 8;

/// Sums over the images of a batch.
pub struct Gradients {
    /// Sum of the images' negative log-likelihoods (constant left out).
    pub loss: f64,
    /// Flat gradients in the order of [`Trainable::parameters`].
    pub values: Vec<Vec<f32>>,
}

impl Gradients {
    /// Euclidean norm over all parameters.
    pub fn norm(&self) -> f64 {
        let squares = |values: &Vec<f32>| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let parts: Vec<f64> = self.values.par_iter().map(squares).collect();
        parts.iter().sum::<f64>().sqrt()
    }

    fn add(&mut self, other: Gradients) {
        self.loss += other.loss;
        self.values
            .par_iter_mut()
            .zip(other.values)
            .for_each(|(sum, part)| {
                sum.iter_mut()
                    .zip(part)
                    .for_each(|(sum, part)| *sum += part);
            });
    }
}

/// Loss and gradients summed over `records` of the store.
///
/// # Errors
/// When the tensor library fails.
pub fn batch_gradients(
    model: &dyn Trainable,
    store: &dyn FeatureSource,
    records: &[usize],
    device: &Device,
) -> Result<Gradients> {
    if !device.is_cpu() {
        return micro_batch(model, store, records, device);
    }
    let lanes: Vec<&[usize]> = records
        .chunks(records.len().div_ceil(LANES).max(least_images(model)))
        .collect();
    let mut total: Option<Gradients> = None;
    for wave in lanes.chunks(rayon::current_num_threads()) {
        let parts: Vec<Result<Gradients>> = wave
            .par_iter()
            .map(|lane| lane_gradients(model, store, lane, device))
            .collect();
        for part in parts {
            let part = part?;
            match &mut total {
                Some(total) => total.add(part),
                None => total = Some(part),
            }
        }
    }
    Ok(total.unwrap_or(Gradients {
        loss: 0.0,
        values: Vec::new(),
    }))
}

/// Fewest images of a lane: each lane transforms the weights for itself and sums gradients of its own, which a few images
/// do not repay.
fn least_images(model: &dyn Trainable) -> usize {
    (model.images_at_once() / 2).max(1)
}

fn lane_gradients(
    model: &dyn Trainable,
    store: &dyn FeatureSource,
    lane: &[usize],
    device: &Device,
) -> Result<Gradients> {
    let mut parts = lane.chunks(model.images_at_once());
    let first = parts.next().unwrap_or(&[]);
    let mut total = micro_batch(model, store, first, device)?;
    for part in parts {
        total.add(micro_batch(model, store, part, device)?);
    }
    Ok(total)
}

fn micro_batch(
    model: &dyn Trainable,
    store: &dyn FeatureSource,
    records: &[usize],
    device: &Device,
) -> Result<Gradients> {
    let (loss, gradients) = model.loss_and_gradients(&store.batch(records, device)?)?;
    let loss = loss.to_scalar::<f64>()?;
    let flat = |g: Tensor| Ok(g.flatten_all()?.to_vec1::<f32>()?);
    let values = gradients.into_iter().map(flat).collect::<Result<_>>()?;
    Ok(Gradients { loss, values })
}

/// Mean over all records of the negative log-likelihood a feature value, in nats, with its constant.
///
/// # Errors
/// When the tensor library fails.
pub fn mean_nll(model: &dyn Trainable, features: &DeviceFeatures<'_>) -> Result<f64> {
    let store = features.store();
    let each = match features.device() {
        Device::Cpu => nll_on_cores(model, features)?,
        _ => nll_in_batches(model, features)?,
    };
    let sum: f64 = each.iter().map(|&nll| f64::from(nll)).sum();
    Ok(per_value(sum / store.len().max(1) as f64, model))
}

fn nll_on_cores(model: &dyn Trainable, features: &DeviceFeatures<'_>) -> Result<Vec<f32>> {
    let one = |record| Ok(model.nll(&features.batch(&[record])?)?.to_vec1::<f32>()?);
    let each = (0..features.store().len()).into_par_iter().map(one);
    Ok(each.collect::<Result<Vec<_>>>()?.concat())
}

/// On a GPU: one thread queues everything, and the values are read back once.
fn nll_in_batches(model: &dyn Trainable, features: &DeviceFeatures<'_>) -> Result<Vec<f32>> {
    let records: Vec<usize> = (0..features.store().len()).collect();
    let batches = records.chunks(EVALUATION_BATCH);
    let parts = batches.map(|batch| model.nll(&features.batch(batch)?));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    match parts.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(Tensor::cat(&parts, 0)?.to_vec1::<f32>()?),
    }
}

/// An image's negative log-likelihood (constant left out) as nats a feature value, constant included.
pub fn per_value(nll: f64, model: &dyn Trainable) -> f64 {
    nll / model.values() as f64 + 0.5 * (2.0 * std::f64::consts::PI).ln()
}
