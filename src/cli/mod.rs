//! The program: one file a verb, which only parses, calls and prints.

mod advice;
mod bench;
mod calibrate;
mod card;
mod common;
mod completions;
mod data;
mod dataset;
mod eval;
mod explain;
mod features;
mod figures;
mod infer;
#[cfg(feature = "hub")]
mod list;
mod method;
mod plots;
mod progress;
#[cfg(feature = "hub")]
mod publish;
#[cfg(feature = "hub")]
mod pull;
mod reproduce;
mod scoring;
mod train;
mod transfer;

pub use advice::one_line;
use std::io::IsTerminal;

use clap::{Parser, Subcommand};

/// How a verb ended when nothing failed.
pub enum Outcome {
    /// As asked.
    Done,
    /// A defective image, and the user asked to be told by the exit code.
    AnomalyFound,
}

#[derive(Parser)]
#[command(
    name = "fastflow",
    version,
    about = "FastFlow anomaly detectors: learn what good products look like, find the bad ones",
    after_help = "A first detector:  fastflow train --data PHOTOS_OF_GOOD_PARTS --backbone wavelet --out my-detector\n\
                  Then inspect:      fastflow infer my-detector NEW_PHOTOS --out overlays\n\n\
                  Exit codes: 0 ok, 1 an anomaly was found and --fail-on-anomaly was given, 2 error."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Learn a detector from photos of good products
    Train(Box<train::Args>),
    /// Measure a detector on a labelled test set
    Eval(eval::Args),
    /// Show what the flow sees in a photo, and why it scores as it does
    Explain(explain::Args),
    /// Inspect photos
    Infer(infer::Args),
    /// Set a detector's thresholds anew from good photos, without training
    Calibrate(calibrate::Args),
    /// Write a backbone's feature maps of one image
    Features(features::Args),
    /// Measure speed on this machine
    Bench(bench::Args),
    /// Download a detector by its name
    #[cfg(feature = "hub")]
    Pull(pull::Args),
    /// Show the detectors that can be had, or the backbones
    #[cfg(feature = "hub")]
    List(list::Args),
    /// Upload a detector with its card
    #[cfg(feature = "hub")]
    Publish(publish::Args),
    /// Train and measure a plan's detectors, and write the paper's tables
    Reproduce(reproduce::Args),
    /// Write a detector's model card
    Card(card::Args),
    /// Check data sets, or generate one to try things on
    Data(data::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// Errors of the libraries that talk to the Hub come back to us, and are told once.
const DEFAULT_LOG: &str = "warn,hf_hub=off,xet_client=off,xet_data=off,xet_core_structures=off,xet_runtime=off,hf_xet=off";

/// Parses the command line and runs the verb.
pub fn run() -> anyhow::Result<Outcome> {
    let cli = Cli::parse();
    survive_file_size_limit();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| DEFAULT_LOG.into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(coloured())
        .without_time()
        .with_target(false)
        .init();
    match cli.verb {
        Verb::Train(args) => train::run(*args),
        Verb::Eval(args) => eval::run(args),
        Verb::Explain(args) => explain::run(args),
        Verb::Infer(args) => infer::run(args),
        Verb::Calibrate(args) => calibrate::run(args),
        Verb::Features(args) => features::run(args),
        Verb::Bench(args) => bench::run(args),
        #[cfg(feature = "hub")]
        Verb::Pull(args) => pull::run(args),
        #[cfg(feature = "hub")]
        Verb::List(args) => list::run(args),
        #[cfg(feature = "hub")]
        Verb::Publish(args) => publish::run(args),
        Verb::Reproduce(args) => reproduce::run(args),
        Verb::Card(args) => card::run(args),
        Verb::Data(args) => data::run(args),
        Verb::Completions(args) => completions::run(args),
    }
}

/// Whether log lines may have colours: a file of them is for reading.
fn coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}

/// Makes a write past the process's limit on file sizes (`ulimit -f`) an error, as a full disk is. Unasked, the system
/// ends the program there and then, leaving temporary files.
fn survive_file_size_limit() {
    #[cfg(unix)]
    {
        let ignored = std::sync::Arc::default();
        // Failing to register leaves the system's default, which is no worse than not to ask.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, ignored);
    }
}
