//! Every method through the program: fitted, saved, loaded, inspected with; and what mistakes get told.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

#[path = "support/program.rs"]
mod program;
use program::{generate, parsed, run, succeed, text, told};

/// The methods, as `--method` spells them; the empty word is the default recipe. FastFlow's tests are in cli.rs.
const METHODS: [&str; 5] = ["", "patchcore", "padim", "mahalanobis", "cflow"];

struct World {
    folder: TempDir,
}

impl World {
    fn data(&self) -> PathBuf {
        self.folder.path().join("cloth")
    }

    fn detector(&self, method: &str) -> PathBuf {
        self.folder.path().join(format!("detector-{method}"))
    }
}

fn train(data: &Path, out: &Path, rest: &[&str]) -> Vec<String> {
    let args = ["train", "--data", text(data), "--out", text(out)];
    let small = ["--backbone", "wavelet", "--size", "96", "--json"];
    let all = [&args[..], &small, rest].concat();
    all.into_iter().map(String::from).collect()
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn method(name: &str) -> Vec<&str> {
    match name {
        "" => vec![],
        "padim" => vec!["--method", "padim", "--channels", "12"],
        "cflow" => vec!["--method", "cflow", "--steps", "3", "--epochs", "6"],
        name => vec!["--method", name],
    }
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let world = World {
            folder: tempfile::tempdir().unwrap(),
        };
        generate(&world.data(), "3");
        for name in METHODS {
            succeed(&words(&train(
                &world.data(),
                &world.detector(name),
                &method(name),
            )));
        }
        world
    })
}

