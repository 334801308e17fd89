//! What a cell leaves beside its detector: figures, and the inputs that they came from.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    detector::{BackboneRecord, CONFIG_FILE},
    estimators::EstimatorConfig,
    files,
    speed::Speed,
    training::Settings,
};

/// 2: `rotation` in degrees. 3: any estimator.
const SCHEMA_VERSION: u32 = 3;

/// The result file of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellResult {
    schema_version: u32,
    /// What the detector came from.
    pub inputs: Inputs,
    /// The estimator as it was.
    pub estimator: EstimatorConfig,
    /// The epoch that the stopping rule kept, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kept_epoch: Option<usize>,
    /// Figures of the cell's own variant and of those that only score, by their names.
    pub scores: BTreeMap<String, Scored>,
    /// On the machine that ran the cell, beside whatever else it did.
    pub speed: Speed,
    /// Seconds of the fit; of a method with epochs theirs, over all sessions of an interrupted training.
    pub seconds: f64,
}

/// All that a cell's detector depends on, its name, and where its backbone's weights were found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The plan's data set.
    pub dataset: String,
    /// The category.
    pub category: String,
    /// The detector's name.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// The settings, defaults too.
    pub settings: Settings,
    /// Of the images, masks and their roles.
    pub data_hash: String,
    /// The weights.
    pub backbone: BackboneRecord,
    /// Version of the program.
    pub program: String,
}

/// A detector's figures, scored one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scored {
    /// How it was scored and measured.
    pub settings: Settings,
    /// By the names that `eval --json` prints.
    pub metrics: BTreeMap<String, f64>,
}

impl CellResult {
    pub(super) fn new(inputs: Inputs, estimator: EstimatorConfig, speed: Speed) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            inputs,
            estimator,
            kept_epoch: None,
            scores: BTreeMap::new(),
            speed,
            seconds: 0.0,
        }
    }

    /// The result in a file; none where there is no file, or one that another version wrote (its cell is run
    /// again).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path)(e)),
        };
        let result = serde_json::from_str(&text).ok();
        Ok(result.filter(|result: &Self| result.schema_version == SCHEMA_VERSION))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        files::write_json(path, self)
    }

    /// Whether `detector` is what these inputs make, as far as can be told without computing anything.
    pub(super) fn stands(&self, inputs: &Inputs, detector: &Path) -> bool {
        self.inputs.make_the_same(inputs) && detector.join(CONFIG_FILE).is_file()
    }
}

impl Inputs {
    /// Whether both make the same detector: neither its name nor the way by which the same weights were found
    /// changes a number in it.
    pub(super) fn make_the_same(&self, other: &Self) -> bool {
        let matters = |inputs: &Self| Self {
            name: String::new(),
            backbone: BackboneRecord {
                sha256: inputs.backbone.sha256.clone(),
                taps: inputs.backbone.taps.clone(),
                ..BackboneRecord::embedded(&inputs.backbone.id)
            },
            ..inputs.clone()
        };
        matters(self) == matters(other)
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::estimators::flow::{FlowConfig, Preset};
    use crate::kernels::{Family, FeatureShape};

    /// Some result.
    pub fn result() -> CellResult {
        let shapes = [FeatureShape {
            channels: 8,
            height: 4,
            width: 4,
        }];
        let inputs = Inputs {
            dataset: "generated".into(),
            category: "cloth".into(),
            name: "cloth".into(),
            seed: 0,
            settings: Settings::default(),
            data_hash: "0".into(),
            backbone: BackboneRecord::embedded("wavelet"),
            program: "fastflow 0".into(),
        };
        let speed = Speed {
            threads: 1,
            batch: 1,
            preprocess: 1.0,
            backbone: 2.0,
            estimator: 3.0,
            map: 1.0,
            whole: 6.0,
            fps: 1000.0 / 6.0,
            additional_ms: 4.0,
            additional_params: 7,
        };
        let flow = FlowConfig::preset(Preset::Paper, Family::Wavelet, &shapes).unwrap();
        CellResult::new(inputs, EstimatorConfig::FastFlow(flow), speed)
    }

    #[test]
    fn a_result_survives_its_file_and_stands_only_with_its_detector() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/a.json");
        assert_eq!(CellResult::read(&path).unwrap(), None);
        let result = result();
        result.write(&path).unwrap();
        assert_eq!(CellResult::read(&path).unwrap(), Some(result.clone()));
        assert!(!result.stands(&result.inputs, folder.path()));
        std::fs::write(folder.path().join(CONFIG_FILE), "{}").unwrap();
        assert!(result.stands(&result.inputs, folder.path()));
        let mut other = result.inputs.clone();
        other.settings.epochs = Some(7);
        assert!(!result.stands(&other, folder.path()));
        let mut found_elsewhere = result.inputs.clone();
        found_elsewhere.name = "my-cloth".into();
        found_elsewhere.backbone.repo = Some("timm/wavelet".into());
        found_elsewhere.backbone.revision = Some("0".repeat(40));
        assert!(result.stands(&found_elsewhere, folder.path()));
        found_elsewhere.backbone.sha256 = Some("1".repeat(64));
        assert!(!result.stands(&found_elsewhere, folder.path()));
        std::fs::write(&path, "{\"schema_version\": 99}").unwrap();
        assert_eq!(CellResult::read(&path).unwrap(), None);
    }
}
