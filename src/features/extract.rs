//! Decoding, resizing and the backbone over many images. On the CPU each worker takes whole images, so that reading
//! the next files overlaps with arithmetic; a GPU gets batches from one thread while the workers decode the next.

use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::store::{FeatureStore, FeatureWriter};
use crate::{
    Result,
    backbones::{Backbone, image_features, input_features, input_shapes},
    datasets::Sample,
    imaging::{Preprocessing, View},
};

/// One record to extract: an image seen through one augmentation.
#[derive(Debug, Clone)]
pub struct Job {
    /// The image.
    pub sample: Sample,
    /// The augmentation; the identity for an image as it is.
    pub view: View,
}

/// How features are extracted and where they may be kept.
pub struct Extraction<'a> {
    /// The frozen network.
    pub backbone: &'a dyn Backbone,
    /// How a photo becomes its input.
    pub preprocessing: &'a Preprocessing,
    /// The backbone's device.
    pub device: &'a Device,
    /// Bytes that may stay in memory; more goes to a mapped file.
    pub memory_limit: u64,
    /// Folder of that file.
    pub folder: &'a Path,
}

/// Images that a GPU gets at a time.
const GPU_BATCH: usize = 16;

/// Images in flight on the CPU: enough to keep every core busy, few enough to bound memory.
fn wave() -> usize {
    4 * rayon::current_num_threads()
}

/// Features of every job, in order. `progress` hears (done, total).
///
/// # Errors
/// The first image that cannot be read, in order; a full disk.
pub fn extract(
    settings: &Extraction<'_>,
    jobs: &[Job],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<FeatureStore> {
    let shapes = input_shapes(settings.backbone, settings.preprocessing)?;
    let mut writer =
        FeatureWriter::new(shapes, jobs.len(), settings.memory_limit, settings.folder)?;
    let mut done = 0;
    let mut keep = |records: Vec<Result<Vec<Tensor>>>| -> Result<()> {
        done += records.len();
        for record in records {
            writer.push(&record?)?;
        }
        progress(done, jobs.len());
        Ok(())
    };
    match settings.device {
        Device::Cpu => jobs
            .chunks(wave())
            .try_for_each(|chunk| keep(settings.on_cores(chunk)))?,
        _ => settings.on_gpu(jobs, keep)?,
    }
    writer.finish()
}

impl Extraction<'_> {
    fn on_cores(&self, jobs: &[Job]) -> Vec<Result<Vec<Tensor>>> {
        let one = |job: &Job| {
            let image = job.view.apply(&job.sample.read()?);
            image_features(self.backbone, self.preprocessing, self.device, &image)
        };
        jobs.par_iter().map(one).collect()
    }

    /// Hands the features of batch after batch to `keep`.
    fn on_gpu(
        &self,
        jobs: &[Job],
        mut keep: impl FnMut(Vec<Result<Vec<Tensor>>>) -> Result<()>,
    ) -> Result<()> {
        let mut batches = jobs.chunks(GPU_BATCH);
        let mut inputs = self.inputs(batches.next().unwrap_or(&[]));
        while !inputs.is_empty() {
            let next = batches.next().unwrap_or(&[]);
            let (records, decoded) = std::thread::scope(|scope| {
                let decoding = scope.spawn(|| self.inputs(next));
                (self.batch(inputs), decoding.join())
            });
            keep(records?.into_iter().map(Ok).collect())?;
            inputs = decoded.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Ok(())
    }

    /// Decoded and preprocessed, still on the CPU.
    fn inputs(&self, jobs: &[Job]) -> Vec<Result<Vec<Tensor>>> {
        let one = |job: &Job| {
            let image = job.view.apply(&job.sample.read()?);
            self.preprocessing.to_tensors(&image, &Device::Cpu)
        };
        jobs.par_iter().map(one).collect()
    }

    /// The features of these inputs, image by image on the CPU again.
    fn batch(&self, inputs: Vec<Result<Vec<Tensor>>>) -> Result<Vec<Vec<Tensor>>> {
        let inputs = inputs.into_iter().collect::<Result<Vec<_>>>()?;
        let stacked = (0..inputs.first().map_or(0, Vec::len)).map(|size| {
            let of_size: Vec<&Tensor> = inputs.iter().map(|image| &image[size]).collect();
            Ok(Tensor::cat(&of_size, 0)?.to_device(self.device)?)
        });
        let stacked = stacked.collect::<Result<Vec<_>>>()?;
        let maps = input_features(self.backbone, &stacked)?;
        let maps = maps.iter().map(|map| Ok(map.to_device(&Device::Cpu)?));
        let maps = maps.collect::<Result<Vec<_>>>()?;
        let image = |image| {
            let maps = maps.iter().map(|map| Ok(map.narrow(0, image, 1)?));
            maps.collect::<Result<Vec<_>>>()
        };
        (0..inputs.len()).map(image).collect()
    }
}
