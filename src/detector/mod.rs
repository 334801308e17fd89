//! A detector: backbone + estimator + preprocessing + calibration, and the folder it lives in.

mod artifact;
mod batch;
mod config;
mod drift;
mod explanation;
mod record;
mod schema;
mod unlike;

use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Tensor};
use image::{Rgb, RgbImage};

#[cfg(feature = "hub")]
pub(crate) use artifact::other_weights;
pub(crate) use artifact::warn_of_other_weights;
pub use artifact::{CONFIG_FILE, LoadOptions, MODEL_FILE, read_config};
pub use config::{
    BackboneRecord, Calibration, CalibrationSource, DetectorConfig, Outlier, SCHEMA_VERSION,
};
pub use drift::looks_drifted;
pub use explanation::{Noise, ScaleExplanation};
pub use record::{
    AugmentationRecord, DatasetRecord, OptimisationRecord, Schedule, StoppingRecord, TrainingRecord,
};
pub use unlike::{Unlike, UnlikePhotos};

use crate::{
    Error, Result,
    backbones::{Backbone, image_features, input_shapes},
    estimators::{AnomalyMap, Estimator, MapStatistics, NativeMaps, Scoring},
};

/// A verdict about one photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Scores like the held-out normal images.
    Ok,
    /// Scores above the threshold.
    Defective,
}

/// What a detector says about one photo.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// The higher, the less normal.
    pub score: f32,
    /// The same from 0 to 1, 0.5 at the threshold ([`Calibration::scaled`]); none where the detector was never calibrated.
    pub scaled: Option<f32>,
    /// The score against the threshold; none where the detector was never calibrated nor given one.
    pub verdict: Option<Verdict>,
    /// Localisation scores at the photo's resolution.
    pub map: AnomalyMap,
}

/// A per-category anomaly detector.
pub struct Detector {
    config: DetectorConfig,
    backbone: Box<dyn Backbone>,
    estimator: Box<dyn Estimator>,
    device: Device,
    /// Instead of the calibrated one.
    threshold: Option<f32>,
}

impl Detector {
    /// Puts the parts together.
    ///
    /// # Errors
    /// When the config is out of range or the backbone's maps are not the ones it records.
    pub fn new(
        config: DetectorConfig,
        backbone: Box<dyn Backbone>,
        estimator: Box<dyn Estimator>,
        device: Device,
    ) -> Result<Self> {
        config.validate(Path::new(CONFIG_FILE))?;
        let shapes = input_shapes(backbone.as_ref(), &config.preprocessing)?;
        if shapes != config.feature_shapes {
            return Err(Error::Shape {
                what: format!("feature maps of backbone {}", config.backbone.id),
                expected: format!("{:?}", config.feature_shapes),
                found: format!("{shapes:?}"),
            });
        }
        Ok(Self {
            config,
            backbone,
            estimator,
            device,
            threshold: None,
        })
    }

    /// What the detector is.
    pub fn config(&self) -> &DetectorConfig {
        &self.config
    }

    /// Keeps figures measured on a test set, by the names that `eval --json` prints, in the place of earlier ones.
    pub fn set_metrics(&mut self, metrics: BTreeMap<String, f64>) {
        self.config.metrics = metrics;
    }

    /// Records where the weights that it was loaded with come from, and their hash.
    ///
    /// # Errors
    /// When `record` is of another backbone or of other taps, or not such as a config may hold.
    pub fn set_backbone_record(&mut self, record: BackboneRecord) -> Result<()> {
        let own = &self.config.backbone;
        if (&record.id, &record.taps) != (&own.id, &own.taps) {
            return Err(Error::Invalid(format!(
                "backbone {} at taps {:?} is not what the detector was loaded with: {} at taps {:?}",
                record.id, record.taps, own.id, own.taps
            )));
        }
        let old = std::mem::replace(&mut self.config.backbone, record);
        let checked = self.config.validate(Path::new(CONFIG_FILE));
        if checked.is_err() {
            self.config.backbone = old;
        }
        checked
    }

    /// Other thresholds, kept when it is saved.
    ///
    /// # Errors
    /// When they do not fit the detector's maps, or are no finite numbers.
    pub fn set_calibration(&mut self, calibration: Calibration) -> Result<()> {
        let old = self.config.calibration.replace(calibration);
        let checked = self.config.validate(Path::new(CONFIG_FILE));
        match checked.is_err() {
            true => self.config.calibration = old,
            false => self.threshold = None,
        }
        checked
    }

    /// Calls what scores above `threshold` defective from now on, calibrated or not. It is not saved: an artifact
    /// keeps what was calibrated.
    ///
    /// # Errors
    /// When it is not a number.
    pub fn set_threshold(&mut self, threshold: f32) -> Result<()> {
        if threshold.is_nan() {
            return Err(Error::Invalid("the threshold is not a number".into()));
        }
        self.threshold = Some(threshold);
        Ok(())
    }

    /// Looks at another page of files with several from now on.
    ///
    /// # Errors
    /// When it is 0: pages are counted from 1.
    pub fn set_page(&mut self, page: usize) -> Result<()> {
        if page == 0 {
            return Err(Error::Invalid("pages are counted from 1".into()));
        }
        self.config.preprocessing.page = (page > 1).then_some(page);
        Ok(())
    }

