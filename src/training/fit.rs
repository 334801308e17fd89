//! One fit of an estimator to features: by the optimiser or in closed form, as the method is.

use candle_core::Device;

use super::{
    DeviceFeatures, EpochRecord, Progress, TrainConfig,
    calibration::{calibrate_maps, native_maps},
    checkpoint::Checkpoint,
    early_stopping::Validator,
    mean_nll,
    optimise::{self, Optimisation},
    run::RunFolder,
    trainer::Parts,
};
use crate::{
    Result,
    detector::{Calibration, StoppingRecord},
    estimators::{
        ClosedMethod, Estimator, FeatureSource, FitWith, Fitting, GradientMethod, SomeMaps,
        Trainable,
        ensemble::{Ensemble, EnsembleConfig},
    },
    features::Records,
};

/// Everything that fits of one run share.
pub(super) struct Fit<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) device: &'a Device,
    pub(super) folder: &'a RunFolder,
    pub(super) fingerprint: &'a str,
    pub(super) parts: &'a Parts,
}

/// The features of a run, by their use.
pub(super) struct Data<'a> {
    /// Without the held-out images; none where that fit is over.
    pub(super) train: Option<Records<'a>>,
    pub(super) held_out: Records<'a>,
    /// Which photos those are; none of views.
    pub(super) held_out_names: &'a [String],
    /// Held-out images included, where a final fit is wanted.
    pub(super) all: Option<Records<'a>>,
    pub(super) validation: Option<Validation<'a>>,
    /// Where no photo is held out: each is in one fold.
    pub(super) folds: Vec<Fold<'a>>,
}

/// Some photos, and all others with their views.
pub(super) struct Fold<'a> {
    pub(super) train: Records<'a>,
    pub(super) left_out: Records<'a>,
    /// The left out ones, by name.
    pub(super) names: &'a [String],
}

/// What the stopping rule validates by.
pub(super) struct Validation<'a> {
    pub(super) features: Records<'a>,
    pub(super) defective: Vec<bool>,
}

impl Data<'_> {
    pub(super) fn validation(&self) -> Option<&Validation<'_>> {
        self.validation.as_ref()
    }
}

/// A fitted estimator.
pub(super) struct Fitted {
    pub(super) estimator: Box<dyn Estimator>,
    /// The epochs of a method that has them.
    pub(super) history: Vec<EpochRecord>,
    /// Which epoch the stopping rule kept.
    pub(super) best: Option<StoppingRecord>,
    /// Mean negative log-likelihood a feature value of the held-out images, of a method that has one.
    pub(super) held_out_nll: Option<f64>,
}

