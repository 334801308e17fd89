//! Trains and measures a plan's cells, one after the other, and leaves out what is there.

use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::Device;

use super::{
    cells::{Cell, Share},
    plan::Plan,
    resources::Resources,
    result::{CellResult, Inputs, Scored},
};
use crate::{
    Error, Result, backbones,
    datasets::Dataset,
    detector::{CONFIG_FILE, DatasetRecord, Detector, DetectorConfig, LoadOptions, read_config},
    evaluation::{self, TestFeatures},
    files,
    hub::{self, CardFacts, DatasetFacts, RepoId, names::DEFAULT_NAMESPACE},
    speed::Speed,
    training::{
        self, CHECKPOINT_FILE, EVENTS_FILE, INPUTS_FILE, Origin, RUN_FOLDER, Settings, Shape,
        TrainConfig, Trained, Trainer,
    },
};

/// Rounds behind each median of the speed.
const SPEED_ROUNDS: usize = 5;
/// The model card.
const CARD_FILE: &str = "README.md";

/// Hears how a run of cells goes on, and how each training does.
pub trait Progress: training::Progress {
    /// Cell `index` of `of` (from 1) begins; the others will take about `left`.
    fn cell(&mut self, _cell: &Cell, _index: usize, _of: usize, _left: Option<Duration>) {}
    /// `done` of `total` test images are scored.
    fn evaluated(&mut self, _done: usize, _total: usize) {}
    /// A cell failed; the next one follows.
    fn failed(&mut self, _cell: &Cell, _error: &Error) {}
}

impl Progress for training::Silent {}

/// Runs a plan's cells.
pub struct Runner<'a> {
    plan: &'a Plan,
    out: &'a Path,
    device: Device,
    resources: Resources<'a>,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// Cells with some work done.
    pub done: usize,
    /// Cells that were there.
    pub kept: usize,
    /// Cells that failed, and why.
    pub failed: Vec<(Cell, Error)>,
}

impl<'a> Runner<'a> {
    /// A runner of `plan` that writes below `out`; `downloads` hears of weights that have to be fetched.
    pub fn new(
        plan: &'a Plan,
        out: &'a Path,
        device: Device,
        downloads: hub::Progress<'a>,
    ) -> Self {
        Self {
            plan,
            out,
            device,
            resources: Resources::new(&plan.data, plan.limit, downloads),
        }
    }

    /// Runs a share of the cells. One that fails does not stop the others; what data or weights would let fail,
    /// fails before anything is trained.
    ///
    /// # Errors
    /// When interrupted; the same call goes on from there.
    pub fn run(&mut self, share: Share, progress: &mut dyn Progress) -> Result<Summary> {
        let mut summary = Summary::default();
        let cells = self.sound(share.of(self.plan.cells()), &mut summary, progress)?;
        let unsound = summary.failed.len();
        let open = cells.iter().filter(|cell| !self.seems_done(cell)).count();
        let started = Instant::now();
        for (index, cell) in cells.iter().enumerate() {
            let behind = summary.done + summary.failed.len() - unsound;
            let each = started.elapsed().checked_div(behind as u32);
            let left = each.map(|each| each * open.saturating_sub(behind) as u32);
            progress.cell(cell, index + 1, cells.len(), left);
            let result = self.cell(cell, progress);
            go_on(progress)?;
            match result {
                Ok(true) => summary.done += 1,
                Ok(false) => summary.kept += 1,
                Err(error) => {
                    progress.failed(cell, &error);
                    summary.failed.push((cell.clone(), error));
                }
            }
        }
        Ok(summary)
    }

