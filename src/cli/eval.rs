//! `fastflow eval`: how good is a detector, measured on images it has not seen.

use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_fastflow::{
    datasets::{Dataset, Perturbation},
    detector::Detector,
    evaluation::{self, Evaluation, Metrics, Options},
    report::{ReportInput, Table},
};

use super::{Outcome, common, dataset::DataArgs, figures, progress, scoring::ScoringArgs};

/// Perturbed and synthetic test sets are the same for every detector of the same photos: one fixed seed.
const SEED: u64 = 0;

#[derive(clap::Args)]
#[command(
    after_help = "Example: fastflow eval my-detector --data mvtec/screw --report screw.html --perturb all"
)]
pub struct Args {
    #[command(flatten)]
    detector: common::DetectorArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Write a page with curves, all images and where verdicts and labels disagree; opens offline
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Measure again on test photos made harder (unaligned: moved, turned, scaled, the paper's section 8;
    /// brightness, blur, jpeg; or all) or as photos simply arrive (jpeg-85, blur-1px, brightness-10, noise-5; or mild)
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_parser = perturbations, conflicts_with = "synthetic_defects")]
    perturb: Vec<Vec<Perturbation>>,
    /// Score pixels at N x N with masks resized to it (as many ports do) instead of the masks' own resolution
    #[arg(long, value_name = "N")]
    pixel_size: Option<usize>,
    /// Without real defects: measure on synthetic ones (pasted patches, scars, blots) in the photos that
    /// training held out
    #[arg(long)]
    synthetic_defects: bool,
    #[command(flatten)]
    photos: common::PhotoArgs,
    #[command(flatten)]
    scoring: ScoringArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// With --json: the score of every image too
    #[arg(long, requires = "json")]
    scores: bool,
    #[command(flatten)]
    compute: common::Compute,
}

fn perturbations(name: &str) -> Result<Vec<Perturbation>, String> {
    match name {
        "all" => return Ok(Perturbation::HARD.to_vec()),
        "mild" => return Ok(Perturbation::MILD.to_vec()),
        _ => {}
    }
    let one = name.parse::<Perturbation>();
    one.map(|one| vec![one])
        .map_err(|e| format!("{e}, all, mild"))
}

/// The original test set, and the figures of the perturbed ones by their names.
struct Measured {
    original: Evaluation,
    perturbed: Vec<(&'static str, Metrics)>,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let device = args.compute.start()?;
    let mut dataset = args.data.open()?.read_as(args.photos.reading());
    if !args.synthetic_defects && !dataset.test.iter().any(|sample| sample.is_defective()) {
        bail!(
            "{}: holds no defective test photos to measure on; --synthetic-defects puts some into the good \
             photos that training held out",
            dataset.root.display()
        );
    }
    if let Some(report) = &args.report {
        common::make_room("--report", report)?;
    }
    let mut detector = args.detector.load(&device)?;
    args.photos.turn(&mut detector)?;
    if args.synthetic_defects {
        dataset = with_synthetic_defects(dataset, &detector)?;
    }
    detector.set_scoring(args.scoring.apply(&detector.config().scoring))?;
    let measured = measure(&args, &detector, &dataset)?;
    common::tell(measured.original.notes(&detector));
    if let Some(path) = &args.report {
        write_report(&args, path, &detector, &dataset, &measured)?;
    }
    if args.json {
        json(&args, &measured)?;
    } else {
        tables(&args, &detector.config().name, &measured)?;
    }
    Ok(Outcome::Done)
}

fn measure(args: &Args, detector: &Detector, dataset: &Dataset) -> anyhow::Result<Measured> {
    let options = Options {
        pixel_size: args.pixel_size,
    };
    let evaluate = |what: &str, dataset: &Dataset| -> anyhow::Result<Evaluation> {
        let bar = progress::counter(args.json, what, dataset.test.len());
        let evaluation = evaluation::evaluate(detector, dataset, options, &mut |done, _| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        Ok(evaluation)
    };
    let original = evaluate("evaluating", dataset)?;
    let mut perturbed: Vec<(&str, Metrics)> = Vec::new();
    for how in args.perturb.iter().flatten() {
        if perturbed.iter().all(|(name, _)| *name != how.name()) {
            let harder = dataset.perturbed(*how, SEED)?;
            perturbed.push((how.name(), evaluate(how.name(), &harder)?.metrics));
        }
    }
    Ok(Measured {
        original,
        perturbed,
    })
}

fn with_synthetic_defects(dataset: Dataset, detector: &Detector) -> anyhow::Result<Dataset> {
    let Some(record) = &detector.config().training else {
        bail!("--synthetic-defects: this detector does not record which photos training held out");
    };
    if record.final_fit || record.held_out.is_empty() {
        bail!(
            "--synthetic-defects needs photos that training did not see, and this detector was trained \
             on all of them; `fastflow train --folds 1` holds some out"
        );
    }
    if dataset.hash()? != record.data_hash {
        bail!(
            "--synthetic-defects: {} does not hold the photos that this detector was trained on, and the ones it \
             held out are among those",
            dataset.root.display()
        );
    }
    Ok(dataset.with_synthetic_defects(&record.held_out, SEED)?)
}

fn write_report(
    args: &Args,
    path: &Path,
    detector: &Detector,
    dataset: &Dataset,
    measured: &Measured,
) -> anyhow::Result<()> {
    let bar = progress::counter(args.json, "report", dataset.test.len());
    let Measured {
        original,
        perturbed,
    } = measured;
    let page = ReportInput::of_evaluation(detector, dataset, original, perturbed, &|done| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    Ok(page.write(path)?)
}

fn json(args: &Args, measured: &Measured) -> anyhow::Result<()> {
    let evaluation = &measured.original;
    let mut object = serde_json::to_value(&evaluation.metrics)?;
    object["images"] = evaluation.images.len().into();
    object["intervals"] = serde_json::to_value(&evaluation.intervals)?;
    object["classes"] = serde_json::to_value(&evaluation.classes)?;
    for (name, metrics) in &measured.perturbed {
        object["perturbed"][name] = serde_json::to_value(metrics)?;
    }
    if args.scores {
        object["scores"] = serde_json::to_value(&evaluation.images)?;
    }
    common::print_line(object)
}

fn tables(args: &Args, name: &str, measured: &Measured) -> anyhow::Result<()> {
    common::print_line(figures::metrics(name, &measured.original))?;
    let classes = Table::of_classes(&measured.original.classes);
    common::print_line(figures::table(classes))?;
    if !measured.perturbed.is_empty() {
        let original = &measured.original.metrics;
        let perturbed = Table::of_perturbed(original, &measured.perturbed);
        common::print_line(figures::table(perturbed))?;
    }
    match &args.report {
        Some(path) => common::print_line(format!("report: {}", path.display())),
        None => Ok(()),
    }
}
