//! The program, run as a user runs it.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

pub fn fastflow(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fastflow"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env_remove("FASTFLOW_BACKBONES");
    command
}

pub fn run(args: &[&str]) -> Output {
    fastflow(args).output().unwrap()
}

/// What was said on stderr.
pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a run that must succeed printed.
pub fn succeed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small generated cloth: 14 photos to train on, 4 good and 7 defective test photos.
#[allow(dead_code)] // not all tests want this one
pub fn generate(out: &Path, seed: &str) {
    let args = ["data", "generate", "--out", text(out), "--seed", seed];
    let counts = ["--train", "14", "--good", "4", "--defective", "7"];
    succeed(&[&args[..], &counts, &["--size", "96"]].concat());
}

/// The JSON that a run printed.
pub fn parsed(output: &str) -> Value {
    serde_json::from_str(output).unwrap()
}
