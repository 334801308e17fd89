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
            eprintln!("error: {}", cli::one_line(&error));
            ExitCode::from(FAILURE)
        }
    }
}