fn config(detector: &Path) -> Value {
    let text = std::fs::read_to_string(detector.join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Fails with exit code 2 and one line that holds all of `words`.
fn refuse(args: &[&str], words: &[&str]) {
    let output = run(args);
    let errors = told(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    for word in words {
        assert!(
            errors.contains(word),
            "{args:?} should mention `{word}`: {errors}"
        );
    }
}

#[test]
fn a_fitted_detector_finds_defects_and_says_what_it_is() {
    for name in METHODS {
        let config = config(&world().detector(name));
        let kind = if name.is_empty() { "patchcore" } else { name };
        assert_eq!(config["estimator"]["kind"], kind);
        let optimised = config["training"].get("optimisation").is_some();
        assert_eq!(optimised, name == "cflow", "{name}");
        let auroc = config["metrics"]["image_auroc"].as_f64().unwrap();
        assert!(auroc > 0.6, "{name}: {auroc}");
        assert_eq!(
            config["preprocessing"].get("pyramid").is_some(),
            name.is_empty()
        );
    }
}

/// The evaluation of the folder gives what training measured, bit for bit, on one thread and on two.
#[test]
fn a_loaded_detector_measures_what_the_fitted_one_did() {
    for name in METHODS {
        let (data, detector) = (world().data(), world().detector(name));
        for threads in ["1", "2"] {
            let args = ["eval", text(&detector), "--data", text(&data), "--json"];
            let found = parsed(&succeed(&[&args[..], &["--threads", threads]].concat()));
            let recorded = config(&detector)["metrics"].clone();
            for figure in ["image_auroc", "pixel_auroc", "aupro"] {
                assert_eq!(found[figure], recorded[figure], "{name} {figure}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_a_card_names_the_method() {
    let again = tempfile::tempdir().unwrap();
    for name in METHODS {
        let out = again.path().join(format!("again-{name}"));
        succeed(&words(&train(&world().data(), &out, &method(name))));
        let bytes = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
        assert!(bytes(&out) == bytes(&world().detector(name)), "{name}");
        let card = succeed(&["card", text(&out)]);
        let title = match name {
            "padim" => "PaDiM",
            "mahalanobis" => "Mahalanobis",
            "cflow" => "CFLOW-AD",
            _ => "PatchCore",
        };
        assert!(
            card.contains(title) && !card.contains("yu2021fastflow"),
            "{card}"
        );
    }
}

#[test]
fn new_photos_are_added_to_a_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (world().data(), folder.path().join("added"));
    let no = folder.path().join("no");
    let parent = world().detector("patchcore");
    let args = [
        "train",
        "--data",
        text(&data),
        "--from",
        text(&parent),
        "--out",
        text(&out),
    ];
    succeed(&args);
    assert_eq!(config(&out)["training"]["parent"], text(&parent));
    let args = [&args[..6], &[text(&no), "--epochs", "3"]].concat();
    refuse(&args, &["PatchCore", "epochs"]);
    let parent = world().detector("padim");
    let out = folder.path().join("padim");
    refuse(
        &[
            "train",
            "--data",
            text(&data),
            "--from",
            text(&parent),
            "--out",
            text(&out),
        ],
        &["PaDiM", "anew"],
    );
}

/// A run that goes on where another ended gives the bytes of one that never stopped; and what it gave can be trained on.
#[test]
fn cflow_resumes_is_fitted_once_more_and_adapted() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let data = world().data();
    let run = |out: &Path, epochs: &str, rest: &[&str]| {
        let method = ["--method", "cflow", "--steps", "2", "--epochs", epochs];
        let constant = [
            "--schedule",
            "constant",
            "--views",
            "2",
            "--no-eval",
            "--final",
        ];
        let all = [&method[..], &constant, rest].concat();
        succeed(&words(&train(&data, out, &all)));
    };
    run(&whole, "2", &[]);
    run(&broken, "1", &[]);
    run(&broken, "2", &["--resume"]);
    let bytes = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&broken));
    assert_eq!(config(&whole)["training"]["final_fit"], true);

    let adapted = folder.path().join("adapted");
    let args = ["train", "--data", text(&data), "--from", text(&whole)];
    let rest = ["--epochs", "1", "--no-eval", "--out", text(&adapted)];
    succeed(&[&args[..], &rest].concat());
    assert_eq!(config(&adapted)["estimator"], config(&whole)["estimator"]);
    assert!(bytes(&adapted) != bytes(&whole));
}

#[test]
fn four_photos_are_enough_for_a_memory() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    for photo in ["000.png", "001.png", "002.png", "003.png"] {
        let from = world().data().join("train/good").join(photo);
        std::fs::copy(from, photos.join(photo)).unwrap();
    }
    for name in ["", "patchcore"] {
        let out = folder.path().join(format!("few-{name}"));
        succeed(&words(&train(&photos, &out, &method(name))));
        let image = world().data().join("test/good/000.png");
        let line = parsed(&succeed(&["infer", text(&out), text(&image), "--json"]));
        assert!(line["score"].as_f64().unwrap().is_finite());
    }
}

#[test]
fn mistakes_name_the_method_and_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("no");
    let refused = |rest: &[&str], told: &[&str]| {
        let args = train(&world().data(), &out, rest);
        refuse(&words(&args), told);
    };
    refused(
        &["--method", "patchcore", "--epochs", "3"],
        &["patchcore", "epochs"],
    );
    refused(
        &["--method", "fastflow", "--memory", "3"],
        &["fastflow", "memory"],
    );
    refused(&["--method", "padim", "--map", "nll"], &["PaDiM", "`nll`"]);
    refused(
        &["--method", "padim", "--channels", "9999"],
        &["channels", "222"],
    );
    refused(
        &["--method", "patchcore", "--resume"],
        &["PatchCore", "one pass"],
    );
    refused(
        &["--method", "cflow", "--hidden", "2"],
        &["cflow", "hidden"],
    );
    refused(
        &["--method", "cflow", "--memory", "9"],
        &["cflow", "memory"],
    );
    refused(
        &["--method", "cflow", "--map", "prob"],
        &["CFLOW", "`prob`"],
    );
    refused(&["--method", "padim", "--steps", "2"], &["padim", "steps"]);
    refused(&["--method", "patchcor"], &["patchcor", "patchcore"]);
    refused(&["--taps", "9"], &["tap"]);
    refuse(
        &[
            "explain",
            text(&world().detector("patchcore")),
            text(&world().data().join("test/good/000.png")),
            "--out",
            text(&folder.path().join("x.html")),
        ],
        &["PatchCore", "FastFlow"],
    );
}

#[test]
fn a_damaged_memory_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    let source = world().detector("patchcore");
    let image = world().data().join("test/good/000.png");
    let model = std::fs::read(source.join("model.safetensors")).unwrap();
    let text_of = std::fs::read_to_string(source.join("config.json")).unwrap();
    let refused = |config: &str, model: &[u8], words: &[&str]| {
        std::fs::write(broken.join("config.json"), config).unwrap();
        std::fs::write(broken.join("model.safetensors"), model).unwrap();
        refuse(&["infer", text(&broken), text(&image)], words);
    };
    // The bank of another method, fewer rows allowed than there are, NaN in its last row, an unknown setting.
    let other = std::fs::read(world().detector("padim").join("model.safetensors")).unwrap();
    refused(&text_of, &other, &["model.safetensors", "banks.0.memory"]);
    refused(
        &text_of.replacen("\"memory\": 8000", "\"memory\": 3", 1),
        &model,
        &["1 to 3 rows"],
    );
    let mut nan = model.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    refused(&text_of, &nan, &["banks.0.memory", "not finite"]);
    refused(
        &text_of.replacen("\"neighbours\"", "\"surprise\"", 1),
        &model,
        &["config.json", "surprise"],
    );
}
