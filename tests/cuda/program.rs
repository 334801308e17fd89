//! The program on a GPU beside the program on the CPU, and what it says where the GPU cannot be used.

use std::path::Path;
use std::process::Command;

use super::gpu;
use support::{fastflow, generate, succeed, text, told};

#[allow(dead_code)] // some are only for other tests
#[path = "../support/program.rs"]
mod support;

/// A detector trained in `folder` on the photos of `data`, and the scores that it gives them on its own device.
fn trained(data: &Path, folder: &Path, norm: &str, device: &str) -> Vec<f64> {
    let run = ["--backbone", "wavelet", "--size", "64", "--norm", norm];
    let length = [
        "--epochs",
        "2",
        "--batch",
        "4",
        "--no-eval",
        "--device",
        device,
    ];
    let folders = ["train", "--data", text(data), "--out", text(folder)];
    succeed(&[&folders[..], &run, &length].concat());
    let photos = data.join("test");
    let inspect = [
        "infer",
        text(folder),
        text(&photos),
        "--json",
        "--device",
        device,
    ];
    let lines = succeed(&inspect);
    let score = |line| support::parsed(line)["score"].as_f64().unwrap();
    lines.lines().map(score).collect()
}

#[test]
fn training_and_inspection() {
    if gpu("training and inspection").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("cloth");
    generate(&data, "3");
    for norm in ["layer-norm", "whiten"] {
        let scores = ["cpu", "cuda:0"].map(|device| {
            let out = folder.path().join(format!("{norm}-{}", &device[..3]));
            trained(&data, &out, norm, device)
        });
        let [on_cpu, on_gpu] = scores;
        assert_eq!(on_cpu.len(), 11);
        for (expected, found) in on_cpu.iter().zip(&on_gpu) {
            assert!(
                (expected - found).abs() < 1e-3,
                "{norm}: {on_cpu:?} {on_gpu:?}"
            );
        }
    }
}

/// What the program says on stderr, and whether it succeeded, with the fabric detector on this device.
fn inspected(device: &str, set: impl Fn(&mut Command)) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let detector = root.join("examples/fabric-detector");
    let photo = root.join("examples/images/good_1.jpg");
    let mut command = fastflow(&["infer", text(&detector), text(&photo), "--device", device]);
    set(&mut command);
    let output = command.output().unwrap();
    (output.status.success(), told(&output))
}

/// Whether a driver is where the system's loader looks for it.
fn has_driver() -> bool {
    let known = Command::new("ldconfig").arg("-p").output();
    known.is_ok_and(|known| String::from_utf8_lossy(&known.stdout).contains("libcuda.so.1"))
}

#[test]
fn tf32_reaches_the_products() {
    if gpu("TF32").is_none() {
        return;
    }
    let score = |more: &[&str]| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let detector = root.join("examples/fabric-detector");
        let photo = root.join("examples/images/stain.jpg");
        let args = [
            "infer",
            text(&detector),
            text(&photo),
            "--json",
            "--device",
            "cuda:0",
        ];
        let printed = succeed(&[&args[..], more].concat());
        support::parsed(&printed)["score"].as_f64().unwrap()
    };
    let (exact, rounded) = (score(&[]), score(&["--tf32"]));
    assert!(
        exact != rounded && (exact - rounded).abs() < 1e-2,
        "{exact} {rounded}"
    );
}

/// Only the emulated GPU (emulator/run) can be told to fail.
#[test]
fn a_gpu_that_cannot_be_used_is_named_with_the_way_out() {
    if std::env::var_os("EMULATED_FOLDER").is_none() {
        println!("skipped: errors of a GPU (they need the emulated one, tests/cuda/emulator/run)");
        return;
    }
    let mut errors = vec![
        ("EMULATED_INIT", "803", "DRIVER_MISMATCH"),
        ("EMULATED_GPUS", "0", "no GPU that CUDA can use"),
        ("EMULATED_CAPABILITY", "75", "CUDA_COMPUTE_CAP=75"),
    ];
    let hidden = ("LD_LIBRARY_PATH", "", "libcuda.so.1");
    match has_driver() {
        true => println!("skipped: a missing driver (this machine has NVIDIA's)"),
        false => errors.push(hidden),
    }
    for (variable, value, words) in errors {
        let set = |command: &mut Command| {
            command.env(variable, value);
        };
        let (succeeded, said) = inspected("cuda:0", set);
        assert!(!succeeded && said.contains(words), "{said}");
        assert!(said.contains("--device cpu"), "{said}");
        let (succeeded, said) = inspected("auto", set);
        assert!(succeeded && said.contains(words), "{said}");
        assert!(said.contains("computing on the CPU"), "{said}");
    }
    let (succeeded, said) = inspected("cuda:0", |command| {
        command.env("EMULATED_BYTES", "100000");
    });
    assert!(!succeeded && said.contains("no memory left"), "{said}");
    assert!(said.contains("--device cpu"), "{said}");
    let (succeeded, said) = inspected("cuda:2", |_| ());
    assert!(!succeeded && said.contains("only cuda:0"), "{said}");
}
