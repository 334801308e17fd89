//! `fastflow eval`: how good is a detector, measured on images it has not seen.

use std::path::PathBuf;

use anyhow::bail;
use candle_fastflow::{
    datasets::{self, Dataset},
    detector::Detector,
    evaluation::{self, Evaluation, Options},
};

use super::{Outcome, common, scoring::ScoringArgs};

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow eval my-detector --data mvtec/screw --json")]
pub struct Args {
    #[command(flatten)]
    detector: common::DetectorArgs,
    /// A data set with test images (MVTec AD's layout, or good/ and defect/ folders)
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Score pixels at N x N with masks resized to it (as many ports do) instead of the masks' own resolution
    #[arg(long, value_name = "N")]
    pixel_size: Option<usize>,
    /// Without real defects: measure on synthetic ones (pasted patches, scars, blots) in the photos that
    /// training held out
    #[arg(long)]
    synthetic_defects: bool,
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

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let device = args.compute.start()?;
    let mut dataset = datasets::open(&args.data)?;
    if !args.synthetic_defects && !dataset.test.iter().any(|sample| sample.is_defective()) {
        bail!(
            "{}: holds no defective test photos to measure on; --synthetic-defects puts some into the good \
             photos that training held out",
            dataset.root.display()
        );
    }
    let mut detector = args.detector.load(&device)?;
    if args.synthetic_defects {
        dataset = with_synthetic_defects(dataset, &detector)?;
    }
    detector.set_scoring(args.scoring.apply(&detector.config().scoring))?;
    let bar = super::progress::counter(args.json, "evaluating", dataset.test.len());
    let options = Options {
        pixel_size: args.pixel_size,
    };
    let evaluation = evaluation::evaluate(&detector, &dataset, options, &mut |done, _| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if args.json {
        json(&args, &evaluation)?
    } else {
        table(&detector.config().name, &evaluation)?
    }
    Ok(Outcome::Done)
}

/// Synthetic defects are the same for every detector of the same photos: one fixed seed.
fn with_synthetic_defects(dataset: Dataset, detector: &Detector) -> anyhow::Result<Dataset> {
    let Some(record) = &detector.config().training else {
        bail!("--synthetic-defects: this detector does not record which photos training held out");
    };
    if record.final_fit {
        bail!(
            "--synthetic-defects needs photos that training did not see, and this detector was trained \
             on all of them (--final)"
        );
    }
    if dataset.hash()? != record.data_hash {
        bail!(
            "--synthetic-defects: {} does not hold the photos that this detector was trained on, and the ones it \
             held out are among those",
            dataset.root.display()
        );
    }
    Ok(dataset.with_synthetic_defects(&record.held_out, 0)?)
}

fn json(args: &Args, evaluation: &Evaluation) -> anyhow::Result<()> {
    let mut object = serde_json::to_value(&evaluation.metrics)?;
    object["images"] = evaluation.images.len().into();
    if args.scores {
        object["scores"] = serde_json::to_value(&evaluation.images)?;
    }
    common::print_line(object)
}

fn table(name: &str, evaluation: &Evaluation) -> anyhow::Result<()> {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY)
        .set_header([name, ""]);
    for (metric, value) in evaluation.metrics.to_map() {
        table.add_row([metric, format!("{value:.4}")]);
    }
    common::print_line(table)?;
    let mut classes = comfy_table::Table::new();
    classes
        .load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["class", "images", "called defective"]);
    for class in evaluation.classes() {
        classes.add_row([
            class.name,
            class.images.to_string(),
            class.called_defective.to_string(),
        ]);
    }
    common::print_line(classes)
}
