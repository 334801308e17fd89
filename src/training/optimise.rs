//! The training loop: epochs of steps over cached features, with checkpoints.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Tensor};
use serde_json::json;

use super::{
    AdamConfig, DeviceFeatures, EpochRecord, Gradients, Progress, TrainConfig, batch_gradients,
    checkpoint::{self, Checkpoint, Kept, Position},
    device_step,
    early_stopping::{Best, Validator},
    gradients::per_value,
    guard,
    learner::Learner,
    mean_nll,
    order::epoch_order,
    run::RunFolder,
};
use crate::{
    Advice, Error, Result,
    estimators::{FeatureSource, Fitting, Trainable},
};

/// On a GPU the loss is read back after so many steps.
const READ_EVERY: usize = 20;

/// One run's fixed surroundings.
pub(super) struct Optimisation<'a> {
    pub config: &'a TrainConfig,
    pub device: &'a Device,
    pub folder: &'a RunFolder,
    pub fingerprint: String,
    /// Whether this is the second run, on all images.
    pub final_fit: bool,
}

/// What changes from step to step.
pub(super) struct State {
    pub(super) model: Box<dyn Trainable>,
    pub(super) learner: Learner,
    pub(super) position: Position,
    /// Copies of the model's tensors in earlier states.
    pub(super) kept: Kept,
    saved: Instant,
}

/// What reading a GPU's optimizer brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// The sums are up to date.
    Yes,
    /// It was not the time to look.
    No,
    /// A step was refused, and all after it.
    Refused,
}

/// A trained model and its epochs.
pub(super) struct Fitted {
    pub model: Box<dyn Trainable>,
    pub history: Vec<EpochRecord>,
    /// Which epoch the stopping rule kept.
    pub best: Option<Best>,
}

/// The checkpoint to go on from; without `resume` an earlier run's files are removed.
pub(super) fn open_checkpoint(
    folder: &RunFolder,
    resume: bool,
    fingerprint: &str,
) -> Result<Option<Checkpoint>> {
    let path = folder.checkpoint();
    if !resume {
        if path.is_file() {
            folder.clear()?;
        }
        return Ok(None);
    }
    if !path.is_file() {
        return Err(Error::Training(format!(
            "nothing to resume: {} does not exist",
            path.display()
        ))
        .advise(Advice::StartAnew));
    }
    let checkpoint = checkpoint::load(&path)?;
    if checkpoint.position.fingerprint != fingerprint {
        return Err(Error::Training(format!(
            "{} belongs to a run with other settings, images or program version; repeat what it was \
             started with",
            path.display()
        ))
        .advise(Advice::StartAnew));
    }
    Ok(Some(checkpoint))
}

