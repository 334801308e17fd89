//! The folder a detector lives in: `config.json`, `model.safetensors`, `README.md`.

use std::path::{Path, PathBuf};

use candle_core::Device;

use super::{BackboneRecord, Detector, DetectorConfig};
use crate::{
    Advice, Error, Result, backbones, digest::sha256_file, estimators::Estimator, files, tensors,
};

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
            reason: format!("not a detector's folder (no {CONFIG_FILE})"),
        }
        .advise(Advice::Train));
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
        .map_err(|error| match error {
            // Of the GPU, not of the file.
            Error::GpuMemory(_) => error,
            error => Error::Config {
                path,
                reason: error.to_string(),
            },
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use candle_core::Tensor;

    use super::*;
    use crate::backbones::{Backbone, Taps};
    use crate::detector::{BackboneRecord, SCHEMA_VERSION};
    use crate::estimators::flow::{FastFlow, FlowConfig, Preset};
    use crate::estimators::{EstimatorConfig, ImageScore, MapKind, Scoring};

    /// A ResNet18's weights up to stage 1, nothing else.
    fn write_first_stage(path: &Path) {
        let mut tensors = BTreeMap::new();
        let mut conv = |conv: &str, norm: &str, shape: [usize; 4]| {
            let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32).sin() / 9.0);
            let weight = Tensor::from_iter(values, &Device::Cpu).unwrap();
            tensors.insert(format!("{conv}.weight"), weight.reshape(&shape).unwrap());
            for part in ["weight", "bias", "running_mean", "running_var"] {
                let part = format!("{norm}.{part}");
                tensors.insert(part, Tensor::full(0.5f32, shape[0], &Device::Cpu).unwrap());
            }
        };
        conv("conv1", "bn1", [64, 3, 7, 7]);
        for (block, index) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
            let name = |kind: &str| format!("layer1.{block}.{kind}{index}");
            conv(&name("conv"), &name("bn"), [64, 64, 3, 3]);
        }
        crate::tensors::write(path, &tensors, None).unwrap();
    }

    fn untrained(backbone: Box<dyn Backbone>) -> Detector {
        let info = backbone.info().clone();
        let preprocessing = crate::imaging::Preprocessing::imagenet(32);
        let shapes = backbone.shapes(32, 32).unwrap();
        let flow_config = FlowConfig::preset(Preset::Paper, info.family, &shapes).unwrap();
        let flow = FastFlow::init(&flow_config, &shapes, 0, &Device::Cpu).unwrap();
        let config = DetectorConfig {
            schema_version: SCHEMA_VERSION,
            name: "untrained".into(),
            backbone: BackboneRecord {
                taps: info.chosen_taps(),
                ..BackboneRecord::embedded(&info.id)
            },
            preprocessing,
            feature_shapes: shapes,
            estimator: EstimatorConfig::FastFlow(flow_config),
            scoring: Scoring {
                image_map: MapKind::Nll,
                pixel_map: MapKind::Nll,
                image_score: ImageScore::Max,
                standardise_scales: false,
                image_weights: None,
                smoothing: None,
            },
            calibration: None,
            training: None,
            metrics: BTreeMap::new(),
            fixture_score: None,
            licence: None,
            notes: None,
        };
        Detector::new(config, backbone, Box::new(flow), Device::Cpu).unwrap()
    }

    #[test]
    fn a_detector_comes_back_with_its_taps() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("first-stage.safetensors");
        write_first_stage(&weights);
        let taps: Taps = "1".parse().unwrap();
        let open = |taps| backbones::load_with("resnet18", taps, Some(&weights), &Device::Cpu);
        let made = untrained(open(Some(&taps)).unwrap());
        made.save(folder.path()).unwrap();
        let options = LoadOptions {
            backbone_weights: Some(weights.clone()),
            ..LoadOptions::default()
        };
        // The file ends where the tap is: the default taps could not be loaded from it.
        assert!(open(None).is_err());
        let loaded = Detector::load(folder.path(), &options).unwrap();
        assert_eq!(loaded.config(), made.config());
        let photo = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 5, y as u8, 9]));
        let score = |detector: &Detector| detector.predict(&photo).unwrap().score;
        assert_eq!(score(&loaded), score(&made));

        let path = folder.path().join(CONFIG_FILE);
        let written = std::fs::read_to_string(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(config["backbone"]["taps"], serde_json::json!([1]));
        for (taps, told) in [
            (serde_json::json!([9]), "no tap 9: there are 1 to 4"),
            (serde_json::json!([2, 1]), "taps `2,1`"),
            (serde_json::json!([]), "taps ``"),
        ] {
            config["backbone"]["taps"] = taps;
            std::fs::write(&path, config.to_string()).unwrap();
            let error = read_config(folder.path()).unwrap_err().to_string();
            assert!(
                error.contains(told) && error.contains(CONFIG_FILE),
                "{error}"
            );
        }
    }

    #[test]
    fn the_default_taps_are_not_written() {
        let backbone = backbones::load("wavelet", None, &Device::Cpu).unwrap();
        let config = untrained(backbone).config().clone();
        assert_eq!(config.backbone.taps, None);
        let json = serde_json::to_value(&config).unwrap();
        assert!(json["backbone"].get("taps").is_none());
    }
}
