//! What plans and `fastflow train` have in common: when training ends, and what is known before it begins.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{
    Desk, data, json,
    program::{generate, run, succeed, text, told},
    read,
};

/// The epoch kept is the one whose synthetic defects were found best, to the bytes of a run that ends there.
#[test]
fn training_stops_on_synthetic_defects() {
    let desk = Desk::new();
    let linen = data().join("linen");
    let train = |out: &Path, rest: &[&str]| {
        let args = [
            "train",
            "--data",
            text(&linen),
            "--out",
            text(out),
            "--backbone",
            "wavelet",
        ];
        let small = ["--size", "64", "--batch", "4", "--steps", "2", "--no-eval"];
        json(&[&args[..], &small, rest].concat())
    };
    let stopped = desk.out("stopped");
    let printed = train(
        &stopped,
        &["--epochs", "8", "--stop-on", "synthetic", "--patience", "2"],
    );
    let record = read(&stopped.join("config.json"))["training"]["optimisation"].clone();
    let kept = &record["stopping"];
    let events = fs::read_to_string(stopped.join("run/events.jsonl")).unwrap();
    let events: Vec<Value> = events
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let epochs: Vec<&Value> = events.iter().filter(|e| e["event"] == "epoch").collect();
    assert_eq!(record["epochs"], epochs.len());
    assert_eq!(printed["epochs"], epochs.len());
    assert_eq!(printed["kept_epoch"], kept["epoch"]);
    let auroc = |epoch: &Value| epoch["synthetic_auroc"].as_f64().unwrap();
    let best = epochs.iter().map(|e| auroc(e)).fold(0.0, f64::max);
    assert!(best > 0.4 && best <= 1.0, "{best}");
    assert_eq!(kept["synthetic_auroc"], best);
    let epoch = kept["epoch"].as_u64().unwrap();
    assert_eq!(auroc(epochs[epoch as usize - 1]), best);
    assert!(epochs.len() == 8 || epochs.len() as u64 == epoch + 2);

    let short = desk.out("short");
    train(&short, &["--epochs", &epoch.to_string()]);
    let model = |out: &Path| fs::read(out.join("model.safetensors")).unwrap();
    assert!(model(&stopped) == model(&short));
}

/// What an evaluation would stop at is told before the training, unless none is wanted.
#[test]
fn a_broken_mask_is_told_before_the_training() {
    let desk = Desk::new();
    let (data, out) = (desk.out("linen"), desk.out("detector"));
    generate(&data, "1");
    let masks = walkdir::WalkDir::new(data.join("ground_truth")).into_iter();
    let mut masks = masks.filter_map(|entry| Some(entry.ok()?.into_path()));
    let mask = masks.find(|path| path.is_file()).unwrap();
    fs::write(&mask, "no mask").unwrap();
    let paths = ["train", "--data", text(&data), "--out", text(&out)];
    let small = [
        "--backbone",
        "wavelet",
        "--size",
        "64",
        "--epochs",
        "1",
        "--steps",
        "2",
    ];
    let args = [&paths[..], &small].concat();
    let output = run(&args);
    let errors = told(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(text(&mask)), "{errors}");
    assert!(!out.exists());
    succeed(&[&args[..], &["--no-eval"]].concat());
}
