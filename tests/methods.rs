//! Every method through the program: fitted, saved, loaded, inspected with; and what mistakes get told.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

#[path = "support/program.rs"]
mod program;
use program::{generate, parsed, run, succeed, text, told};

/// Methods as `--method` spells them; the empty word is the default recipe. (FastFlow has the other tests.)
const METHODS: [&str; 8] = [
    "",
    "patchcore",
    "padim",
    "spade",
    "mahalanobis",
    "cflow",
    "differnet",
    "fastflow,patchcore",
];

fn is_trained(name: &str) -> bool {
    matches!(name, "cflow" | "differnet" | "fastflow,patchcore")
}

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
        "differnet" => vec!["--method", name, "--hidden", "0.03", "--epochs", "6"],
        "fastflow,patchcore" => vec!["--method", name, "--hidden", "0.2", "--epochs", "1"],
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
        let kind = match name {
            "" => "patchcore",
            "fastflow,patchcore" => "ensemble",
            name => name,
        };
        assert_eq!(config["estimator"]["kind"], kind);
        let optimised = config["training"].get("optimisation").is_some();
        assert_eq!(optimised, is_trained(name), "{name}");
        let auroc = config["metrics"]["image_auroc"].as_f64().unwrap();
        assert!(auroc > 0.6, "{name}: {auroc}");
        assert_eq!(
            config["preprocessing"].get("pyramid").is_some(),
            matches!(name, "" | "differnet"),
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
            "spade" => "SPADE",
            "differnet" => "DifferNet",
            "cflow" => "CFLOW-AD",
            _ => "PatchCore",
        };
        assert!(
            card.contains(title) && (name.contains(',') || !card.contains("yu2021fastflow")),
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

/// A SPADE remembers its parent's photos too; an ensemble has no descendants.
#[test]
fn photos_are_added_to_a_gallery_but_not_to_an_ensemble() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("added");
    let (data, parent) = (world().data(), world().detector("spade"));
    let args = |parent| {
        let (data, out) = (text(&data), text(&out));
        ["train", "--data", data, "--from", parent, "--out", out]
    };
    succeed(&args(text(&parent)));
    let photos = |folder: &Path| {
        let tensors = candle_core::safetensors::load(
            folder.join("model.safetensors"),
            &candle_core::Device::Cpu,
        );
        tensors.unwrap()["photos"].dims()[0]
    };
    assert_eq!(photos(&out), 2 * photos(&parent));
    std::fs::remove_dir_all(&out).unwrap();
    let ensemble = world().detector("fastflow,patchcore");
    refuse(&args(text(&ensemble)), &["ensemble", "anew"]);
}

/// A folder with the first `count` good photos.
fn few(good: &Path, photos: &Path, count: usize) {
    std::fs::create_dir(photos).unwrap();
    for index in 0..count {
        let photo = format!("{index:03}.png");
        std::fs::copy(good.join(&photo), photos.join(&photo)).unwrap();
    }
}

/// With fewer than four photos none can be held out, and the program, the artifact and the card say what the threshold
/// comes from instead.
#[test]
fn one_to_sixteen_photos_are_enough_for_a_memory() {
    let folder = tempfile::tempdir().unwrap();
    let cloth = folder.path().join("cloth");
    let args = ["data", "generate", "--out", text(&cloth), "--seed", "3"];
    let counts = ["--train", "16", "--good", "4", "--defective", "7"];
    succeed(&[&args[..], &counts, &["--size", "96"]].concat());
    for (count, source, scores, word) in [
        (1, "mirrored_views", 3, "is a guess"),
        (2, "mirrored_views", 6, "is a guess"),
        (3, "leave_one_out", 3, "a fit to the others"),
        (4, "cross_fit", 4, "a fit without its fold"),
        (16, "cross_fit", 16, "a fit without its fold"),
    ] {
        let photos = folder.path().join(format!("photos-{count}"));
        few(&cloth.join("train/good"), &photos, count);
        for name in ["", "patchcore"] {
            let out = folder.path().join(format!("few-{name}-{count}"));
            let args = train(&photos, &out, &method(name));
            let mut args = words(&args);
            args.retain(|word| *word != "--json");
            let output = run(&args);
            let told = told(&output);
            assert!(output.status.success(), "{told}");
            assert_eq!(told.contains(word), count < 4, "{count}: {told}");
            let config = config(&out);
            let calibration = &config["calibration"];
            let written = calibration["source"].as_str().unwrap_or("held_out");
            let normal = calibration["normal_scores"].as_array().unwrap().len();
            let outliers = calibration["outliers"].as_array().map_or(0, Vec::len);
            let normal = normal + outliers;
            assert_eq!((written, normal), (source, scores), "{count}");
            assert!(calibration["threshold"].as_f64().unwrap() > 0.0);
            assert_eq!(config["training"]["images"], count);
            let card = succeed(&["card", text(&out)]);
            assert!(card.contains(word), "{card}");
            let args = ["eval", text(&out), "--data", text(&cloth), "--json"];
            let auroc = parsed(&succeed(&args))["image_auroc"].as_f64().unwrap();
            // Three sizes of 96 pixels are too little for a single photo.
            assert!(
                auroc > 0.6 || name.is_empty() && count == 1,
                "{name}, {count} photos: {auroc}"
            );
        }
    }
    let photos = folder.path().join("photos-3");
    let out = folder.path().join("no");
    let flow = train(&photos, &out, &["--method", "fastflow"]);
    refuse(
        &words(&flow),
        &["3 normal images", "FastFlow needs at least 4"],
    );
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
        &["--method", "fastflow,patchcore", "--resume"],
        &["Ensemble", "checkpoint"],
    );
    refused(
        &["--method", "patchcore,padim", "--epochs", "3"],
        &["patchcore,padim", "epochs"],
    );
    refused(&["--method", "fastflow,cflow"], &["ensemble", "one member"]);
    refused(
        &["--method", "patchcore,differnet"],
        &["ensemble", "sizes of its own"],
    );
    refused(&["--method", "fastflow,padim", "--map", "nll"], &["maps"]);
    refused(
        &["--method", "spade", "--memory", "3"],
        &["spade", "memory"],
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