impl Fit<'_> {
    /// Fits to `features`; `last` on all images, after the thresholds were set.
    pub(super) fn run(
        &self,
        last: bool,
        features: &dyn FeatureSource,
        held_out: &dyn FeatureSource,
        validation: Option<&Validation<'_>>,
        checkpoint: Option<Checkpoint>,
        progress: &mut dyn Progress,
    ) -> Result<Fitted> {
        match self.parts.estimator.fitting() {
            Fitting::Closed(method) => self.closed(method, features, progress),
            Fitting::Members(ensemble) => {
                self.members(last, ensemble, features, held_out, progress)
            }
            Fitting::Gradient(method) => {
                let stages = (last, validation, checkpoint);
                self.optimised(method, features, held_out, stages, progress)
            }
        }
    }

    /// An ensemble: every member fitted to its maps, then all made comparable by the held-out images.
    fn members(
        &self,
        last: bool,
        ensemble: &EnsembleConfig,
        features: &dyn FeatureSource,
        held_out: &dyn FeatureSource,
        progress: &mut dyn Progress,
    ) -> Result<Fitted> {
        let (mut members, mut history, mut held_out_nll) = (Vec::new(), Vec::new(), None);
        for member in &ensemble.members {
            progress.note(&format!("fitting {}", member.estimator.title()));
            let own = SomeMaps::new(features, &member.maps);
            let own_held_out = SomeMaps::new(held_out, &member.maps);
            let fitted = match member.estimator.fitting() {
                Fitting::Closed(method) => self.closed(method, &own, progress)?,
                Fitting::Gradient(method) => {
                    let stages = (last, None, None);
                    self.optimised(method, &own, &own_held_out, stages, progress)?
                }
                Fitting::Members(_) => return Err(member.estimator.lacks("place in an ensemble")),
            };
            members.push(fitted.estimator);
            history.extend(fitted.history);
            held_out_nll = held_out_nll.or(fitted.held_out_nll);
        }
        let mut all = Ensemble::new(ensemble, features.shapes(), members)?;
        all.standardise(held_out)?;
        Ok(Fitted {
            estimator: Box::new(all),
            history,
            best: None,
            held_out_nll,
        })
    }

    fn optimised(
        &self,
        method: &dyn GradientMethod,
        features: &dyn FeatureSource,
        held_out: &dyn FeatureSource,
        (last, validation, checkpoint): (bool, Option<&Validation<'_>>, Option<Checkpoint>),
        progress: &mut dyn Progress,
    ) -> Result<Fitted> {
        let run = Optimisation {
            config: self.config,
            device: self.device,
            folder: self.folder,
            fingerprint: self.fingerprint.to_string(),
            final_fit: last,
        };
        let validator = validation.map(|validation| Validator {
            scoring: &self.config.scoring,
            features: &validation.features,
            defective: &validation.defective,
            input: self.parts.input(),
        });
        let model = self.initial(method, features)?;
        let optimise::Fitted {
            model,
            history,
            best,
        } = run.fit(
            model,
            checkpoint,
            features,
            held_out,
            validator.as_ref(),
            progress,
        )?;
        let held_out = DeviceFeatures::streamed(held_out, self.device);
        Ok(Fitted {
            held_out_nll: Some(mean_nll(model.as_ref(), &held_out)?),
            estimator: model,
            history,
            best: best.map(|best| StoppingRecord {
                epoch: best.epoch,
                synthetic_auroc: best.auroc,
            }),
        })
    }

    /// The threshold from folds: each photo's maps are those of a fit to the others.
    ///
    /// # Errors
    /// As [`Self::run`], and when a score is not finite.
    pub(super) fn cross_fit(
        &self,
        folds: &[Fold<'_>],
        progress: &mut dyn Progress,
    ) -> Result<Calibration> {
        let (scoring, rate) = (&self.config.scoring, self.config.false_alarm_rate);
        let (mut maps, mut names) = (Vec::new(), Vec::new());
        progress.note(&format!(
            "threshold: {} more fits, each without a part of the photos",
            folds.len()
        ));
        for fold in folds {
            let fitted = self.run(false, &fold.train, &fold.left_out, None, None, progress)?;
            let estimator = fitted.estimator.as_ref();
            maps.extend(native_maps(estimator, scoring, &fold.left_out)?);
            names.extend_from_slice(fold.names);
        }
        calibrate_maps(&maps, None, &names, scoring, self.parts.input(), rate)
    }

    fn closed(
        &self,
        method: &dyn ClosedMethod,
        features: &dyn FeatureSource,
        progress: &mut dyn Progress,
    ) -> Result<Fitted> {
        let parent = self.parts.parent.as_ref();
        let estimator = method.fit(
            features,
            &mut FitWith {
                seed: self.config.seed,
                device: self.device,
                parent: parent.map(|(parent, _)| parent.as_ref()),
                progress: &mut |done, total| {
                    progress.fitting(done, total);
                    !progress.interrupted()
                },
            },
        )?;
        Ok(Fitted {
            estimator,
            history: Vec::new(),
            best: None,
            held_out_nll: None,
        })
    }

    /// The model before the first step: the parent's, or a fresh one that knows the features' statistics.
    fn initial(
        &self,
        method: &dyn GradientMethod,
        features: &dyn FeatureSource,
    ) -> Result<Box<dyn Trainable>> {
        let shapes = features.shapes();
        let mut model = match &self.parts.parent {
            Some((parent, _)) => method.load_trainable(shapes, parent.tensors()?, self.device)?,
            None => method.init(shapes, self.config.seed, self.device)?,
        };
        model.set_activations(self.config.activations);
        if self.parts.parent.is_none() {
            model.prepare(features)?;
        }
        Ok(model)
    }
}
