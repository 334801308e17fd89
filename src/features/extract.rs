//! Decoding, resizing and the backbone over many images, one image a worker so that reading the
//! next files overlaps with arithmetic.

use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::store::{FeatureStore, FeatureWriter};
use crate::{
    Result,
    backbones::{Backbone, image_features},
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

/// Images in flight: enough to keep every core busy, few enough to bound memory.
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
    let preprocessing = settings.preprocessing;
    let shapes = settings
        .backbone
        .shapes(preprocessing.height, preprocessing.width)?;
    let mut writer =
        FeatureWriter::new(shapes, jobs.len(), settings.memory_limit, settings.folder)?;
    let mut done = 0;
    for chunk in jobs.chunks(wave()) {
        let maps: Vec<Result<Vec<Tensor>>> = chunk
            .par_iter()
            .map(|job| {
                let image = job.view.apply(&job.sample.read()?);
                image_features(settings.backbone, preprocessing, settings.device, &image)
            })
            .collect();
        for record in maps {
            writer.push(&record?)?;
        }
        done += chunk.len();
        progress(done, jobs.len());
    }
    writer.finish()
}