    /// Scores another way from now on, without a threshold: the recorded one belongs to the old way.
    ///
    /// # Errors
    /// When `scoring` is out of range, or when scales are to be standardised: the statistics for that are
    /// measured in training.
    pub fn set_scoring(&mut self, scoring: Scoring) -> Result<()> {
        scoring.check(&self.config.estimator, &self.config.feature_shapes)?;
        if scoring == self.config.scoring {
            return Ok(());
        }
        if scoring.standardise_scales {
            return Err(Error::Invalid(
                "this detector standardises its scales with statistics of its own maps and cannot be scored \
                 another way; train with the maps you want"
                    .into(),
            ));
        }
        self.config.scoring = scoring;
        self.config.calibration = None;
        self.threshold = None;
        Ok(())
    }

    /// What models the distribution of normal features.
    pub fn estimator(&self) -> &dyn Estimator {
        self.estimator.as_ref()
    }

    /// The frozen network.
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Takes the detector apart, for training to go on from it.
    pub fn into_parts(self) -> (DetectorConfig, Box<dyn Backbone>, Box<dyn Estimator>) {
        (self.config, self.backbone, self.estimator)
    }

    /// Maps at the features' resolution, on the CPU: the expensive part of an inspection.
    ///
    /// # Errors
    /// When the photo cannot be preprocessed.
    pub fn native_maps(&self, image: &RgbImage) -> Result<NativeMaps> {
        self.maps_of_features(&self.features(image)?)
    }

    fn features(&self, image: &RgbImage) -> Result<Vec<Tensor>> {
        image_features(
            self.backbone.as_ref(),
            &self.config.preprocessing,
            &self.device,
            image,
        )
    }

    /// The image score from its maps.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn score(&self, maps: &NativeMaps) -> Result<f32> {
        let scoring = &self.config.scoring;
        let scores = scoring.image_scores(maps, self.statistics(), self.input_size())?;
        finite(scores.squeeze(0)?.to_scalar()?)
    }

    /// The localisation map at the network's input size.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn localisation(&self, maps: &NativeMaps) -> Result<AnomalyMap> {
        let scoring = &self.config.scoring;
        AnomalyMap::of(&scoring.localisation(maps, self.statistics(), self.input_size())?)
    }

    /// Inspects one photo.
    ///
    /// # Errors
    /// When the photo cannot be preprocessed, or a score is not finite.
    pub fn predict(&self, image: &RgbImage) -> Result<Prediction> {
        let (scores, maps) = self.estimator.inspect(
            &self.features(image)?,
            &self.config.scoring,
            self.statistics(),
            self.input_size(),
        )?;
        let score = finite(scores.squeeze(0)?.to_scalar()?)?;
        self.prediction(score, &AnomalyMap::of(&maps)?, image)
    }

    fn prediction(&self, score: f32, map: &AnomalyMap, image: &RgbImage) -> Result<Prediction> {
        let (width, height) = image.dimensions();
        Ok(Prediction {
            score,
            scaled: self.scaled(score),
            verdict: self.verdict(score),
            map: map.resized(width as usize, height as usize)?,
        })
    }

    fn statistics(&self) -> Option<MapStatistics<'_>> {
        let calibration = self.config.calibration.as_ref()?;
        Some(calibration.statistics())
    }

    /// A score from 0 to 1, 0.5 at the threshold that is in force.
    pub fn scaled(&self, score: f32) -> Option<f32> {
        let calibration = self.config.calibration.as_ref()?;
        let threshold = self.threshold.unwrap_or(calibration.threshold);
        Some(calibration.scaled(score, threshold))
    }

    /// A score against the threshold: that of [`Detector::set_threshold`], else the calibrated one.
    pub fn verdict(&self, score: f32) -> Option<Verdict> {
        let calibrated = self.config.calibration.as_ref().map(|c| c.threshold);
        Some(if score > self.threshold.or(calibrated)? {
            Verdict::Defective
        } else {
            Verdict::Ok
        })
    }

    /// Score of a pattern made by a formula: a detector that was saved, moved and loaded must give
    /// the recorded one again.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn fixture_score(&self) -> Result<f32> {
        let (height, width) = self.input_size();
        let pattern = RgbImage::from_fn(width as u32, height as u32, |x, y| {
            Rgb([(x * 5 + y) as u8, (x + y * 3) as u8, (x * y / 7) as u8])
        });
        self.score(&self.native_maps(&pattern)?)
    }

    /// Records the test pattern's score, for [`Detector::verify`].
    ///
    /// # Errors
    /// When the tensor library fails, or the score is not finite.
    pub fn record_fixture_score(&mut self) -> Result<()> {
        self.config.fixture_score = Some(self.fixture_score()?);
        Ok(())
    }

    /// Compares the test pattern's score with the recorded one.
    ///
    /// # Errors
    /// When they differ by more than rounding between machines explains.
    pub fn verify(&self) -> Result<()> {
        let Some(recorded) = self.config.fixture_score else {
            return Ok(());
        };
        let found = self.fixture_score()?;
        if (found - recorded).abs() <= 1e-3 * recorded.abs().max(1e-3) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "the test pattern scores {found}, the artifact records {recorded}: \
             backbone weights or estimator are not the ones it was made with"
        )))
    }

    fn input_size(&self) -> (usize, usize) {
        (
            self.config.preprocessing.height,
            self.config.preprocessing.width,
        )
    }
}

fn finite(score: f32) -> Result<f32> {
    if score.is_finite() {
        return Ok(score);
    }
    Err(Error::Invalid(format!(
        "the score is {score}: the estimator's tensors are damaged"
    )))
}