    /// The cells whose images and weights are there and look sound. The others have failed, listed by category.
    fn sound(
        &mut self,
        cells: Vec<Cell>,
        summary: &mut Summary,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Cell>> {
        let mut sound = Vec::with_capacity(cells.len());
        for cell in cells {
            match self.resources.check(&cell) {
                Ok(()) => sound.push(cell),
                Err(error) => summary.failed.push((cell, error)),
            }
            go_on(progress)?;
        }
        let place = |category: &String| self.plan.categories.iter().position(|c| c == category);
        summary
            .failed
            .sort_by_key(|(cell, _)| place(&cell.category));
        for (cell, error) in &summary.failed {
            progress.failed(cell, error);
        }
        Ok(sound)
    }

    /// Which categories of a share's cells cannot be used, and why, without running anything; nothing is said where
    /// the folder of the data is not there.
    pub fn unusable(&mut self, share: Share) -> Vec<(String, Error)> {
        if !self.plan.data.is_dir() {
            return Vec::new();
        }
        let cells = share.of(self.plan.cells());
        let used = |category: &&String| cells.iter().any(|cell| cell.category == **category);
        let categories = self.plan.categories.iter().filter(used);
        let fault =
            |category: &String| Some((category.clone(), self.resources.dataset(category).err()?));
        categories.filter_map(fault).collect()
    }

    /// Whether a cell's result is there and of the plan's settings; data and weights are not looked at.
    pub fn seems_done(&self, cell: &Cell) -> bool {
        finished(self.plan, self.out, cell).is_some_and(|result| {
            let scored = |name: &str| result.scores.contains_key(name);
            self.plan.scorings(cell).iter().all(|v| scored(&v.name))
        })
    }

    /// Whether there was anything to do.
    fn cell(&mut self, cell: &Cell, progress: &mut dyn Progress) -> Result<bool> {
        let inputs = self.inputs(cell)?;
        let (folder, path) = (cell.detector(self.out), cell.result(self.out));
        let before = CellResult::read(&path)?.filter(|result| result.stands(&inputs, &folder));
        let (mut result, mut subject, trained) = match before {
            Some(mut result) => {
                if result.inputs.name != inputs.name {
                    rename(&folder, &inputs.name)?;
                    result.inputs.name = inputs.name;
                    result.write(&path)?;
                }
                (result, None, false)
            }
            None => {
                let (result, subject) = self.train(cell, inputs, progress)?;
                result.write(&path)?;
                remove(&folder.join(RUN_FOLDER).join(CHECKPOINT_FILE))?;
                (result, Some(subject), true)
            }
        };
        let scored = self.rescore(cell, &mut result, &mut subject, progress)?;
        Ok(trained || scored)
    }

    fn inputs(&mut self, cell: &Cell) -> Result<Inputs> {
        let settings = settings(self.plan, cell, &cell.variant)?;
        let data_hash = self.resources.hash(&cell.category)?;
        let mut record = self.resources.weights(&cell.backbone)?.1.clone();
        record.taps = settings.backbone_taps(&cell.backbone)?;
        Ok(Inputs {
            dataset: self.plan.dataset.clone(),
            category: cell.category.clone(),
            name: format!("{}{}", self.plan.prefix, cell.category),
            seed: cell.seed,
            settings,
            data_hash,
            backbone: record,
            program: format!("fastflow {}", env!("CARGO_PKG_VERSION")),
        })
    }

    /// Trains and measures; the detector's folder is complete afterwards.
    fn train(
        &mut self,
        cell: &Cell,
        inputs: Inputs,
        progress: &mut dyn Progress,
    ) -> Result<(CellResult, Subject)> {
        let folder = cell.detector(self.out);
        remove(&cell.result(self.out))?;
        let mut settings = inputs.settings.clone();
        if settings.shape() == Shape::OfPhotosFarFromSquare {
            // A plan is to give what it gave: its methods see squares unless it says otherwise.
            settings.aspect = Some(1.0);
        }
        settings.follow(self.resources.dataset(&cell.category)?)?;
        let mut config = settings.resolve(&cell.backbone, cell.seed)?;
        config.dataset = Some(dataset_record(&self.plan.dataset));
        let path = self.resources.weights(&cell.backbone)?.0.clone();
        let record = inputs.backbone.clone();
        let taps = record.taps.as_ref();
        let backbone = backbones::load_with(&cell.backbone, taps, path.as_deref(), &self.device)?;
        let mut dataset = self.resources.dataset(&cell.category)?.clone();
        dataset.name.clone_from(&inputs.name);
        let resume = resumable(&folder, &inputs)?;
        let origin = Origin::Scratch { backbone, record };
        let trainer = Trainer::new(config, self.device.clone())?;
        let Trained { detector, history } =
            trainer.fit(&dataset, origin, &folder, resume, progress)?;
        let mut subject = Subject::new(detector, &dataset, &folder, progress)?;
        let own = subject.measure(&dataset, &inputs.settings, progress)?;
        let detector = &mut subject.detector;
        detector.set_metrics(own.metrics.clone());
        detector.save(&folder)?;
        write_card(detector.config(), &folder)?;
        let config = detector.config();
        let mut result = CellResult::new(inputs, config.estimator.clone(), self.speed(detector)?);
        let training = config.training.as_ref();
        let run = training.and_then(|record| record.optimisation.as_ref());
        result.kept_epoch = run.and_then(|run| Some(run.stopping.as_ref()?.epoch));
        result.seconds = history.iter().map(|epoch| epoch.seconds).sum();
        result.scores.insert(cell.variant.clone(), own);
        Ok((result, subject))
    }

    fn speed(&self, detector: &Detector) -> Result<Speed> {
        let (config, device) = (detector.config(), &self.device);
        let (backbone, estimator) = (detector.backbone(), detector.estimator());
        let (scoring, input) = (&config.scoring, &config.preprocessing);
        Speed::measure(backbone, estimator, scoring, input, 1, SPEED_ROUNDS, device)
    }

    /// Scores a cell's detector in the ways that only score, where that is not done; whether something was. Each
    /// way is on disk as soon as it is measured.
    fn rescore(
        &mut self,
        cell: &Cell,
        result: &mut CellResult,
        subject: &mut Option<Subject>,
        progress: &mut dyn Progress,
    ) -> Result<bool> {
        let variants = self.plan.scorings(cell);
        let mut work = false;
        for variant in variants.into_iter().filter(|v| v.name != cell.variant) {
            let settings = settings(self.plan, cell, &variant.name)?;
            let before = result.scores.get(&variant.name);
            if before.is_some_and(|scored| scored.settings == settings) {
                continue;
            }
            let subject = match subject {
                Some(subject) => subject,
                None => {
                    let options = LoadOptions {
                        backbone_weights: self.resources.weights(&cell.backbone)?.0.clone(),
                        device: self.device.clone(),
                    };
                    let folder = cell.detector(self.out);
                    let detector = Detector::load(&folder, &options)?;
                    let dataset = self.resources.dataset(&cell.category)?;
                    subject.insert(Subject::new(detector, dataset, &folder, progress)?)
                }
            };
            let scoring = settings.resolve(&cell.backbone, cell.seed)?.scoring;
            subject.detector.set_scoring(scoring)?;
            let dataset = self.resources.dataset(&cell.category)?;
            let scored = subject.measure(dataset, &settings, progress)?;
            result.scores.insert(variant.name.clone(), scored);
            result.write(&cell.result(self.out))?;
            work = true;
        }
        Ok(work)
    }
}

impl Share {
    /// The cells of this share.
    pub fn of(self, cells: Vec<Cell>) -> Vec<Cell> {
        cells
            .into_iter()
            .skip(self.index)
            .step_by(self.of)
            .collect()
    }
}

/// A cell's result, if it is of the plan's settings.
pub(super) fn finished(plan: &Plan, out: &Path, cell: &Cell) -> Option<CellResult> {
    let mut result = CellResult::read(&cell.result(out)).ok()??;
    let same = settings(plan, cell, &cell.variant).is_ok_and(|s| s == result.inputs.settings);
    let current = |name: &str, scored: &Scored| {
        settings(plan, cell, name).is_ok_and(|settings| settings == scored.settings)
    };
    result.scores.retain(|name, scored| current(name, scored));
    (same && result.inputs.dataset == plan.dataset).then_some(result)
}

fn settings(plan: &Plan, cell: &Cell, variant: &str) -> Result<Settings> {
    let variant = plan
        .variant(variant)
        .ok_or_else(|| Error::Invalid(format!("the plan has no variant {variant}")))?;
    plan.settings(variant, &cell.category)
}

/// A detector that is measured, in several ways if the plan wants it, on features that are extracted once.
struct Subject {
    detector: Detector,
    features: TestFeatures,
}

impl Subject {
    /// Extracts the test images' features; what is too much for the memory goes to a file in `folder`.
    fn new(
        detector: Detector,
        dataset: &Dataset,
        folder: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let limit = TrainConfig::DEFAULT_MEMORY_LIMIT;
        let features =
            TestFeatures::extract(&detector, dataset, limit, folder, &mut |done, total| {
                progress.features(done, total);
            })?;
        Ok(Self { detector, features })
    }

