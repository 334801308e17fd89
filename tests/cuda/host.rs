//! The headers of src/kernels/cuda compiled as host C++ (`host/main.cpp`): one kernel a run.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The compiled program; none, with a message, where there is no C++20 compiler.
fn program() -> Option<&'static PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
            let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda-host");
            let mut command = Command::new(&compiler);
            command
                .args(["-std=c++20", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-I"])
                .arg(root.join("src/kernels/cuda"))
                .arg("-o")
                .arg(&program)
                .arg(root.join("tests/cuda/host/main.cpp"));
            match command.output() {
                Ok(output) => {
                    let errors = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{compiler}: {errors}");
                    Some(program)
                }
                Err(why) => {
                    println!("skipped: the CUDA kernels' host tests need a C++ compiler ({compiler}: {why})");
                    None
                }
            }
        })
        .as_ref()
}

/// How a kernel is run.
#[derive(Clone, Copy)]
pub struct Run {
    /// `f32`, `f16` or `bf16`.
    pub storage: &'static str,
    /// Threads of a block: a power of two, at least 4.
    pub threads: usize,
    /// Values that arrays lie behind a 16-byte boundary.
    pub shift: usize,
}

/// Every storage type, aligned and not, with few and many threads.
pub const RUNS: [Run; 6] = [
    run("f32", 4, 0),
    run("f32", 32, 1),
    run("f32", 8, 0),
    run("f16", 8, 0),
    run("bf16", 8, 0),
    run("bf16", 16, 3),
];

/// Where only f32 exists.
pub const F32_RUNS: [Run; 2] = [run("f32", 8, 0), run("f32", 32, 1)];

const fn run(storage: &'static str, threads: usize, shift: usize) -> Run {
    Run {
        storage,
        threads,
        shift,
    }
}

impl Run {
    /// The values as this run stores them.
    pub fn stored(self, values: &[f32]) -> Vec<f32> {
        let round = |&v: &f32| match self.storage {
            "f16" => half::f16::from_f32(v).to_f32(),
            "bf16" => half::bf16::from_f32(v).to_f32(),
            _ => v,
        };
        values.iter().map(round).collect()
    }

    /// Largest error of an output of this storage, relative to the output's largest value.
    pub fn tolerance(self) -> f32 {
        match self.storage {
            "f16" => 6e-4,
            "bf16" => 5e-3,
            _ => 2e-5,
        }
    }

    /// Runs `kernel`; none where nothing can be compiled.
    pub fn kernel(self, kernel: &str, numbers: &[f64], inputs: &[&[f32]]) -> Option<Vec<Vec<f32>>> {
        let program = program()?;
        let mut child = Command::new(program)
            .args([kernel, self.storage])
            .args([self.threads, self.shift].map(|n| n.to_string()))
            .args(numbers.iter().map(|n| format!("{n:e}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut bytes = Vec::new();
        for input in inputs {
            bytes.extend((input.len() as u64).to_le_bytes());
            bytes.extend(input.iter().flat_map(|v| v.to_le_bytes()));
        }
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let mut output = Vec::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut output)
            .unwrap();
        assert!(child.wait().unwrap().success(), "{kernel} {numbers:?}");
        Some(arrays(&output))
    }
}

fn arrays(mut bytes: &[u8]) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    while let Some((count, rest)) = bytes.split_first_chunk::<8>() {
        let len = u64::from_le_bytes(*count) as usize * 4;
        let values = rest[..len].chunks_exact(4);
        all.push(
            values
                .map(|v| f32::from_le_bytes(v.try_into().unwrap()))
                .collect(),
        );
        bytes = &rest[len..];
    }
    all
}

/// Fails where some value is further off than `tolerance` times the largest one expected.
pub fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0f32, |size, v| size.max(v.abs()));
    assert!(size > 0.0, "{what}: nothing to compare with");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= tolerance * size,
            "{what} [{i}]: {found} instead of {expected}; largest {size}"
        );
    }
}
