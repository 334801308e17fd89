//! `fastflow reproduce`: a plan's detectors and the paper's tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use candle_fastflow::{
    Error, mark,
    reproduce::{
        Cell, CellResult, Plan, Progress, RESULTS, Runner, Share, Summary, TABLES, measure_speeds,
        tables, write_tables,
    },
    training::{self, EpochRecord},
};
use indicatif::{HumanDuration, ProgressBar};

use super::{
    Outcome,
    advice::said,
    common,
    progress::{TrainingProgress, counter},
    transfer::Transfer,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fastflow reproduce examples/plans/mvtec-ad.toml --data /data/mvtec --out runs/mvtec\n  \
    ./hub-upload.sh runs/mvtec/base-seed0 --dataset mvtec-ad --yes\n\n\
    A plan says categories x backbones x seeds x variants. Each cell leaves a detector with its card in\n\
    OUT/VARIANT-seedS/BACKBONE/CATEGORY and its figures in OUT/results; OUT/tables.md, .html and .json set them\n\
    beside the paper's. The same command goes on where it was stopped, and runs again only what has changed.\n\n\
    On several machines: give each its share with --cell I/N, put the results folders together, then --tables\n\
    (examples/cluster has scripts for Slurm and Kubernetes).")]
pub struct Args {
    /// The plan (TOML); examples/plans has some
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// The folder of the categories, in place of the plan's
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where detectors, results and tables go [default: runs/ and the plan's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only share I (from 0) of N of the cells
    #[arg(long, value_name = "I/N")]
    cell: Option<Share>,
    /// Run nothing; write the tables from the results that are there
    #[arg(long, conflicts_with_all = ["cell", "dry_run"])]
    tables: bool,
    /// Train nothing; measure the speed of the plan's backbones and methods for table 1, with random weights where
    /// FASTFLOW_BACKBONES has none
    #[arg(long, conflicts_with_all = ["cell", "dry_run", "tables"])]
    speed: bool,
    /// Run nothing; list the cells, and look at the images where the folder of the data is there
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: common::Compute,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let device = args.compute.start()?;
    let plan = Plan::read(&args.plan, args.data.as_deref())?;
    let stem = args.plan.file_stem().unwrap_or_default();
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| Path::new("runs").join(stem));
    keep_tables(&out)?;
    if args.speed {
        measure_speeds(&plan, &out, &device, &mut |what| eprintln!("{what}"))?;
        return finish(&args, &plan, &out, None);
    }
    let transfer = Transfer::new(args.json);
    let show = |event: candle_fastflow::hub::Event<'_>| transfer.show(event);
    let mut runner = Runner::new(&plan, &out, device, &show);
    let share = args.cell.unwrap_or(Share::ALL);
    if args.dry_run {
        let faults = runner.unusable(share);
        list(&args, &plan, &runner, share, &out)?;
        return usable(&faults);
    }
    if args.tables {
        return finish(&args, &plan, &out, None);
    }
    let mut progress = Shown::new(args.json)?;
    let summary = runner.run(share, &mut progress)?;
    finish(&args, &plan, &out, Some(&summary))?;
    if let [(cell, error), ..] = &summary.failed[..] {
        bail!(
            "{} of {} cells failed, the first ({cell}): {}",
            summary.failed.len(),
            summary.failed.len() + summary.done + summary.kept,
            said(error),
        );
    }
    Ok(Outcome::Done)
}

/// The tables are ours together: the page carries the mark. Before it did, results were beside them.
fn keep_tables(out: &Path) -> anyhow::Result<()> {
    let results = out.join(RESULTS).read_dir().into_iter().flatten();
    let known = |path: &Path| matches!(CellResult::read(path), Ok(Some(_)));
    let ours =
        mark::is_ours(&out.join(TABLES[2])) || results.flatten().any(|entry| known(&entry.path()));
    match ours {
        true => Ok(()),
        false => {
            let tables = TABLES.map(|name| out.join(name));
            common::keep_others("--out", tables.iter().map(PathBuf::as_path))
        }
    }
}

fn list(
    args: &Args,
    plan: &Plan,
    runner: &Runner<'_>,
    share: Share,
    out: &Path,
) -> anyhow::Result<()> {
    let cells = share.of(plan.cells());
    if args.json {
        let cell = |cell: &Cell| {
            serde_json::json!({
                "category": cell.category, "backbone": cell.backbone, "variant": cell.variant, "seed": cell.seed,
                "done": runner.seems_done(cell), "detector": cell.detector(out).to_string_lossy(),
                "result": cell.result(out).to_string_lossy(),
            })
        };
        let cells: Vec<_> = cells.iter().map(cell).collect();
        return common::print_line(serde_json::json!({ "cells": cells }));
    }
    for cell in &cells {
        let state = if runner.seems_done(cell) {
            "done"
        } else {
            "to do"
        };
        common::print_line(format!("{state:6} {}", cell.detector(out).display()))?;
    }
    common::print_line(format!("{} cells", cells.len()))
}

/// What would let cells fail, known before a machine is given to them.
fn usable(faults: &[(String, Error)]) -> anyhow::Result<Outcome> {
    for (category, error) in faults {
        eprintln!("{category} cannot be used: {}", said(error));
    }
    match faults {
        [] => Ok(Outcome::Done),
        _ => bail!("{} of the plan's categories cannot be used", faults.len()),
    }
}

/// The tables; after a share of the cells they would be half empty, so that the last word is `--tables`.
fn finish(
    args: &Args,
    plan: &Plan,
    out: &Path,
    summary: Option<&Summary>,
) -> anyhow::Result<Outcome> {
    let whole = args.cell.is_none_or(|share| share == Share::ALL);
    let made = tables(plan, out)?;
    if whole {
        write_tables(&made, out)?;
    }
    if args.json {
        let failed = |summary: &Summary| -> Vec<_> {
            let object = |(cell, error): &(Cell, Error)| {
                serde_json::json!({
                    "category": cell.category, "backbone": cell.backbone, "variant": cell.variant, "seed": cell.seed,
                    "error": said(error),
                })
            };
            summary.failed.iter().map(object).collect()
        };
        common::print_line(serde_json::json!({
            "out": out.to_string_lossy(), "cells": made.cells, "with_result": made.done,
            "run": summary.map(|s| s.done), "kept": summary.map(|s| s.kept), "failed": summary.map(failed),
        }))?;
        return Ok(Outcome::Done);
    }
    if let Some(summary) = summary {
        common::print_line(format!(
            "{} cells run, {} were there, {} failed",
            summary.done,
            summary.kept,
            summary.failed.len()
        ))?;
    }
    let next = match whole {
        true => format!("tables in {}", out.join("tables.md").display()),
        false => "when all shares are there, the same command with --tables in place of --cell writes the tables".into(),
    };
    common::print_line(format!(
        "{} of {} cells have a result; {next}",
        made.done, made.cells
    ))?;
    Ok(Outcome::Done)
}

/// Lines and bars on standard error.
struct Shown {
    quiet: bool,
    training: TrainingProgress,
    evaluation: Option<ProgressBar>,
}

impl Shown {
    fn new(quiet: bool) -> anyhow::Result<Self> {
        Ok(Self {
            quiet,
            training: TrainingProgress::new(quiet)?,
            evaluation: None,
        })
    }
}

impl training::Progress for Shown {
    fn features(&mut self, done: usize, total: usize) {
        self.training.features(done, total);
    }

    fn step(&mut self, epoch: usize, epochs: usize, step: usize, steps: usize, loss: f64) {
        self.training.step(epoch, epochs, step, steps, loss);
    }

    fn epoch(&mut self, record: &EpochRecord, epochs: usize) {
        self.training.epoch(record, epochs);
    }

    fn note(&mut self, text: &str) {
        self.training.note(text);
    }

    fn interrupted(&self) -> bool {
        self.training.interrupted()
    }
}

impl Progress for Shown {
    fn cell(&mut self, cell: &Cell, index: usize, of: usize, left: Option<Duration>) {
        let left = left.map_or_else(String::new, |left| {
            format!(", about {} left", HumanDuration(left))
        });
        training::Progress::note(self, &format!("[{index}/{of}{left}] {cell}"));
    }

    fn evaluated(&mut self, done: usize, total: usize) {
        let quiet = self.quiet;
        let bar = self
            .evaluation
            .get_or_insert_with(|| counter(quiet, "evaluating", total));
        bar.set_position(done as u64);
        if done == total {
            bar.finish_and_clear();
            self.evaluation = None;
        }
    }

    fn failed(&mut self, cell: &Cell, error: &Error) {
        if let Some(bar) = self.evaluation.take() {
            bar.finish_and_clear();
        }
        training::Progress::note(self, &format!("failed: {cell}: {}", said(error)));
    }
}
