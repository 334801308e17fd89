//! The folder a detector lives in: `config.json`, `model.safetensors`, `README.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, safetensors::Load};
use safetensors::SafeTensors;

use super::{Detector, DetectorConfig, weights};
use crate::{Advice, Error, Result, backbones, estimators::Estimator, files, mapped};

/// The description, read first.
pub const CONFIG_FILE: &str = "config.json";
/// The estimator's tensors; never the backbone's.
pub const MODEL_FILE: &str = "model.safetensors";

/// Where the parts come from and where the detector computes.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The backbone's weights; by default looked for in the folder that `FASTFLOW_BACKBONES` names.
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
    /// Loads a detector from its folder.
    ///
    /// Weights of the same `arch.tag` but another hash than the recorded one load with a warning.
    ///
    /// # Errors
    /// Missing or damaged files, naming the file and the field or tensor.
    pub fn load(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let config = read_config(folder)?;
        let backbone = load_backbone(&config, options)?;
        let estimator = load_estimator(folder, &config, &options.device)?;
        Detector::new(config, backbone, estimator, options.device.clone())
    }

    /// Writes `config.json` and `model.safetensors` into `folder`, each whole or not at all; the
    /// config last, so that a folder with a config is complete.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        write_tensors(&folder.join(MODEL_FILE), &self.estimator().tensors()?, None)?;
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
            reason: format!("not a detector's folder (no {CONFIG_FILE})"),
        }
        .advise(Advice::Train));
    }
    DetectorConfig::read(&path)
}

fn load_backbone(
    config: &DetectorConfig,
    options: &LoadOptions,
) -> Result<Box<dyn backbones::Backbone>> {
    let id = &config.backbone.id;
    let path = options
        .backbone_weights
        .clone()
        .or_else(|| weights::locate(id));
    if let (Some(path), Some(recorded)) = (&path, &config.backbone.sha256)
        && weights::hash_file(path)? != *recorded
    {
        tracing::warn!(
            "{}: not the weights that the detector was trained on (SHA-256 differs); scores may be off",
            path.display()
        );
    }
    let taps = config.backbone.taps.as_ref();
    backbones::load_with(id, taps, path.as_deref(), &options.device)
}

fn load_estimator(
    folder: &Path,
    config: &DetectorConfig,
    device: &Device,
) -> Result<Box<dyn Estimator>> {
    let path = folder.join(MODEL_FILE);
    let (tensors, _) = read_tensors(&path)?;
    let estimator = &config.estimator;
    estimator
        .load(&config.feature_shapes, tensors, device)
        .map_err(|e| Error::Config {
            path,
            reason: e.to_string(),
        })
}

/// All tensors of a safetensors file, on the CPU, and its metadata.
///
/// # Errors
/// A missing, truncated or foreign file.
pub fn read_tensors(
    path: &Path,
) -> Result<(
    BTreeMap<String, Tensor>,
    std::collections::HashMap<String, String>,
)> {
    let fail = |reason: String| Error::Config {
        path: path.to_path_buf(),
        reason,
    };
    let bytes = mapped::map(path)?;
    let not_ours = |e| fail(format!("not a whole safetensors file: {e}"));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(not_ours)?;
    let file = SafeTensors::deserialize(&bytes).map_err(not_ours)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let tensor = view.load(&Device::Cpu).map_err(|e| Error::Tensor {
            path: path.to_path_buf(),
            tensor: name.to_string(),
            reason: e.to_string(),
        })?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// Writes a safetensors file whole or not at all, tensors in name order.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: Option<std::collections::HashMap<String, String>>,
) -> Result<()> {
    let bytes = safetensors::serialize(tensors, metadata).map_err(|e| Error::Config {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    files::write_bytes(path, &bytes)
}
