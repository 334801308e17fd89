//! The run from a data set to a detector; read it top to bottom.

use std::path::Path;

use candle_core::Device;
use sha2::{Digest, Sha256};

use super::{
    DeviceFeatures, EpochRecord, Progress, TrainConfig, calibrate,
    checkpoint::Checkpoint,
    mean_nll,
    optimise::{self, Fitted, Optimisation},
    order::{self, Stream},
    progress,
    run::{HeldOutFit, RunFolder},
    stop::{self, Judge},
};
use crate::{
    Error, Result,
    backbones::Backbone,
    datasets::{Dataset, Sample},
    detector::{
        BackboneRecord, Calibration, Detector, DetectorConfig, SCHEMA_VERSION, StoppingRecord,
        TrainingRecord,
    },
    features::{Extraction, FeatureStore, Job, extract},
    flow::{FastFlow, FlowConfig},
    imaging::{Preprocessing, View},
};

/// What a run starts from.
pub enum Origin {
    /// A backbone and a fresh flow.
    Scratch {
        /// The frozen network.
        backbone: Box<dyn Backbone>,
        /// What the artifact says about its weights.
        record: BackboneRecord,
    },
    /// A trained detector whose flow is adapted: permutations and feature statistics are kept, the
    /// optimizer is fresh.
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
    /// One record an epoch.
    pub history: Vec<EpochRecord>,
}

/// Trains detectors with fixed settings.
pub struct Trainer {
    config: TrainConfig,
    device: Device,
}

/// The origin's parts, and what they were settled to.
struct Parts {
    backbone: Box<dyn Backbone>,
    record: BackboneRecord,
    preprocessing: Preprocessing,
    flow_config: FlowConfig,
    parent: Option<(FastFlow, String)>,
}