    fn measure(
        &self,
        dataset: &Dataset,
        settings: &Settings,
        progress: &mut dyn Progress,
    ) -> Result<Scored> {
        let options = evaluation::Options {
            pixel_size: settings.pixel_size,
        };
        let (detector, features) = (&self.detector, &self.features);
        let mut tell = |done, total| progress.evaluated(done, total);
        let evaluation =
            evaluation::evaluate_features(detector, dataset, features, options, &mut tell)?;
        Ok(Scored {
            settings: settings.clone(),
            metrics: evaluation.metrics.to_map(),
        })
    }
}

/// An error when told to end.
fn go_on(progress: &dyn Progress) -> Result<()> {
    match progress.interrupted() {
        true => Err(Error::Training(
            "interrupted; the same command goes on from here".into(),
        )),
        false => Ok(()),
    }
}

/// Whether a run of the same inputs was broken off here; if not, from now on this one is on record.
fn resumable(folder: &Path, inputs: &Inputs) -> Result<bool> {
    let run = folder.join(RUN_FOLDER);
    let record = run.join(INPUTS_FILE);
    let before = std::fs::read_to_string(&record).ok();
    let before = before.and_then(|text| serde_json::from_str::<Inputs>(&text).ok());
    // A checkpoint is of weights found in one way: it has the whole record in its fingerprint.
    let same = |before: Inputs| before.make_the_same(inputs) && before.backbone == inputs.backbone;
    if before.is_some_and(same) && run.join(CHECKPOINT_FILE).is_file() {
        return Ok(true);
    }
    // From now on until it is trained this is no detector's folder.
    remove(&folder.join(CONFIG_FILE))?;
    for file in [CHECKPOINT_FILE, EVENTS_FILE] {
        remove(&run.join(file))?;
    }
    std::fs::create_dir_all(&run).map_err(Error::io(&run))?;
    files::write_json(&record, inputs)?;
    Ok(false)
}

fn dataset_record(id: &str) -> DatasetRecord {
    let facts = DatasetFacts::named(id);
    DatasetRecord {
        name: facts.name,
        licence: facts.licence,
    }
}

/// Gives a detector on disk another name; no number changes.
fn rename(folder: &Path, name: &str) -> Result<()> {
    let mut config = read_config(folder)?;
    config.name = name.into();
    files::write_json(folder.join(CONFIG_FILE), &config)?;
    write_card(&config, folder)
}

fn write_card(config: &DetectorConfig, folder: &Path) -> Result<()> {
    let (backbone, method) = (&config.backbone.id, config.estimator.method());
    let repo = RepoId::of_detector(DEFAULT_NAMESPACE, backbone, method, &config.name);
    let facts = CardFacts {
        reference: repo.ok().map(|repo| repo.short_name(DEFAULT_NAMESPACE)),
        ..CardFacts::default()
    };
    let card = hub::render_card(config, &facts)?;
    files::write_bytes(folder.join(CARD_FILE), card.as_bytes())
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(file)(e)),
        _ => Ok(()),
    }
}
