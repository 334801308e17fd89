//! The run from a data set to a detector; read it top to bottom.

use std::path::Path;

use candle_core::Device;

use super::{
    EpochRecord, Progress, TrainConfig, calibrate,
    checkpoint::Checkpoint,
    few,
    fit::{Data, Fit, Fitted},
    look, optimise,
    photos::{Photos, names},
    progress,
    recalibrate::outliers_note,
    run::{HeldOutFit, RunFolder, require_place},
};
use crate::{
    Advice, Error, Result,
    backbones::{Backbone, input_shapes},
    datasets::Dataset,
    detector::{
        BackboneRecord, Calibration, CalibrationSource, Detector, DetectorConfig,
        OptimisationRecord, SCHEMA_VERSION, TrainingRecord,
    },
    digest::{Sha256, sha256},
    estimators::{Estimator, EstimatorConfig, Fitting},
    features::{Extraction, FeatureStore, extract},
    imaging::Preprocessing,
    kernels::FeatureShape,
};

/// What a run starts from.
pub enum Origin {
    /// A backbone and a fresh estimator.
    Scratch {
        /// The frozen network.
        backbone: Box<dyn Backbone>,
        /// What the artifact says about its weights.
        record: BackboneRecord,
    },
    /// A detector that is adapted. Of a flow permutations and feature statistics are kept, and the optimizer is
    /// fresh.
    Parent {
        /// The detector.
        detector: Box<Detector>,
        /// What to call it in the training record.
        name: String,
    },
}

/// A finished run.
pub struct Trained {
    /// Calibrated and saved.
    pub detector: Detector,
    /// One record an epoch; empty of a method that is fitted in closed form.
    pub history: Vec<EpochRecord>,
}

/// Trains detectors with fixed settings.
pub struct Trainer {
    config: TrainConfig,
    device: Device,
}

/// The origin's parts, and what they were settled to.
pub(super) struct Parts {
    backbone: Box<dyn Backbone>,
    record: BackboneRecord,
    preprocessing: Preprocessing,
    shapes: Vec<FeatureShape>,
    pub(super) estimator: EstimatorConfig,
    pub(super) parent: Option<(Box<dyn Estimator>, String)>,
}

impl Parts {
    /// Rows and columns of the network's input.
    pub(super) fn input(&self) -> (usize, usize) {
        (self.preprocessing.height, self.preprocessing.width)
    }
}

