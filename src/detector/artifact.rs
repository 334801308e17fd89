//! The folder a detector lives in: `config.json`, `model.safetensors`, `README.md`.

use std::path::{Path, PathBuf};

use candle_core::Device;

use super::{BackboneRecord, Detector, DetectorConfig};
use crate::{Error, Result, backbones, digest::sha256_file, estimators::Estimator, files, tensors};

/// The description, read first.
pub const CONFIG_FILE: &str = "config.json";
/// The estimator's tensors; never the backbone's.
pub const MODEL_FILE: &str = "model.safetensors";

/// Where the backbone's weights come from and where the detector computes.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The file with the backbone's weights; none for a backbone without, or where they are to be looked for.
    pub backbone_weights: Option<PathBuf>,
    /// Where to compute.
    pub device: Device,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            backbone_weights: None,
            device: Device::Cpu,
        }
    }
}

impl Detector {
    /// Loads a detector from its folder, its backbone's weights from the file that `options` name: nothing is
    /// looked for elsewhere ([`Detector::from_pretrained`] does that).
    ///
    /// Weights of the same `arch.tag` but another hash than the recorded one load with a warning.
    ///
    /// # Errors
    /// Missing or damaged files, naming the file and the field or tensor.
    pub fn load(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let config = read_config(folder)?;
        if let (Some(path), Some(_)) = (&options.backbone_weights, &config.backbone.sha256) {
            warn_of_other_weights(&config.backbone, path, &sha256_file(path)?);
        }
        Self::load_config(folder, config, options)
    }

    /// [`Detector::load`] with the folder's config at hand, and weights whose hash has been looked at.
    pub(crate) fn load_config(
        folder: &Path,
        config: DetectorConfig,
        options: &LoadOptions,
    ) -> Result<Self> {
        let (record, device) = (&config.backbone, &options.device);
        let weights = options.backbone_weights.as_deref();
        let backbone = backbones::load_with(&record.id, record.taps.as_ref(), weights, device)?;
        let estimator = load_estimator(folder, &config, device)?;
        Detector::new(config, backbone, estimator, device.clone())
    }

    /// Writes `config.json` and `model.safetensors` into `folder`, each whole or not at all; the
    /// config last, so that a folder with a config is complete.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        tensors::write(&folder.join(MODEL_FILE), &self.estimator().tensors()?, None)?;
        files::write_json(folder.join(CONFIG_FILE), self.config())
    }
}

/// The config of the detector in `folder`.
///
/// # Errors
/// When `folder` is not a detector's, or its config is out of range.
pub fn read_config(folder: &Path) -> Result<DetectorConfig> {
    let path = folder.join(CONFIG_FILE);
    if !path.is_file() {
        return Err(Error::Config {
            path: folder.to_path_buf(),
            reason: format!(
                "not a detector's folder (no {CONFIG_FILE}); `fastflow train` makes one"
            ),
        });
    }
    DetectorConfig::read(&path)
}

/// Says so where the file at `path`, whose SHA-256 is `found`, is not the recorded one.
pub(crate) fn warn_of_other_weights(record: &BackboneRecord, path: &Path, found: &str) {
    if let Some(notice) = other_weights(record, path, found) {
        tracing::warn!("{notice}");
    }
}

/// What to say where the weights at `path`, whose SHA-256 is `found`, are not those of `record`.
pub(crate) fn other_weights(record: &BackboneRecord, path: &Path, found: &str) -> Option<String> {
    let recorded = record.sha256.as_deref()?;
    (recorded != found).then(|| {
        format!(
            "{}: not the weights that the detector was trained on (SHA-256 differs); scores may be off",
            path.display()
        )
    })
}

fn load_estimator(
    folder: &Path,
    config: &DetectorConfig,
    device: &Device,
) -> Result<Box<dyn Estimator>> {
    let path = folder.join(MODEL_FILE);
    let (tensors, _) = tensors::read(&path)?;
    let estimator = &config.estimator;
    estimator
        .load(&config.feature_shapes, tensors, device)
        .map_err(|e| Error::Config {
            path,
            reason: e.to_string(),
        })
}
