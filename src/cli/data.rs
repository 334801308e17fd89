//! `fastflow data`: data sets.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use candle_fastflow::{
    datasets::{
        self, CheckReport, Dataset, FolderRole, folder_name,
        generated::{GenerateOptions, GeneratedProduct},
    },
    files,
    report::{ContactSheet, contact_page},
};

use super::{Outcome, common, dataset::RoleArgs};

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
#[command(after_help = "Examples:\n  fastflow data check photos/\n  \
    fastflow data check photos/ --report contact-sheet.html\n  \
    fastflow data check --normal photos/0 --abnormal photos/1")]
struct CheckArgs {
    /// The folder of a data set, or of several (all categories of MVTec AD, say), or a manifest's CSV file
    #[arg(required_unless_present = "normal")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    roles: RoleArgs,
    /// Write a page with some of the photos of each folder under what they were taken for; opens offline
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
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
    if let Some(report) = &args.report {
        common::make_room("--report", report)?;
    }
    let mut checked = Checked {
        as_json: args.json,
        reading: args.photos.reading(),
        sheets: args.report.as_ref().map(|_| Vec::new()),
        unusable: Vec::new(),
    };
    let dir = args.dir.as_deref();
    let root = dir.filter(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    if dir == Some(root) || args.roles.given() {
        common::tell_unread(&args.roles.folders(dir, root));
    }
    let folders = match dir.filter(|dir| dir.is_dir() && !args.roles.given()) {
        Some(dir) => datasets::categories(dir)?,
        None => Vec::new(),
    };
    if folders.is_empty() {
        let dataset = args.roles.open(dir)?;
        let places = args.roles.folders(dir, &dataset.root);
        checked.one(dataset, &places)?;
    } else if let Some(dir) = dir {
        checked.categories(dir, &folders)?;
    }
    if let (Some(path), Some(sheets)) = (&args.report, &checked.sheets) {
        files::write_bytes(path, contact_page(sheets)?.as_bytes())?;
        if !args.json {
            common::print_line(format!("report: {}", path.display()))?;
        }
    }
    match checked.unusable.as_slice() {
        [] => Ok(()),
        some => Err(unusable_error(some)),
    }
}

/// What was found so far.
struct Checked {
    as_json: bool,
    reading: candle_fastflow::imaging::Reading,
    /// Pictures for the page, where one is wanted.
    sheets: Option<Vec<ContactSheet>>,
    /// Names of data sets that cannot be used.
    unusable: Vec<String>,
}

impl Checked {
    fn categories(&mut self, dir: &Path, folders: &[PathBuf]) -> anyhow::Result<()> {
        for folder in datasets::no_categories(dir)? {
            let why = "has no train/good, so that it is no category";
            cannot_open(&folder, why, self.as_json)?;
            self.unusable.push(folder_name(&folder));
        }
        for folder in folders {
            // One category that cannot be opened does not keep the others from being looked at.
            let checked = match datasets::open(folder) {
                Ok(dataset) => {
                    let place = dataset.root.clone();
                    self.one(dataset, &[place])
                }
                Err(error) => Err(error.into()),
            };
            if let Err(why) = checked {
                cannot_open(folder, &super::one_line(&why), self.as_json)?;
                self.unusable.push(folder_name(folder));
            }
        }
        Ok(())
    }

    /// Prints the report of one data set.
    fn one(&mut self, dataset: Dataset, places: &[PathBuf]) -> anyhow::Result<()> {
        let dataset = &dataset.read_as(self.reading);
        let bar = super::progress::counter(self.as_json, "checking", 0);
        let report = datasets::check_opened(dataset, places, &|done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        if self.as_json {
            let mut object = serde_json::to_value(&report)?;
            object["hash"] = dataset.hash()?.into();
            common::print_line(object)?;
        } else {
            common::print(&report_text(&report))?;
        }
        if !report.is_usable() {
            self.unusable.push(dataset.name.clone());
        }
        if let Some(sheets) = &mut self.sheets {
            sheets.push(ContactSheet::of(dataset)?);
        }
        Ok(())
    }
}

fn unusable_error(names: &[String]) -> anyhow::Error {
    anyhow!(
        "{}: mend or remove what is marked with an error, training or evaluation would stop at it, or do without it",
        names.join(", ")
    )
}

fn cannot_open(folder: &Path, why: &str, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let object = serde_json::json!({ "name": folder_name(folder), "error": why });
        return common::print_line(object);
    }
    common::print(&format!("{}:\n  error: {why}\n", folder_name(folder)))
}

/// Most folders of a data set that are listed.
const FOLDERS: usize = 30;

/// What each folder was taken for.
fn folders_text(folders: &[FolderRole]) -> String {
    let name = |f: &FolderRole| match f.folder.as_str() {
        "" => ".".to_string(),
        some => format!("{some}/"),
    };
    let width = folders
        .iter()
        .take(FOLDERS)
        .map(|f| name(f).chars().count())
        .max();
    let width = width.unwrap_or_default();
    let line = |f: &FolderRole| {
        let class = f
            .class
            .as_ref()
            .map_or(String::new(), |class| format!(": {class}"));
        format!(
            "  {:width$}  {:>6}  {}{class}\n",
            name(f),
            f.files,
            f.role.words()
        )
    };
    let mut text: String = folders.iter().take(FOLDERS).map(line).collect();
    if folders.len() > FOLDERS {
        text += &format!(
            "  and {} more folders (--json lists all)\n",
            folders.len() - FOLDERS
        );
    }
    text
}

/// A report as people read it.
fn report_text(report: &CheckReport) -> String {
    let defective: usize = report.defects.values().sum();
    let mut text = format!(
        "{}: {} normal images to train on; to test on {} good, {defective} defective ({} with a mask)\n",
        report.name, report.train, report.test_normal, report.masks
    );
    text += &folders_text(&report.folders);
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