impl Optimisation<'_> {
    /// Trains `model` (or what the checkpoint holds) for the configured epochs, or until `validator` sees no better
    /// one; then the best one's is returned.
    pub(super) fn fit(
        &self,
        model: Box<dyn Trainable>,
        checkpoint: Option<Checkpoint>,
        store: &dyn FeatureSource,
        held_out: &dyn FeatureSource,
        validator: Option<&Validator<'_>>,
        progress: &mut dyn Progress,
    ) -> Result<Fitted> {
        let views = self.config.augmentation.as_ref().map_or(1, |a| a.count);
        let mut state = self.start(model, checkpoint)?;
        let resident = self.resident(&state, store, progress)?;
        let held_out = match &resident {
            Some(_) => DeviceFeatures::new(held_out, self.device)?,
            None => DeviceFeatures::streamed(held_out, self.device),
        };
        while state.position.epoch < self.config.epochs && !self.is_over(&state.position) {
            let epoch = state.position.epoch;
            let order = epoch_order(self.config.seed, epoch, store.len() / views, views);
            if state.kept.sound.is_empty() {
                let held_out_nll = mean_nll(state.model.as_ref(), &held_out)?;
                self.keep(&mut state, held_out_nll, None)?;
            }
            if !self.run_epoch(&mut state, store, resident.as_ref(), &order, progress)? {
                self.go_back(&mut state, progress)?;
                continue;
            }
            let started = Instant::now();
            let held_out_nll = mean_nll(state.model.as_ref(), &held_out)?;
            state.position.seconds += started.elapsed().as_secs_f64();
            let nll = state.position.loss / order.len() as f64;
            let nll = per_value(nll, state.model.as_ref());
            if !state.position.guard.accepts(held_out_nll, nll) {
                self.go_back(&mut state, progress)?;
                continue;
            }
            let record = self.end_epoch(&mut state, held_out_nll, order.len());
            let record = self.validate(&mut state, record, validator)?;
            self.folder.event("epoch", &record)?;
            progress.epoch(&record, self.config.epochs);
            state.position.history.push(record);
            self.keep(&mut state, held_out_nll, Some(nll))?;
        }
        self.save(&mut state)?;
        self.folder
            .event("end", &json!({ "epochs": state.position.epoch }))?;
        self.finish(state)
    }

    /// The training set on a GPU, where that is what trains.
    fn resident<'a>(
        &self,
        state: &State,
        store: &'a dyn FeatureSource,
        progress: &mut dyn Progress,
    ) -> Result<Option<DeviceFeatures<'a>>> {
        let Learner::Device(_) = state.learner else {
            return Ok(None);
        };
        let features = DeviceFeatures::new(store, self.device)?;
        if !features.is_resident() {
            progress.note(
                "the features do not fit the GPU's memory: batches are copied there one by one",
            );
        }
        Ok(Some(features))
    }

    fn is_over(&self, position: &Position) -> bool {
        match (&self.config.stop, &position.best) {
            (Some(stop), Some(best)) => best.is_final(stop, position.epoch),
            _ => false,
        }
    }

    fn finish(&self, state: State) -> Result<Fitted> {
        let best = state.position.best;
        let model = match best {
            None => state.model,
            Some(_) => self.with_tensors(state.model.as_ref(), state.kept.best)?,
        };
        Ok(Fitted {
            model,
            history: state.position.history,
            best,
        })
    }

    /// Lets the stopping rule see an epoch that is over.
    fn validate(
        &self,
        state: &mut State,
        mut record: EpochRecord,
        validator: Option<&Validator<'_>>,
    ) -> Result<EpochRecord> {
        let Some(validator) = validator else {
            return Ok(record);
        };
        let auroc = validator.auroc(state.model.as_ref())?;
        record.synthetic_auroc = Some(auroc);
        let this = Best {
            epoch: record.epoch,
            auroc,
            held_out_nll: record.held_out_nll,
        };
        if this.beats(state.position.best.as_ref()) {
            state.position.best = Some(this);
            state.kept.best = guard::copied(state.model.tensors()?)?;
        }
        Ok(record)
    }

    fn start(&self, model: Box<dyn Trainable>, checkpoint: Option<Checkpoint>) -> Result<State> {
        // A checkpoint of the second run says that the first was complete: its model is needed no more,
        // and is trained again only for the threshold.
        let checkpoint = checkpoint.filter(|c| c.position.final_fit == self.final_fit);
        let (model, kept, restored) = match checkpoint {
            None => (model, Kept::default(), None),
            Some(Checkpoint {
                position,
                model: tensors,
                kept,
                adam,
            }) => {
                let model = self.with_tensors(model.as_ref(), tensors)?;
                (model, kept, Some((position, adam)))
            }
        };
        let mut learner = self.learner(model.as_ref())?;
        let position = match restored {
            None => {
                self.folder.event("start", self.config)?;
                Position {
                    fingerprint: self.fingerprint.clone(),
                    final_fit: self.final_fit,
                    ..Position::default()
                }
            }
            Some((position, moments)) => {
                learner.restore(&moments, position.optimizer_steps)?;
                let at = json!({ "epoch": position.epoch, "step": position.step });
                self.folder.event("resume", &at)?;
                position
            }
        };
        Ok(State {
            model,
            learner,
            position,
            kept,
            saved: Instant::now(),
        })
    }

    /// A fresh optimizer.
    pub(super) fn learner(&self, model: &dyn Trainable) -> Result<Learner> {
        let config = AdamConfig {
            learning_rate: self.config.learning_rate,
            weight_decay: self.config.weight_decay,
            ..AdamConfig::default()
        };
        Learner::new(model, config, self.device)
    }

    /// The model with other tensors.
    pub(super) fn with_tensors(
        &self,
        model: &dyn Trainable,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<Box<dyn Trainable>> {
        let config = model.config();
        let mut model = match config.fitting() {
            Fitting::Gradient(method) => {
                method.load_trainable(model.shapes(), tensors, self.device)?
            }
            Fitting::Closed(_) | Fitting::Members(_) => {
                return Err(config.lacks("gradients to train by"));
            }
        };
        model.set_activations(self.config.activations);
        Ok(model)
    }

    /// Goes through the rest of the epoch's steps; false where loss or gradient were not finite in one.
    fn run_epoch(
        &self,
        state: &mut State,
        store: &dyn FeatureSource,
        resident: Option<&DeviceFeatures<'_>>,
        order: &[usize],
        progress: &mut dyn Progress,
    ) -> Result<bool> {
        let batches: Vec<&[usize]> = order.chunks(self.config.batch).collect();
        let steps = (self.config.epochs * batches.len()) as u64;
        let limit = self.gradient_limit(&state.position);
        while state.position.step < batches.len() {
            let started = Instant::now();
            let batch = batches[state.position.step];
            let done = (state.position.epoch * batches.len() + state.position.step) as u64;
            let factor = self.config.schedule.factor(done, steps);
            let rate = self.config.learning_rate * factor * state.position.guard.factor();
            state.learner.set_learning_rate(rate);
            match (&mut state.learner, resident) {
                (Learner::Device(adam), Some(features)) => {
                    device_step(state.model.as_ref(), adam, features, batch, limit)?;
                }
                _ => {
                    let gradients =
                        batch_gradients(state.model.as_ref(), store, batch, self.device)?;
                    if !self.apply(state, gradients, batch.len(), limit)? {
                        return Ok(false);
                    }
                }
            }
            state.position.step += 1;
            let looked = match self.look(state, state.position.step == batches.len())? {
                Looked::Refused => return Ok(false),
                looked => looked == Looked::Yes,
            };
            state.position.seconds += started.elapsed().as_secs_f64();
            if looked {
                self.tell(state, batches.len(), order.len(), progress);
            }
            let stop = progress.interrupted();
            let save = stop || state.saved.elapsed() >= self.config.checkpoint_every;
            if save && self.look(state, true)? == Looked::Refused {
                return Ok(false);
            }
            if stop {
                let path = self.save(state)?;
                return Err(Error::Training(format!(
                    "interrupted in epoch {} of {}; the state is in {}",
                    state.position.epoch + 1,
                    self.config.epochs,
                    path.display()
                ))
                .advise(Advice::Resume));
            }
            if save {
                self.save(state)?;
            }
        }
        Ok(true)
    }

    /// Largest gradient norm of a step in this epoch.
    fn gradient_limit(&self, position: &Position) -> Option<f64> {
        let norms = || position.history.iter().map(|epoch| epoch.gradient_norm);
        let adaptive = self
            .config
            .adaptive_clip
            .then(|| guard::adaptive_limit(norms()));
        self.config.gradient_clip.or(adaptive.flatten())
    }

    fn tell(&self, state: &State, steps: usize, images: usize, progress: &mut dyn Progress) {
        let position = &state.position;
        let seen = (position.step * self.config.batch).min(images);
        let (epoch, loss) = (position.epoch + 1, position.loss / seen as f64);
        progress.step(epoch, self.config.epochs, position.step, steps, loss);
    }

    /// Brings the position's sums up to date, on a GPU only now and then or when they `must` be.
    fn look(&self, state: &mut State, must: bool) -> Result<Looked> {
        let Learner::Device(adam) = &mut state.learner else {
            return Ok(Looked::Yes);
        };
        if !must && !state.position.step.is_multiple_of(READ_EVERY) {
            return Ok(Looked::No);
        }
        let queued = adam.steps();
        let progressed = adam.progressed()?;
        // Steps that were refused did not happen.
        state.position.step -= (queued - adam.steps()) as usize;
        state.position.loss += progressed.loss;
        state.position.gradient_norm += progressed.gradient_norm;
        match progressed.refused {
            None => Ok(Looked::Yes),
            Some((loss, norm)) => {
                let loss = loss / self.config.batch as f64;
                self.refused(state, loss, norm)?;
                Ok(Looked::Refused)
            }
        }
    }

    /// A step that was not taken because its loss or gradient is not finite: an error where there is no other way.
    fn refused(&self, state: &mut State, loss: f64, norm: f64) -> Result<()> {
        let finite_start = state
            .position
            .guard
            .held_out_nll
            .is_some_and(f64::is_finite);
        match finite_start && state.position.guard.may_retry() {
            true => Ok(()),
            false => Err(self.diverged(state, loss, norm)?),
        }
    }

    /// Saves the last good state and says what went wrong.
    fn diverged(&self, state: &mut State, loss: f64, norm: f64) -> Result<Error> {
        let path = self.save(state)?;
        Ok(Error::Training(format!(
            "the loss became {loss} (gradient norm {norm}) in epoch {}, step {}; the last good state is in {}",
            state.position.epoch + 1,
            state.position.step + 1,
            path.display()
        ))
        .advise(Advice::SmallerSteps))
    }

    /// One step of the CPU's optimizer; false, and no step, where loss or gradient is not finite.
    fn apply(
        &self,
        state: &mut State,
        gradients: Gradients,
        images: usize,
        limit: Option<f64>,
    ) -> Result<bool> {
        let norm = gradients.norm() / images as f64;
        if !gradients.loss.is_finite() || !norm.is_finite() {
            self.refused(state, gradients.loss / images as f64, norm)?;
            return Ok(false);
        }
        let clip = match limit {
            Some(limit) if norm > limit => limit / norm,
            _ => 1.0,
        };
        if let Learner::Host(adam) = &mut state.learner {
            adam.step(&gradients.values, (clip / images as f64) as f32)?;
        }
        state.position.loss += gradients.loss;
        state.position.gradient_norm += norm;
        Ok(true)
    }

    fn end_epoch(&self, state: &mut State, held_out_nll: f64, images: usize) -> EpochRecord {
        let position = &mut state.position;
        let loss = position.loss / images as f64;
        let record = EpochRecord {
            epoch: position.epoch + 1,
            loss,
            nll: per_value(loss, state.model.as_ref()),
            held_out_nll,
            synthetic_auroc: None,
            gradient_norm: position.gradient_norm / position.step.max(1) as f64,
            seconds: position.seconds,
        };
        position.epoch += 1;
        (
            position.step,
            position.loss,
            position.gradient_norm,
            position.seconds,
        ) = (0, 0.0, 0.0, 0.0);
        record
    }

    fn save(&self, state: &mut State) -> Result<PathBuf> {
        let path = self.folder.checkpoint();
        state.position.optimizer_steps = state.learner.steps();
        let moments = state.learner.state()?;
        checkpoint::save(
            &path,
            &state.position,
            state.model.as_ref(),
            &state.kept,
            moments,
        )?;
        state.saved = Instant::now();
        let at = json!({ "epoch": state.position.epoch, "step": state.position.step });
        self.folder.event("checkpoint", &at)?;
        Ok(path)
    }
}
