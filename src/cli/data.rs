//! `fastflow data`: data sets.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use candle_fastflow::datasets::{
    self, CheckReport, folder_name,
    generated::{GenerateOptions, GeneratedProduct},
};

use super::{Outcome, common};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Look at every file: what a folder is recognised as, what it holds, what is wrong with it
    Check(CheckArgs),
    /// Generate photos of a product with and without defects, masks included, to try things on
    Generate(GenerateArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow data check photos/")]
struct CheckArgs {
    /// The folder of a data set, or of several (all categories of MVTec AD, say), or a manifest's CSV file
    dir: PathBuf,
    #[command(flatten)]
    photos: common::PhotoArgs,
    /// Print one JSON object a data set
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow data generate --out fabric --train 200 --seed 1")]
struct GenerateArgs {
    /// Where it goes, in MVTec AD's layout
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Good images to train on
    #[arg(long, value_name = "N", default_value_t = 200)]
    train: usize,
    /// Good images to test on
    #[arg(long, value_name = "N", default_value_t = 60)]
    good: usize,
    /// Defective images to test on
    #[arg(long, value_name = "N", default_value_t = 105)]
    defective: usize,
    /// Pixels a side
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    size: u32,
    /// The seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Only write the few JPEG samples that the program comes with, flat
    #[arg(long, conflicts_with_all = ["train", "good", "defective", "size", "seed"])]
    samples: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    match args.action {
        Action::Check(args) => check(args)?,
        Action::Generate(args) => generate(args)?,
    }
    Ok(Outcome::Done)
}

/// Most problems of a data set that are listed.
const LISTED: usize = 20;

/// Checks the folder, or every category in it.
fn check(args: CheckArgs) -> anyhow::Result<()> {
    common::tell_unread([args.dir.as_path()].into_iter().filter(|dir| dir.is_dir()));
    let folders = if args.dir.is_dir() {
        datasets::categories(&args.dir)?
    } else {
        Vec::new()
    };
    if folders.is_empty() {
        return match check_one(&args.dir, &args)? {
            true => Ok(()),
            false => Err(unusable_error(&[folder_name(&args.dir)])),
        };
    }
    let mut unusable = Vec::new();
    for folder in datasets::no_categories(&args.dir)? {
        cannot_open(
            &folder,
            "has no train/good, so that it is no category",
            args.json,
        )?;
        unusable.push(folder_name(&folder));
    }
    for folder in &folders {
        // One category that cannot be opened does not keep the others from being looked at.
        let usable = match check_one(folder, &args) {
            Ok(usable) => usable,
            Err(why) => {
                cannot_open(folder, &format!("{why:#}"), args.json)?;
                false
            }
        };
        if !usable {
            unusable.push(folder_name(folder));
        }
    }
    match unusable.as_slice() {
        [] => Ok(()),
        some => Err(unusable_error(some)),
    }
}

fn unusable_error(names: &[String]) -> anyhow::Error {
    anyhow!(
        "{}: mend or remove what is marked with an error, training or evaluation would stop at it",
        names.join(", ")
    )
}

/// Prints the report of one data set; whether it is usable.
fn check_one(folder: &Path, args: &CheckArgs) -> anyhow::Result<bool> {
    let as_json = args.json;
    let bar = super::progress::counter(as_json, "checking", 0);
    let report = datasets::check_as(folder, args.photos.reading(), &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if as_json {
        let mut object = serde_json::to_value(&report)?;
        object["hash"] = datasets::open(folder)?.hash()?.into();
        common::print_line(object)?;
    } else {
        common::print(&report_text(&report))?;
    }
    Ok(report.is_usable())
}

fn cannot_open(folder: &Path, why: &str, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let object = serde_json::json!({ "name": folder_name(folder), "error": why });
        return common::print_line(object);
    }
    common::print(&format!("{}:\n  error: {why}\n", folder_name(folder)))
}

/// A report as people read it.
fn report_text(report: &CheckReport) -> String {
    let defective: usize = report.defects.values().sum();
    let mut text = format!(
        "{}: {} normal images to train on; to test on {} good, {defective} defective ({} with a mask)\n",
        report.name, report.train, report.test_normal, report.masks
    );
    let list = |items: Vec<String>| items.join(", ");
    if !report.defects.is_empty() {
        let classes = report.defects.iter();
        text += &format!(
            "  defects: {}\n",
            list(classes.map(|(class, n)| format!("{class} {n}")).collect())
        );
    }
    let sizes = report.sizes.iter().take(5);
    text += &format!(
        "  sizes: {}{}\n",
        list(
            sizes
                .map(|s| format!("{}x{} ({})", s.width, s.height, s.images))
                .collect()
        ),
        if report.sizes.len() > 5 { ", ..." } else { "" }
    );
    // What would stop a run comes first.
    let mut problems: Vec<_> = report.problems.iter().collect();
    problems.sort_by_key(|p| !p.kind.is_fatal());
    for problem in problems.iter().take(LISTED) {
        let word = if problem.kind.is_fatal() {
            "error"
        } else {
            "note"
        };
        text += &format!("  {word}: {}: {}\n", problem.path.display(), problem.what);
    }
    if problems.len() > LISTED {
        text += &format!(
            "  and {} more (--json lists all)\n",
            problems.len() - LISTED
        );
    }
    text
}

fn generate(args: GenerateArgs) -> anyhow::Result<()> {
    let options = GenerateOptions {
        seed: args.seed,
        train: args.train,
        good: args.good,
        defective: args.defective,
        size: args.size,
    };
    if args.samples {
        GeneratedProduct::write_samples(&args.out)?;
    } else {
        GeneratedProduct::write(&args.out, &options)?;
    }
    common::print_line(format!("written to {}", args.out.display()))
}