/// The normal images, all and divided.
struct Data<'a> {
    dataset: &'a Dataset,
    train: &'a [Sample],
    held_out: &'a [Sample],
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

    /// Trains on the data set's normal images, sets the threshold and saves the detector to `out`.
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
        let parts = self.settle(origin)?;
        let (train, held_out) = dataset.split_held_out(self.config.seed);
        let data_hash = dataset.hash()?;
        let fingerprint = self.fingerprint(&parts, &data_hash)?;
        let folder = RunFolder::create(out)?;
        let checkpoint = optimise::open_checkpoint(&folder, resume, &fingerprint)?;

        let data = Data {
            dataset,
            train: &train,
            held_out: &held_out,
        };
        let mut run = Optimisation {
            config: &self.config,
            device: &self.device,
            folder: &folder,
            fingerprint,
            final_fit: false,
        };
        let (mut fitted, held_out_fit) = match checkpoint {
            // The first fit is over: what it was for lies in its file.
            Some(checkpoint) if checkpoint.position.final_fit => {
                run.final_fit = true;
                let fitted = self.fit_all(&parts, &run, Some(checkpoint), &data, progress)?;
                (fitted, folder.read_held_out_fit()?)
            }
            checkpoint => self.fit_and_calibrate(&parts, &run, checkpoint, &data, progress)?,
        };
        if self.config.final_fit && !run.final_fit {
            progress.note("training once more on all normal images, threshold kept");
            folder.write_held_out_fit(&held_out_fit)?;
            run.final_fit = true;
            fitted = self.fit_all(&parts, &run, None, &data, progress)?;
        }
        let Fitted {
            flow,
            history,
            best,
        } = fitted;
        if best.is_none()
            && let Some(warning) = progress::diverged(&history)
        {
            progress.note(&warning);
        }
        let images = if self.config.final_fit {
            dataset.train.len()
        } else {
            train.len()
        };
        let mut record =
            self.training_record(&parts, data_hash, images, &data, held_out_fit.held_out_nll);
        record.epochs = history.len();
        record.stopping = best.map(|best| StoppingRecord {
            epoch: best.epoch,
            synthetic_auroc: best.auroc,
        });
        let calibration = held_out_fit.calibration;
        let detector = self.assemble(parts, flow, &dataset.name, calibration, record)?;
        detector.save(out)?;
        Ok(Trained { detector, history })
    }

    /// Trains on the images that are not held out, and sets the thresholds on those that are.
    fn fit_and_calibrate(
        &self,
        parts: &Parts,
        run: &Optimisation<'_>,
        checkpoint: Option<Checkpoint>,
        data: &Data<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(Fitted, HeldOutFit)> {
        let store = self.extract(parts, data.train, true, run.folder.path(), progress)?;
        let held_out = self.extract(parts, data.held_out, false, run.folder.path(), progress)?;
        let judge = self.judge(parts, run, data, progress)?;
        let flow = self.initial_flow(parts, &store)?;
        let fitted = run.fit(
            flow,
            checkpoint,
            &store,
            &held_out,
            judge.as_ref(),
            progress,
        )?;
        let calibration = calibrate(
            &fitted.flow,
            &self.config.scoring,
            &held_out,
            (parts.preprocessing.height, parts.preprocessing.width),
            self.config.false_alarm_rate,
        )?;
        let held_out_features = DeviceFeatures::streamed(&held_out, &self.device);
        let held_out_nll = mean_nll(&fitted.flow, &held_out_features)?;
        Ok((
            fitted,
            HeldOutFit {
                calibration,
                held_out_nll,
            },
        ))
    }

    /// What the stopping rule judges by; none without one.
    fn judge(
        &self,
        parts: &Parts,
        run: &Optimisation<'_>,
        data: &Data<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Option<Judge<'_>>> {
        if self.config.stop.is_none() {
            return Ok(None);
        }
        let exam = stop::exam(data.held_out);
        Ok(Some(Judge {
            scoring: &self.config.scoring,
            store: self.extract(parts, &exam, false, run.folder.path(), progress)?,
            defective: exam.iter().map(Sample::is_defective).collect(),
            input: (parts.preprocessing.height, parts.preprocessing.width),
        }))
    }

    /// Trains on all normal images.
    fn fit_all(
        &self,
        parts: &Parts,
        run: &Optimisation<'_>,
        checkpoint: Option<Checkpoint>,
        data: &Data<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Fitted> {
        let store = self.extract(
            parts,
            &data.dataset.train,
            true,
            run.folder.path(),
            progress,
        )?;
        let held_out = self.extract(parts, data.held_out, false, run.folder.path(), progress)?;
        let flow = self.initial_flow(parts, &store)?;
        run.fit(flow, checkpoint, &store, &held_out, None, progress)
    }

    fn settle(&self, origin: Origin) -> Result<Parts> {
        match origin {
            Origin::Scratch {
                backbone,
                mut record,
            } => {
                record.taps = backbone.info().chosen_taps();
                let preprocessing = self
                    .config
                    .preprocessing
                    .clone()
                    .unwrap_or_else(|| backbone.info().preprocessing.clone());
                preprocessing.validate(Path::new("--size"))?;
                let shapes = backbone.shapes(preprocessing.height, preprocessing.width)?;
                let flow_config = match &self.config.flow {
                    Some(config) => config.clone(),
                    None => {
                        FlowConfig::preset(self.config.preset, backbone.info().family, &shapes)?
                    }
                };
                flow_config.validate(&shapes)?;
                self.config.scoring.check_scales(shapes.len())?;
                Ok(Parts {
                    backbone,
                    record,
                    preprocessing,
                    flow_config,
                    parent: None,
                })
            }
            Origin::Parent { detector, name } => {
                let (config, backbone, flow) = detector.into_parts();
                Ok(Parts {
                    backbone,
                    record: config.backbone,
                    preprocessing: config.preprocessing,
                    flow_config: config.flow,
                    parent: Some((flow, name)),
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
            Some((flow, _)) => tensors_hash(flow)?,
            None => String::new(),
        };
        let all = (
            config,
            &parts.record,
            &parts.preprocessing,
            &parts.flow_config,
            parent,
            data_hash,
            env!("CARGO_PKG_VERSION"),
        );
        let text =
            serde_json::to_string(&all).map_err(|e| Error::Training(format!("settings: {e}")))?;
        Ok(hex(&Sha256::digest(text)))
    }

    fn extract(
        &self,
        parts: &Parts,
        samples: &[Sample],
        augmented: bool,
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
        let jobs = if augmented {
            self.jobs(samples)
        } else {
            plain_jobs(samples)
        };
        extract(&settings, &jobs, &mut |done, total| {
            progress.features(done, total)
        })
    }

    /// Every image as it is, then its augmented views, image by image.
    fn jobs(&self, samples: &[Sample]) -> Vec<Job> {
        let Some(augmentation) = &self.config.augmentation else {
            return plain_jobs(samples);
        };
        let mut rng = order::generator(self.config.seed, Stream::Views);
        let mut jobs = Vec::with_capacity(samples.len() * augmentation.count);
        for sample in samples {
            for view in 0..augmentation.count {
                let view = match view {
                    0 => View::IDENTITY,
                    _ => augmentation.views.sample(&mut rng),
                };
                jobs.push(Job {
                    sample: sample.clone(),
                    view,
                });
            }
        }
        jobs
    }

    fn initial_flow(&self, parts: &Parts, store: &FeatureStore) -> Result<FastFlow> {
        if let Some((flow, _)) = &parts.parent {
            let (config, tensors) = (&parts.flow_config, flow.tensors()?);
            let mut flow = FastFlow::from_tensors(config, store.shapes(), tensors, &self.device)?;
            flow.set_activations(self.config.activations);
            return Ok(flow);
        }
        let mut flow = FastFlow::init(
            &parts.flow_config,
            store.shapes(),
            self.config.seed,
            &self.device,
        )?;
        flow.set_activations(self.config.activations);
        store.fit_norm(&mut flow)?;
        Ok(flow)
    }

    fn training_record(
        &self,
        parts: &Parts,
        data_hash: String,
        images: usize,
        data: &Data<'_>,
        held_out_nll: f64,
    ) -> TrainingRecord {
        let config = &self.config;
        TrainingRecord {
            dataset: config.dataset.clone(),
            data_hash,
            images,
            held_out: names(data.dataset, data.held_out),
            final_fit: config.final_fit,
            preset: config.preset,
            seed: config.seed,
            epochs: config.epochs,
            batch: config.batch,
            learning_rate: config.learning_rate,
            schedule: config.schedule,
            weight_decay: config.weight_decay,
            gradient_clip: config.gradient_clip,
            augmentation: config.augmentation.clone(),
            held_out_nll,
            stopping: None,
            parent: parts.parent.as_ref().map(|(_, name)| name.clone()),
            program: format!("fastflow {}", env!("CARGO_PKG_VERSION")),
        }
    }

    fn assemble(
        &self,
        parts: Parts,
        flow: FastFlow,
        name: &str,
        calibration: Calibration,
        training: TrainingRecord,
    ) -> Result<Detector> {
        let config = DetectorConfig {
            schema_version: SCHEMA_VERSION,
            name: name.to_string(),
            backbone: parts.record,
            feature_shapes: flow.shapes().to_vec(),
            preprocessing: parts.preprocessing,
            flow: parts.flow_config,
            scoring: self.config.scoring.clone(),
            calibration: Some(calibration),
            training: Some(training),
            metrics: Default::default(),
            fixture_score: None,
            licence: None,
            notes: None,
        };
        let mut detector = Detector::new(config, parts.backbone, flow, self.device.clone())?;
        let score = detector.fixture_score()?;
        detector.config_mut().fixture_score = Some(score);
        Ok(detector)
    }
}

fn names(dataset: &Dataset, samples: &[Sample]) -> Vec<String> {
    let name = |sample: &Sample| sample.name(&dataset.root);
    samples.iter().map(name).collect()
}

fn plain_jobs(samples: &[Sample]) -> Vec<Job> {
    let job = |sample: &Sample| Job {
        sample: sample.clone(),
        view: View::IDENTITY,
    };
    samples.iter().map(job).collect()
}

fn tensors_hash(flow: &FastFlow) -> Result<String> {
    let mut hasher = Sha256::new();
    for (name, tensor) in flow.tensors()? {
        hasher.update(name.as_bytes());
        let values = tensor
            .flatten_all()?
            .to_dtype(candle_core::DType::F32)?
            .to_vec1::<f32>()?;
        hasher.update(bytemuck::cast_slice(&values));
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
