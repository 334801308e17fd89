//! `config.json` of an artifact: what a detector is, how it was made, what it scored.
//! Unknown fields are refused, and every size is checked before anything is allocated.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{TrainingRecord, schema};
use crate::{
    Error, Result,
    backbones::{self, Taps},
    estimators::{EstimatorConfig, MapStatistics, ScaleStatistics, Scoring},
    imaging::Preprocessing,
    kernels::FeatureShape,
};

/// Version of the format that is written; older ones are read (`schema.rs`).
pub const SCHEMA_VERSION: u32 = 2;

/// A config larger than this is not one of ours.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The whole of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorConfig {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The category, for example `screw`.
    pub name: String,
    /// The frozen network and its weights.
    pub backbone: BackboneRecord,
    /// How a photo becomes the network's input.
    pub preprocessing: Preprocessing,
    /// Shapes of the feature maps at that input size, finest first.
    pub feature_shapes: Vec<FeatureShape>,
    /// What models the distribution of normal features.
    pub estimator: EstimatorConfig,
    /// How its maps become a score.
    pub scoring: Scoring,
    /// What normal images score; none until calibrated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<Calibration>,
    /// How it was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub training: Option<TrainingRecord>,
    /// Figures measured on a test set, by the names that `eval --json` prints.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub metrics: BTreeMap<String, f64>,
    /// Score of the built-in test pattern ([`super::Detector::verify`]); a reloaded detector must give it again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fixture_score: Option<f32>,
    /// SPDX id of the detector's own licence, where its maker states one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub licence: Option<String>,
    /// What its maker has to say about it, in Markdown; the card shows it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub notes: Option<String>,
}

/// Which backbone weights the flow was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneRecord {
    /// timm's `arch.tag`.
    pub id: String,
    /// Hub repository; none for weights given as a local file or an embedded backbone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repo: Option<String>,
    /// Commit of that repository.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// SHA-256 of the weights file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// Where features leave it; none for its default taps.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taps: Option<Taps>,
}

impl BackboneRecord {
    /// A backbone that has no weights file.
    pub fn embedded(id: &str) -> Self {
        Self {
            id: id.to_string(),
            repo: None,
            revision: None,
            sha256: None,
            taps: None,
        }
    }
}

/// Which normal images the scores are of that a threshold follows from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationSource {
    /// Images that were kept out of the fit.
    #[default]
    HeldOut,
    /// All images, each scored by a fit to a few folds of them that it is not in; the detector is fitted to all (CV+ of
    /// Barber et al. 2021, with the one detector in place of those of the folds).
    CrossFit,
    /// Three images, each scored by a fit to the others; the detector is fitted to all of them.
    LeaveOneOut,
    /// Images of another line or day than the detector was fitted to.
    Recalibrated,
    /// Mirrored views of the one or two images that the detector is fitted to: a guess.
    MirroredViews,
}

impl CalibrationSource {
    /// Whether the images were kept out of the fit, as is usual.
    pub fn is_held_out(&self) -> bool {
        *self == Self::HeldOut
    }

    /// What `count` scores are of, as in "the threshold comes from ...".
    pub fn in_words(self, count: usize) -> String {
        match self {
            Self::HeldOut => format!("{count} held-out normal images"),
            Self::CrossFit => {
                format!("all {count} training images, each scored by a fit without its fold")
            }
            Self::LeaveOneOut => {
                format!("all {count} training images, each scored by a fit to the others")
            }
            Self::Recalibrated => {
                format!("{count} normal images that it was calibrated with later")
            }
            Self::MirroredViews => {
                format!("{count} mirrored views of the training images and is a guess")
            }
        }
    }
}

/// A training image that scores far above all others: a defect among the good ones, perhaps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outlier {
    /// Its path, relative to the data set's folder.
    pub image: String,
    /// Its score.
    pub score: f32,
}

/// Scores of normal images, and the threshold that follows from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// An image that scores above it is defective.
    pub threshold: f32,
    /// Share of new normal images expected above the threshold; no promise where `source` is a guess.
    pub false_alarm_rate: f64,
    /// Scores of the normal images, ascending.
    pub normal_scores: Vec<f32>,
    /// Images that do not count for the threshold, highest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outliers: Vec<Outlier>,
    /// Which images those are.
    #[serde(default, skip_serializing_if = "CalibrationSource::is_held_out")]
    pub source: CalibrationSource,
    /// A position of the localisation map above it belongs to a defect.
    pub pixel_threshold: f32,
    /// Localisation value drawn as the coldest colour: the median over the normal images.
    pub map_low: f32,
    /// Statistics per scale of the image-score map, finest first.
    pub image_scales: Vec<ScaleStatistics>,
    /// The same of the localisation map.
    pub pixel_scales: Vec<ScaleStatistics>,
}

impl Calibration {
    /// What the threshold comes from, and what is expected of it.
    pub fn in_words(&self) -> String {
        let from = self.source.in_words(self.normal_scores.len());
        match self.source {
            CalibrationSource::MirroredViews => from,
            _ => format!(
                "{from}; about {:.1} % of new normal images score above it",
                100.0 * self.false_alarm_rate
            ),
        }
    }

