//! Trains and measures a plan's cells, one after the other, and leaves out what is there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;

use super::{
    cells::{Cell, Share},
    plan::Plan,
    result::{CellResult, Inputs, Scored},
    settings::Settings,
};
use crate::{
    Error, Result, backbones,
    datasets::{self, Dataset},
    detector::{BackboneRecord, CONFIG_FILE, DatasetRecord, Detector, LoadOptions},
    evaluation::{self, speed::Speed},
    files,
    hub::{self, CardFacts, DatasetFacts, RepoId, names::DEFAULT_NAMESPACE},
    training::{self, CHECKPOINT_FILE, EVENTS_FILE, Origin, RUN_FOLDER, Trainer},
};

/// Rounds behind each median of the speed.
const SPEED_ROUNDS: usize = 5;
/// Beside the checkpoint: what it was made from.
const INPUTS_FILE: &str = "inputs.json";
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
    downloads: hub::Progress<'a>,
    /// Opened data sets with their hashes, by category.
    data: HashMap<String, (Dataset, String)>,
    /// Weights and their records, by id.
    weights: HashMap<String, (Option<PathBuf>, BackboneRecord)>,
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
            downloads,
            data: HashMap::new(),
            weights: HashMap::new(),
        }
    }

    /// Runs a share of the cells. One that fails does not stop the others.
    ///
    /// # Errors
    /// When interrupted; the same call goes on from there.
    pub fn run(&mut self, share: Share, progress: &mut dyn Progress) -> Result<Summary> {
        let cells = share.of(self.plan.cells());
        let mut summary = Summary::default();
        let open = cells.iter().filter(|cell| !self.seems_done(cell)).count();
        let started = Instant::now();
        for (index, cell) in cells.iter().enumerate() {
            let behind = summary.done + summary.failed.len();
            let each = started.elapsed().checked_div(behind as u32);
            let left = each.map(|each| each * open.saturating_sub(behind) as u32);
            progress.cell(cell, index + 1, cells.len(), left);
            let result = self.cell(cell, progress);
            if progress.interrupted() {
                return Err(Error::Training(
                    "interrupted; the same command goes on from here".into(),
                ));
            }
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
        let (mut result, mut detector, trained) = match before {
            Some(result) => (result, None, false),
            None => {
                let (result, detector) = self.train(cell, inputs, progress)?;
                result.write(&path)?;
                remove(&folder.join(RUN_FOLDER).join(CHECKPOINT_FILE))?;
                (result, Some(detector), true)
            }
        };
        let scored = self.rescore(cell, &mut result, &mut detector, progress)?;
        if scored {
            result.write(&path)?;
        }
        Ok(trained || scored)
    }

    fn inputs(&mut self, cell: &Cell) -> Result<Inputs> {
        let settings = settings(self.plan, cell, &cell.variant)?;
        let data_hash = self.dataset(&cell.category)?.1.clone();
        let record = self.weights(&cell.backbone)?.1.clone();
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

    fn dataset(&mut self, category: &str) -> Result<&(Dataset, String)> {
        if !self.data.contains_key(category) {
            let dataset = datasets::open(&self.plan.data.join(category))?;
            let defective = dataset.test.iter().filter(|s| s.is_defective()).count();
            if defective == 0 || defective == dataset.test.len() {
                return Err(Error::Dataset {
                    path: dataset.root,
                    reason: "needs good and defective test images to measure on".into(),
                });
            }
            dataset.glance()?;
            let hash = dataset.hash()?;
            self.data.insert(category.into(), (dataset, hash));
        }
        Ok(&self.data[category])
    }

    fn weights(&mut self, id: &str) -> Result<&(Option<PathBuf>, BackboneRecord)> {
        if !self.weights.contains_key(id) {
            let found = hub::find_backbone(id, None, self.downloads)?;
            self.weights.insert(id.into(), found);
        }
        Ok(&self.weights[id])
    }

    /// Trains and measures; the detector's folder is complete afterwards.
    fn train(
        &mut self,
        cell: &Cell,
        inputs: Inputs,
        progress: &mut dyn Progress,
    ) -> Result<(CellResult, Detector)> {
        let folder = cell.detector(self.out);
        remove(&cell.result(self.out))?;
        let mut config = inputs.settings.train_config(cell.seed)?;
        config.dataset = Some(dataset_record(&self.plan.dataset));
        let (path, record) = self.weights(&cell.backbone)?.clone();
        let backbone = backbones::load(&cell.backbone, path.as_deref(), &self.device)?;
        inputs.settings.fit_to(backbone.as_ref(), &mut config)?;
        let mut dataset = self.dataset(&cell.category)?.0.clone();
        dataset.name.clone_from(&inputs.name);
        let resume = resumable(&folder, &inputs)?;
        let started = Instant::now();
        let origin = Origin::Scratch { backbone, record };
        let trainer = Trainer::new(config, self.device.clone())?;
        let mut detector = trainer
            .fit(&dataset, origin, &folder, resume, progress)?
            .detector;
        let seconds = started.elapsed().as_secs_f64();
        let own = measure(&detector, &dataset, &inputs.settings, progress)?;
        detector.config_mut().metrics.clone_from(&own.metrics);
        detector.save(&folder)?;
        write_card(&detector, &folder)?;
        let config = detector.config();
        let mut result = CellResult::new(inputs, config.flow.clone(), self.speed(&detector)?);
        let training = config.training.as_ref();
        result.kept_epoch = training.and_then(|record| Some(record.stopping.as_ref()?.epoch));
        result.seconds = seconds;
        result.scores.insert(cell.variant.clone(), own);
        Ok((result, detector))
    }

    fn speed(&self, detector: &Detector) -> Result<Speed> {
        let (config, device) = (detector.config(), &self.device);
        let (backbone, flow) = (detector.backbone(), detector.flow());
        let (scoring, input) = (&config.scoring, &config.preprocessing);
        Speed::measure(backbone, flow, scoring, input, 1, SPEED_ROUNDS, device)
    }

    /// Scores a cell's detector in the ways that only score, where that is not done; whether something was.
    fn rescore(
        &mut self,
        cell: &Cell,
        result: &mut CellResult,
        detector: &mut Option<Detector>,
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
            if detector.is_none() {
                let options = LoadOptions {
                    backbone_weights: self.weights(&cell.backbone)?.0.clone(),
                    device: self.device.clone(),
                };
                *detector = Some(Detector::load(&cell.detector(self.out), &options)?);
            }
            let Some(detector) = detector.as_mut() else {
                continue;
            };
            let own = result.inputs.settings.train_config(cell.seed)?.scoring;
            detector.set_scoring(settings.scoring(&own))?;
            let dataset = &self.dataset(&cell.category)?.0;
            let scored = measure(detector, dataset, &settings, progress)?;
            result.scores.insert(variant.name.clone(), scored);
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

fn measure(
    detector: &Detector,
    dataset: &Dataset,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<Scored> {
    let options = evaluation::Options {
        pixel_size: settings.pixel_size,
    };
    let evaluation = evaluation::evaluate(detector, dataset, options, &mut |done, total| {
        progress.evaluated(done, total);
    })?;
    Ok(Scored {
        settings: settings.clone(),
        metrics: evaluation.metrics.to_map(),
    })
}

/// Whether a run of the same inputs was broken off here; if not, from now on this one is on record.
fn resumable(folder: &Path, inputs: &Inputs) -> Result<bool> {
    let run = folder.join(RUN_FOLDER);
    let record = run.join(INPUTS_FILE);
    let before = std::fs::read_to_string(&record).ok();
    let before = before.and_then(|text| serde_json::from_str::<Inputs>(&text).ok());
    if before.as_ref() == Some(inputs) && run.join(CHECKPOINT_FILE).is_file() {
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

fn write_card(detector: &Detector, folder: &Path) -> Result<()> {
    let config = detector.config();
    let repo = RepoId::of_detector(DEFAULT_NAMESPACE, &config.backbone.id, &config.name);
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
