//! `fastflow`: train, evaluate, inspect and publish FastFlow anomaly detectors.

mod cli;

use std::process::ExitCode;

/// An anomaly was found and `--fail-on-anomaly` was given.
const ANOMALY: u8 = 1;
/// Bad input, or anything that failed.
const FAILURE: u8 = 2;

fn main() -> ExitCode {
    match cli::run() {
        Ok(cli::Outcome::Done) => ExitCode::SUCCESS,
        Ok(cli::Outcome::AnomalyFound) => ExitCode::from(ANOMALY),
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::from(FAILURE)
        }
    }
}

/// An error with its causes, on one line, each said once: many errors say their cause themselves.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    line
}