    /// A score as people read it: 0.5 at `threshold`, 0.1 as far below it as the usual normal image, 0.9 as far above;
    /// 0 to 1, and as monotonous as the score itself (a logistic curve).
    pub fn scaled(&self, score: f32, threshold: f32) -> f32 {
        let usual = self.normal_scores.get(self.normal_scores.len() / 2);
        let below = usual.map_or(0.0, |usual| f64::from(self.threshold) - f64::from(*usual));
        // A threshold from a single score has no distance to it.
        let unit = if below > 0.0 {
            below
        } else {
            f64::from(self.threshold.abs()).max(1e-6) * 0.1
        };
        let away = (f64::from(score) - f64::from(threshold)) / unit;
        (1.0 / (1.0 + (-away * 9f64.ln()).exp())) as f32
    }

    /// What the scales are standardised by, where they are.
    pub fn statistics(&self) -> MapStatistics<'_> {
        MapStatistics {
            image: &self.image_scales,
            pixel: &self.pixel_scales,
        }
    }

    /// Localisation value drawn as the hottest colour; the threshold lies half way, so that a good
    /// image never looks red.
    pub fn map_high(&self) -> f32 {
        self.map_low + 2.0 * (self.pixel_threshold - self.map_low)
    }
}

impl DetectorConfig {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the file and the field.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::Config {
            path: path.to_path_buf(),
            reason,
        };
        let bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if bytes > MAX_CONFIG_BYTES {
            return Err(fail(format!(
                "{bytes} bytes are too many for a detector's config"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let config = schema::parse(&text).map_err(|e| fail(e.to_string()))?;
        config.validate(path).map_err(|error| match error {
            named @ Error::Config { .. } => named,
            other => fail(other.to_string()),
        })?;
        Ok(config)
    }

    /// Checks sizes and ranges; `path` is the file the config came from.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self, path: &Path) -> Result<()> {
        let invalid = |reason: String| Err(Error::Invalid(reason));
        if self.schema_version != SCHEMA_VERSION {
            return invalid(format!(
                "schema_version {} is not {SCHEMA_VERSION}; use a program of the artifact's version",
                self.schema_version
            ));
        }
        if self.name.is_empty() || self.name.len() > 200 {
            return invalid("name must have 1 to 200 characters".into());
        }
        if !is_plain_id(&self.backbone.id) {
            return invalid(format!(
                "backbone.id `{}` is not a backbone's: letters, digits, `-`, `_` and single dots are expected",
                self.backbone.id.escape_debug()
            ));
        }
        self.validate_taps()?;
        self.validate_words()?;
        self.preprocessing.validate(path)?;
        self.estimator.validate(&self.feature_shapes)?;
        self.scoring.check(&self.estimator, &self.feature_shapes)?;
        if let Some(calibration) = &self.calibration {
            calibration.validate(self.estimator.map_count(&self.feature_shapes))?;
        }
        if let Some((name, value)) = self.metrics.iter().find(|(_, v)| !v.is_finite()) {
            return invalid(format!("metrics.{name} is {value}, not a finite number"));
        }
        Ok(())
    }

    /// A backbone that this program does not know is told of when it is loaded.
    fn validate_taps(&self) -> Result<()> {
        let BackboneRecord { id, taps, .. } = &self.backbone;
        if taps.is_some() && backbones::info(id).is_ok() {
            backbones::info_with(id, taps.as_ref())?;
        }
        Ok(())
    }

    /// What people wrote ends up in cards and on terminals: lines of text, not control characters.
    fn validate_words(&self) -> Result<()> {
        let dataset = self.training.as_ref().and_then(|t| t.dataset.as_ref());
        let lines = [
            ("name", Some(&self.name)),
            ("licence", self.licence.as_ref()),
            ("training.dataset.name", dataset.map(|d| &d.name)),
            (
                "training.dataset.licence",
                dataset.and_then(|d| d.licence.as_ref()),
            ),
        ];
        for (field, text) in lines {
            if text.is_some_and(|text| text.len() > 200 || text.chars().any(char::is_control)) {
                return Err(Error::Invalid(format!(
                    "{field} must be one line of at most 200 characters"
                )));
            }
        }
        let breaks = |c: char| c.is_control() && c != '\n' && c != '\t';
        match &self.notes {
            Some(notes) if notes.len() > 100_000 || notes.chars().any(breaks) => Err(
                Error::Invalid("notes must be Markdown of at most 100000 bytes".into()),
            ),
            _ => Ok(()),
        }
    }
}

/// Ids become names of folders, so that a config from elsewhere must not lead out of one.
fn is_plain_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !id.is_empty()
        && id.len() <= 200
        && id.chars().all(plain)
        && !id.starts_with('.')
        && !id.contains("..")
}

impl Calibration {
    fn validate(&self, scales: usize) -> Result<()> {
        let finite = [self.threshold, self.pixel_threshold, self.map_low]
            .iter()
            .chain(&self.normal_scores)
            .chain(self.outliers.iter().map(|outlier| &outlier.score))
            .chain(
                self.image_scales
                    .iter()
                    .chain(&self.pixel_scales)
                    .flat_map(|s| [&s.mean, &s.std]),
            )
            .all(|v| v.is_finite());
        if !finite || !self.false_alarm_rate.is_finite() {
            return Err(Error::Invalid(
                "calibration holds a number that is not finite".into(),
            ));
        }
        if self.image_scales.len() != scales || self.pixel_scales.len() != scales {
            return Err(Error::Invalid(format!(
                "calibration.image_scales and pixel_scales must have {scales} entries, one a map"
            )));
        }
        Ok(())
    }
}