impl Trainer {
    /// A trainer on `device`.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn new(config: TrainConfig, device: Device) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, device })
    }

    /// Fits the data set's normal images, sets the threshold and saves the detector to `out`.
    ///
    /// Checkpoints and events go to `out/run`. With `resume` the run goes on from its checkpoint, to
    /// the same result as a run that was never broken.
    ///
    /// # Errors
    /// Unreadable images, settings that do not fit, a loss that is not finite, an interruption (after a checkpoint), a full disk.
    pub fn fit(
        &self,
        dataset: &Dataset,
        origin: Origin,
        out: &Path,
        resume: bool,
        progress: &mut dyn Progress,
    ) -> Result<Trained> {
        require_place(out)?;
        let mut parts = self.settle(origin)?;
        let adapted = parts.parent.is_some();
        let dataset = &look::at_files(dataset, &mut parts.preprocessing, adapted, progress)?;
        if resume {
            expect_resumable(&parts.estimator)?;
        }
        few::check(dataset, &parts.estimator)?;
        let source = few::source_of(dataset.train.len(), self.config.folds);
        if let Some(note) = few::note(source, dataset.train.len()) {
            progress.note(&note);
        }
        let (train, held_out) = match source {
            CalibrationSource::CrossFit => (dataset.train.clone(), Vec::new()),
            _ => dataset.split_held_out(self.config.seed),
        };
        let data_hash = dataset.hash()?;
        let fingerprint = self.fingerprint(&parts, &data_hash)?;
        let folder = RunFolder::create(out)?;
        let checkpoint = optimise::open_checkpoint(&folder, resume, &fingerprint)?;
        // The first fit is over where the checkpoint is of the second one: what it was for lies in its file.
        let first_is_over = matches!(&checkpoint, Some(c) if c.position.final_fit);
        let photos = Photos::plan(&self.config, dataset, &train, &held_out, first_is_over);
        let store = self
            .extract(&parts, &photos, folder.path(), progress)
            .map_err(|first| all_damage(dataset, first))?;
        let data = photos.data(&store);
        let fit = Fit {
            config: &self.config,
            device: &self.device,
            folder: &folder,
            fingerprint: &fingerprint,
            parts: &parts,
        };
        let (fitted, held_out_fit) = self.fit_stages(&fit, checkpoint, &data, progress)?;
        let record = self.training_record(
            &parts,
            data_hash,
            if self.config.final_fit {
                dataset.train.len()
            } else {
                train.len()
            },
            names(dataset, &held_out),
            self.optimisation_record(&fitted, &held_out_fit),
        );
        let calibration = Calibration {
            source,
            ..held_out_fit.calibration
        };
        if let Some(warning) = outliers_note(&calibration) {
            progress.note(&warning);
        }
        let Fitted {
            estimator, history, ..
        } = fitted;
        drop(data);
        let detector = self.assemble(parts, estimator, &dataset.name, calibration, record)?;
        detector.save(out)?;
        Ok(Trained { detector, history })
    }

    /// The fit without the held-out images and the thresholds from them, then the fit on all where that is wanted.
    fn fit_stages(
        &self,
        fit: &Fit<'_>,
        checkpoint: Option<Checkpoint>,
        data: &Data<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(Fitted, HeldOutFit)> {
        let (mut checkpoint, mut fitted) = (checkpoint, None);
        let first = match &data.train {
            None => fit.folder.read_held_out_fit()?,
            Some(train) => {
                let checkpoint = checkpoint.take();
                let first = fit.run(
                    false,
                    train,
                    &data.held_out,
                    data.validation(),
                    checkpoint,
                    progress,
                )?;
                let found = match data.folds.is_empty() {
                    true => self.calibrated(fit, &first, data)?,
                    false => HeldOutFit {
                        calibration: fit.cross_fit(&data.folds, progress)?,
                        held_out_nll: None,
                    },
                };
                fitted = Some(first);
                found
            }
        };
        if let Some(all) = &data.all {
            if data.train.is_some() {
                progress.note("fitting once more on all normal images, threshold kept");
                fit.folder.write_held_out_fit(&first)?;
            }
            let mut last = fit.run(true, all, &data.held_out, None, checkpoint, progress)?;
            // Images that the last fit has seen say nothing about what is usual.
            if let Some(first) = &fitted {
                last.estimator.standardise_as(first.estimator.as_ref())?;
            }
            fitted = Some(last);
        }
        let fitted = fitted.ok_or_else(|| Error::Training("nothing was to be fitted".into()))?;
        if fitted.best.is_none()
            && let Some(warning) = progress::diverged(&fitted.history)
        {
            progress.note(&warning);
        }
        Ok((fitted, first))
    }

    fn calibrated(&self, fit: &Fit<'_>, fitted: &Fitted, data: &Data<'_>) -> Result<HeldOutFit> {
        let calibration = calibrate(
            fitted.estimator.as_ref(),
            &self.config.scoring,
            &data.held_out,
            data.held_out_names,
            fit.parts.input(),
            self.config.false_alarm_rate,
        )?;
        Ok(HeldOutFit {
            calibration,
            held_out_nll: fitted.held_out_nll,
        })
    }

    fn settle(&self, origin: Origin) -> Result<Parts> {
        match origin {
            Origin::Scratch {
                backbone,
                mut record,
            } => {
                record.taps = backbone.info().chosen_taps();
                let preprocessing = self.config.preprocessing.clone();
                preprocessing.validate(Path::new("size"))?;
                let shapes = input_shapes(backbone.as_ref(), &preprocessing)?;
                let estimator = self.config.estimator.clone();
                estimator.validate(&shapes)?;
                self.config.scoring.check(&estimator, &shapes)?;
                Ok(Parts {
                    backbone,
                    record,
                    preprocessing,
                    shapes,
                    estimator,
                    parent: None,
                })
            }
            Origin::Parent { detector, name } => {
                let (config, backbone, estimator) = detector.into_parts();
                Ok(Parts {
                    backbone,
                    record: config.backbone,
                    preprocessing: config.preprocessing,
                    shapes: config.feature_shapes,
                    estimator: config.estimator,
                    parent: Some((estimator, name)),
                })
            }
        }
    }

    /// Hash of all that the result depends on but the number of epochs: a finished run can be resumed
    /// with more of them, unless the step size follows their number.
    fn fingerprint(&self, parts: &Parts, data_hash: &str) -> Result<String> {
        let config = TrainConfig {
            epochs: if self.config.schedule.follows_length() {
                self.config.epochs
            } else {
                1
            },
            ..self.config.clone()
        };
        let parent = match &parts.parent {
            Some((estimator, _)) => tensors_hash(estimator.as_ref())?,
            None => String::new(),
        };
        let all = (
            config,
            &parts.record,
            &parts.preprocessing,
            &parts.estimator,
            parent,
            data_hash,
            env!("CARGO_PKG_VERSION"),
        );
        let text =
            serde_json::to_string(&all).map_err(|e| Error::Training(format!("settings: {e}")))?;
        Ok(sha256(text))
    }

    /// Every photo and view that the run needs, once.
    fn extract(
        &self,
        parts: &Parts,
        photos: &Photos,
        folder: &Path,
        progress: &mut dyn Progress,
    ) -> Result<FeatureStore> {
        let settings = Extraction {
            backbone: parts.backbone.as_ref(),
            preprocessing: &parts.preprocessing,
            device: &self.device,
            memory_limit: self.config.memory_limit,
            folder,
        };
        extract(&settings, photos.jobs(), &mut |done, total| {
            progress.features(done, total)
        })
    }

    fn training_record(
        &self,
        parts: &Parts,
        data_hash: String,
        images: usize,
        held_out: Vec<String>,
        optimisation: Option<OptimisationRecord>,
    ) -> TrainingRecord {
        let config = &self.config;
        TrainingRecord {
            dataset: config.dataset.clone(),
            data_hash,
            images,
            held_out,
            folds: (config.folds > 1).then_some(config.folds),
            final_fit: config.final_fit,
            seed: config.seed,
            augmentation: config.augmentation.clone(),
            optimisation,
            parent: parts.parent.as_ref().map(|(_, name)| name.clone()),
            program: format!("fastflow {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// What the optimiser did, of a method that has one.
    fn optimisation_record(
        &self,
        fitted: &Fitted,
        held_out_fit: &HeldOutFit,
    ) -> Option<OptimisationRecord> {
        let config = &self.config;
        Some(OptimisationRecord {
            preset: config.preset,
            epochs: fitted.history.len(),
            batch: config.batch,
            learning_rate: config.learning_rate,
            schedule: config.schedule,
            weight_decay: config.weight_decay,
            gradient_clip: config.gradient_clip,
            held_out_nll: held_out_fit.held_out_nll?,
            stopping: fitted.best.clone(),
        })
    }

    fn assemble(
        &self,
        parts: Parts,
        estimator: Box<dyn Estimator>,
        name: &str,
        calibration: Calibration,
        training: TrainingRecord,
    ) -> Result<Detector> {
        let config = DetectorConfig {
            schema_version: SCHEMA_VERSION,
            name: name.to_string(),
            backbone: parts.record,
            feature_shapes: parts.shapes,
            preprocessing: parts.preprocessing,
            estimator: estimator.config(),
            scoring: self.config.scoring.clone(),
            calibration: Some(calibration),
            training: Some(training),
            metrics: Default::default(),
            fixture_score: None,
            licence: None,
            notes: None,
        };
        let mut detector = Detector::new(config, parts.backbone, estimator, self.device.clone())?;
        detector.record_fixture_score()?;
        Ok(detector)
    }
}

/// The first damaged photo stopped the run; whoever mends one wants to know of all.
fn all_damage(dataset: &Dataset, first: Error) -> Error {
    match first.problem() {
        Error::Image { .. } | Error::Io { .. } => dataset.damage_check().err().unwrap_or(first),
        _ => first,
    }
}

fn expect_resumable(estimator: &EstimatorConfig) -> Result<()> {
    let reason = match estimator.fitting() {
        Fitting::Gradient(_) => return Ok(()),
        Fitting::Closed(_) => "is fitted in one pass and leaves nothing to resume",
        Fitting::Members(_) => "has no checkpoints: its members are fitted one after the other",
    };
    let title = estimator.title();
    Err(Error::Training(format!("{title} {reason}")).advise(Advice::StartAnew))
}

fn tensors_hash(estimator: &dyn Estimator) -> Result<String> {
    let mut hasher = Sha256::default();
    for (name, tensor) in estimator.tensors()? {
        hasher.update(name.as_bytes());
        let values = tensor
            .flatten_all()?
            .to_dtype(candle_core::DType::F32)?
            .to_vec1::<f32>()?;
        hasher.update(bytemuck::cast_slice::<f32, u8>(&values));
    }
    Ok(hasher.finish())
}
