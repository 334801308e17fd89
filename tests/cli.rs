//! The program as scripts and people use it: the contract of its output, and what mistakes get told.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba};
use serde_json::Value;
use tempfile::TempDir;

#[path = "support/program.rs"]
mod program;
#[path = "cli/roles.rs"]
mod roles;
use program::{fastflow, generate, parsed, run, succeed, text, told};

/// A small data set and a detector trained on it, made once for all tests.
struct World {
    folder: TempDir,
}

impl World {
    fn data(&self) -> PathBuf {
        self.folder.path().join("cloth")
    }

    fn detector(&self) -> PathBuf {
        self.folder.path().join("detector")
    }
}

fn json(args: &[&str]) -> Value {
    parsed(&succeed(args))
}

/// Fails with exit code 2, nothing on stdout, and one line of error holding every one of `words`.
fn refuse(args: &[&str], words: &[&str]) {
    let output = run(args);
    let errors = told(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    let lines: Vec<&str> = errors
        .lines()
        .filter(|line| line.starts_with("error:"))
        .collect();
    assert!(
        !lines.is_empty() && errors.lines().count() <= 2,
        "{args:?}: {errors}"
    );
    for word in words {
        assert!(
            errors.contains(word),
            "{args:?} should mention `{word}`: {errors}"
        );
    }
}

fn train_args<'a>(data: &'a str, out: &'a str, epochs: &'a str) -> Vec<&'a str> {
    let start = ["train", "--data", data, "--out", out, "--epochs", epochs];
    let rest = [
        "--backbone",
        "wavelet",
        "--size",
        "64",
        "--batch",
        "4",
        "--json",
    ];
    [&start[..], &rest].concat()
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let world = World {
            folder: tempfile::tempdir().unwrap(),
        };
        let (data, detector) = (world.data(), world.detector());
        generate(&data, "0");
        succeed(&train_args(text(&data), text(&detector), "3"));
        world
    })
}

#[test]
fn evaluation_prints_one_json_object() {
    let world = world();
    let (data, detector) = (world.data(), world.detector());
    let metrics = json(&["eval", text(&detector), "--data", text(&data), "--json"]);
    for key in [
        "image_auroc",
        "pixel_auroc",
        "aupro",
        "image_ap",
        "pixel_ap",
        "image_f1_max",
    ] {
        let value = metrics[key].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&value), "{key} {value}");
    }
    assert_eq!(metrics["images"], 11);
    // What training wrote into the artifact is what evaluation finds again.
    let config: Value =
        serde_json::from_slice(&std::fs::read(detector.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["metrics"]["image_auroc"], metrics["image_auroc"]);
    assert_eq!(config["metrics"]["pixel_auroc"], metrics["pixel_auroc"]);
}

#[test]
fn evaluation_needs_no_real_defects_and_compares_maps() {
    let world = world();
    let (data, detector) = (world.data(), world.detector());
    let evaluate = |more: &[&str]| {
        let common = ["eval", text(&detector), "--data", text(&data), "--json"];
        json(&[&common[..], more].concat())
    };
    // The 4 held-out photos as they are, and each with 3 kinds of defect.
    let synthetic = evaluate(&["--synthetic-defects", "--scores"]);
    assert_eq!(synthetic["images"], 16);
    assert!(synthetic["pixel_auroc"].as_f64().unwrap() > 0.5);
    let scores = synthetic["scores"].as_array().unwrap();
    let classes = scores.iter().filter_map(|s| s["defect"].as_str());
    assert_eq!(classes.collect::<BTreeSet<_>>().len(), 3);
    // Another map has another AUROC, and no threshold to call anything defective by.
    let (own, nll) = (evaluate(&[]), evaluate(&["--pixel-map", "nll"]));
    assert_ne!(own["pixel_auroc"], nll["pixel_auroc"]);
    assert_eq!(own["image_auroc"], nll["image_auroc"]);
    assert!(own["recall"].is_number() && nll["recall"].is_null());
    // Scales count as much as they are told to.
    let fine = evaluate(&["--image-weights", "1,0,0"]);
    assert_ne!(fine["image_auroc"], own["image_auroc"]);
    assert_eq!(fine["pixel_auroc"], own["pixel_auroc"]);
    let wrong = [
        "eval",
        text(&detector),
        "--data",
        text(&data),
        "--image-weights",
    ];
    refuse(&[&wrong[..], &["1,1"]].concat(), &["2 numbers", "3 scales"]);
    refuse(&[&wrong[..], &["0,0,0"]].concat(), &["image_weights"]);
    let elsewhere = world.folder.path().join("elsewhere");
    let counts = [
        "--train",
        "5",
        "--good",
        "1",
        "--defective",
        "1",
        "--size",
        "96",
    ];
    succeed(
        &[
            &["data", "generate", "--seed", "5", "--out", text(&elsewhere)],
            &counts[..],
        ]
        .concat(),
    );
    let others = [
        "eval",
        text(&detector),
        "--data",
        text(&elsewhere),
        "--synthetic-defects",
    ];
    refuse(&others, &["trained on"]);
}

#[test]
fn evaluation_tells_of_classes_harder_photos_and_writes_a_page() {
    let world = world();
    let (data, detector) = (world.data(), world.detector());
    let page = world.folder.path().join("pages/cloth.html");
    let common = ["eval", text(&detector), "--data", text(&data)];
    let more = ["--perturb", "unaligned,jpeg", "--report", text(&page)];
    let found = json(&[&common[..], &more, &["--json"]].concat());
    let classes = found["classes"].as_array().unwrap();
    let images: u64 = classes.iter().map(|c| c["images"].as_u64().unwrap()).sum();
    assert_eq!(
        (
            images,
            &classes[0]["class"],
            classes[0]["image_auroc"].is_null()
        ),
        (11, &Value::from("good"), true)
    );
    for class in &classes[1..] {
        assert!(class["image_auroc"].is_number() && class["aupro"].is_number());
    }
    for (metric, interval) in found["intervals"].as_object().unwrap() {
        let end = |name: &str| interval[name].as_f64().unwrap();
        let value = found[metric].as_f64().unwrap();
        assert!(end("low") <= value && value <= end("high"), "{metric}");
    }
    let perturbed = found["perturbed"].as_object().unwrap();
    assert_eq!(perturbed.keys().collect::<Vec<_>>(), ["jpeg", "unaligned"]);
    assert_ne!(perturbed["unaligned"]["pixel_auroc"], found["pixel_auroc"]);
    let html = std::fs::read_to_string(&page).unwrap();
    let gallery = html.split_once("id=\"gallery\"").unwrap().1;
    assert_eq!(gallery.matches("<figure").count(), 11);
    assert_eq!(html.matches("<svg").count(), 4);
    // People get the same as tables.
    let printed = succeed(&[&common[..], &["--perturb", "blur"]].concat());
    for word in ["95 % interval", "pixel AUROC", "as they are", "blur"] {
        assert!(printed.contains(word), "{word}: {printed}");
    }
    let unknown = run(&[&common[..], &["--perturb", "fog"]].concat());
    let told = told(&unknown);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(told.contains("fog") && told.contains("unaligned"), "{told}");
    refuse(
        &[&common[..], &["--report", text(&data)]].concat(),
        &["is a folder"],
    );
}

#[test]
fn a_photo_is_explained_scale_by_scale() {
    let world = world();
    let (detector, photo) = (world.detector(), world.data().join("test/good/000.png"));
    let page = world.folder.path().join("explained.html");
    let common = [
        "explain",
        text(&detector),
        text(&photo),
        "--out",
        text(&page),
    ];
    let told = json(&[&common[..], &["--region", "0,0,48,48", "--json"]].concat());
    let scales = told["scales"].as_array().unwrap();
    assert_eq!(scales.len(), 3);
    for scale in scales {
        // Noise changes the features, and something of every photo is less typical than the rest.
        assert!(
            scale["highest_disturbed"].as_f64().unwrap() > 0.1,
            "{scale}"
        );
        assert!(scale["highest_residual"].as_f64().unwrap() > 0.0, "{scale}");
    }
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<img").count(), 2 + 3 * 5);
    assert!(!html.contains("src=\"http"));
    let outside = ["--region", "60,60,48,48"];
    refuse(
        &[&common[..], &outside].concat(),
        &["60,60,48,48", "96 x 96"],
    );
    refuse(
        &[&common[..], &["--region", "1,2"]].concat(),
        &["four numbers"],
    );
}

#[test]
fn a_broken_data_set_is_found_before_anything_long_starts() {
    let world = world();
    let good = json(&["data", "check", text(&world.data()), "--json"]);
    assert_eq!((&good["train"], &good["masks"]), (&14.into(), &7.into()));
    assert_eq!(good["problems"].as_array().unwrap().len(), 0);
    let broken = world.folder.path().join("broken");
    let counts = [
        "--train",
        "5",
        "--good",
        "2",
        "--defective",
        "3",
        "--size",
        "64",
    ];
    succeed(&[&["data", "generate", "--out", text(&broken)], &counts[..]].concat());
    let masks: Vec<PathBuf> = walkdir::WalkDir::new(broken.join("ground_truth"))
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file())
        .collect();
    GrayImage::new(7, 7).save(&masks[0]).unwrap();
    std::fs::write(broken.join("train/good/000.png"), "no image").unwrap();
    let output = run(&["data", "check", text(&broken)]);
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2));
    for words in ["error: ", "000.png", "7x7"] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let detector = world.detector();
    let eval = ["eval", text(&detector), "--data", text(&broken)];
    refuse(&eval, &["7x7", text(&masks[0])]);
}

#[test]
fn inspection_prints_one_json_line_an_image_and_writes_overlays() {
    let world = world();
    let overlays = world.folder.path().join("overlays");
    let (detector, images) = (world.detector(), world.data().join("test/good"));
    let args = [
        "infer",
        text(&detector),
        text(&images),
        "--json",
        "--out",
        text(&overlays),
    ];
    let lines = succeed(&args);
    let lines: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        assert!(line["score"].as_f64().unwrap().is_finite());
        assert!(["ok", "defective"].contains(&line["verdict"].as_str().unwrap()));
        let overlay = image::open(line["overlay"].as_str().unwrap()).unwrap();
        assert_eq!((overlay.width(), overlay.height()), (96, 96));
    }
    // The same again, and with another number of threads: the same scores to the bit.
    assert_eq!(
        succeed(&args),
        succeed(&[&args[..], &["--threads", "1"]].concat())
    );
}

#[test]
fn an_anomaly_can_set_the_exit_code() {
    let world = world();
    let (detector, image) = (world.detector(), world.data().join("test/good/000.png"));
    let code = |threshold: &str| {
        let args = ["infer", text(&detector), text(&image), "--fail-on-anomaly"];
        let output = run(&[&args[..], &["--threshold", threshold]].concat());
        output.status.code()
    };
    assert_eq!(code("-1e9"), Some(1));
    assert_eq!(code("1e9"), Some(0));
    assert_eq!(code("NaN"), Some(2));
}

/// Without a calibration there is no threshold but the given one, and that one counts.
#[test]
fn a_given_threshold_needs_no_calibration() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let detector = folder.path().join("uncalibrated");
    std::fs::create_dir(&detector).unwrap();
    std::fs::copy(
        world.detector().join("model.safetensors"),
        detector.join("model.safetensors"),
    )
    .unwrap();
    let config = std::fs::read(world.detector().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config
        .as_object_mut()
        .unwrap()
        .remove("calibration")
        .unwrap();
    std::fs::write(detector.join("config.json"), config.to_string()).unwrap();
    let image = world.data().join("test/good/000.png");
    let infer = |words: &[&str]| {
        let args = [
            "infer",
            text(&detector),
            text(&image),
            "--json",
            "--fail-on-anomaly",
        ];
        let output = run(&[&args[..], words].concat());
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), line["verdict"].clone())
    };
    assert_eq!(infer(&[]), (Some(0), Value::Null));
    assert_eq!(infer(&["--threshold", "1e9"]), (Some(0), "ok".into()));
    assert_eq!(
        infer(&["--threshold", "-1e9"]),
        (Some(1), "defective".into())
    );
}

#[test]
fn features_are_written_as_safetensors() {
    let world = world();
    let out = world.folder.path().join("maps.safetensors");
    let image = world.data().join("test/good/000.png");
    succeed(&[
        "features",
        "--backbone",
        "wavelet",
        text(&image),
        "-o",
        text(&out),
    ]);
    let bytes = std::fs::read(&out).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("input").unwrap().shape(), [1, 3, 256, 256]);
    assert_eq!(file.tensor("map.0").unwrap().shape()[2..], [64, 64]);
    assert!(file.tensor("map.1").is_ok());
    let refused = run(&[
        "features",
        "--backbone",
        "resnet18",
        "--taps",
        "1,5",
        text(&image),
        "-o",
        text(&out),
    ]);
    let error = told(&refused);
    assert!(error.contains("no tap 5: there are 1 to 4"), "{error}");
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn the_bench_prints_the_papers_columns() {
    let args = [
        "bench",
        "--backbone",
        "wavelet",
        "--repeat",
        "1",
        "--train",
        "--batch",
        "2",
        "--json",
    ];
    let timing = json(&args);
    let keys = [
        "preprocess",
        "backbone",
        "flow",
        "map",
        "whole",
        "fps",
        "train_step_ms",
    ];
    for key in keys.iter().chain(&["additional_ms", "additional_params"]) {
        assert!(timing[key].as_f64().unwrap().is_finite(), "{key}: {timing}");
    }
    assert_eq!(timing["weights"], "embedded");
}

#[test]
fn completions_are_printed_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            succeed(&["completions", shell]).contains("fastflow"),
            "{shell}"
        );
    }
}

/// A run killed at any moment goes on to the same files as one that was left alone.
#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let data = world.data();
    let options = ["--checkpoint-every", "0", "--views", "2", "--no-eval"];
    let args = |out| [train_args(text(&data), out, "12"), options.to_vec()].concat();
    succeed(&args(text(&whole)));

    let mut child = fastflow(&args(text(&broken)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let events = broken.join("run/events.jsonl");
    let deadline = Instant::now() + Duration::from_secs(120);
    // Well inside the second epoch, between two steps or within one.
    while std::fs::read_to_string(&events)
        .unwrap_or_default()
        .matches("checkpoint")
        .count()
        < 4
    {
        assert!(Instant::now() < deadline, "no checkpoint appeared");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !broken.join("config.json").exists(),
        "the run was over before it was killed"
    );

    succeed(&[args(text(&broken)), vec!["--resume"]].concat());
    for file in ["model.safetensors", "config.json"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(&whole) == read(&broken), "{file} differs");
    }
    let events = std::fs::read_to_string(&events).unwrap();
    assert!(events.contains("\"event\":\"resume\""));
    assert!(folder.path().join("whole/run/curve.svg").is_file());
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (world.data(), folder.path().join("run-it"));
    let args = train_args(text(&data), text(&out), "1");
    refuse(&[&args[..], &["--resume"]].concat(), &["nothing to resume"]);
    succeed(&args);
    refuse(
        &[&args[..], &["--resume", "--seed", "9"]].concat(),
        &["other settings"],
    );
    refuse(&args, &["holds a detector already"]);
    // More epochs of the same run are no other settings.
    succeed(&[&train_args(text(&data), text(&out), "2")[..], &["--resume"]].concat());
}

#[test]
fn fine_tuning_starts_from_the_parent_and_a_flat_folder_is_enough() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    for (i, entry) in std::fs::read_dir(world.data().join("train/good"))
        .unwrap()
        .enumerate()
    {
        std::fs::copy(entry.unwrap().path(), photos.join(format!("{i}.png"))).unwrap();
    }
    let (parent, tuned) = (world.detector(), folder.path().join("tuned"));
    let args = [
        "train",
        "--data",
        text(&photos),
        "--from",
        text(&parent),
        "--out",
        text(&tuned),
    ];
    let tuned_result = json(&[&args[..], &["--epochs", "1", "--batch", "4", "--json"]].concat());
    let fresh = folder.path().join("fresh");
    let fresh_result = json(&train_args(text(&photos), text(&fresh), "1"));
    let nll = |result: &Value| result["held_out_nll"].as_f64().unwrap();
    assert!(
        nll(&tuned_result) < nll(&fresh_result),
        "{tuned_result} {fresh_result}"
    );
    let read = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    assert_eq!(read(&tuned)["training"]["parent"], text(&parent));
    assert_eq!(read(&tuned)["estimator"], read(&parent)["estimator"]);
}

#[test]
fn a_last_fit_on_all_images_keeps_the_threshold() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let (data, plain, last) = (
        world.data(),
        folder.path().join("plain"),
        folder.path().join("final"),
    );
    succeed(
        &[
            &train_args(text(&data), text(&plain), "2")[..],
            &["--no-eval"],
        ]
        .concat(),
    );
    succeed(
        &[
            &train_args(text(&data), text(&last), "2")[..],
            &["--no-eval", "--final"],
        ]
        .concat(),
    );
    let read = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    let (plain, last) = (read(&plain), read(&last));
    assert_eq!(
        plain["calibration"]["threshold"],
        last["calibration"]["threshold"]
    );
    assert_eq!(plain["training"]["held_out"], last["training"]["held_out"]);
    assert_eq!(
        (&plain["training"]["images"], &last["training"]["images"]),
        (&10.into(), &14.into())
    );
    assert_ne!(plain["fixture_score"], last["fixture_score"]);
}

#[test]
fn every_common_image_format_is_read() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let photo = image::open(world.data().join("test/good/000.png"))
        .unwrap()
        .to_rgb8();
    let put = |name: &str, image: DynamicImage, format| {
        image
            .save_with_format(folder.path().join(name), format)
            .unwrap();
    };
    put("a.png", photo.clone().into(), ImageFormat::Png);
    put("b.jpg", photo.clone().into(), ImageFormat::Jpeg);
    put("c.bmp", photo.clone().into(), ImageFormat::Bmp);
    put("d.tiff", photo.clone().into(), ImageFormat::Tiff);
    put("e.webp", photo.clone().into(), ImageFormat::WebP);
    put(
        "f-grey.png",
        DynamicImage::ImageLuma8(DynamicImage::from(photo.clone()).to_luma8()),
        ImageFormat::Png,
    );
    let deep = ImageBuffer::from_fn(96, 96, |x, y| Luma([(x * y * 7) as u16]));
    put(
        "g-16-bit.png",
        DynamicImage::ImageLuma16(deep),
        ImageFormat::Png,
    );
    let alpha = ImageBuffer::from_fn(96, 96, |x, y| {
        let Rgb([r, g, b]) = *photo.get_pixel(x, y);
        Rgba([r, g, b, 255])
    });
    put("h-alpha.png", alpha.into(), ImageFormat::Png);
    let detector = world.detector();
    let lines = succeed(&["infer", text(&detector), text(folder.path()), "--json"]);
    let score = |name: &str| {
        let lines = lines
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        let mut found = lines.filter(|l| l["image"].as_str().unwrap().ends_with(name));
        found.next().unwrap()["score"].as_f64().unwrap()
    };
    for lossless in ["c.bmp", "d.tiff", "e.webp", "h-alpha.png"] {
        assert_eq!(score(lossless), score("a.png"), "{lossless}");
    }
    assert_eq!(lines.lines().count(), 8);
}

#[test]
fn bad_images_are_named() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let detector = world.detector();
    let png = std::fs::read(world.data().join("test/good/000.png")).unwrap();
    std::fs::write(at("truncated.png"), &png[..png.len() / 2]).unwrap();
    std::fs::write(at("text.png"), "not an image").unwrap();
    std::fs::write(at("empty.png"), "").unwrap();
    GrayImage::new(1, 1).save(at("tiny.png")).unwrap();
    std::fs::write(at("huge.png"), huge_png(60000)).unwrap();
    for name in [
        "truncated.png",
        "text.png",
        "empty.png",
        "tiny.png",
        "huge.png",
        "missing.png",
    ] {
        refuse(&["infer", text(&detector), text(&at(name))], &[name]);
    }
    // One bad image of many: the others are inspected, the exit code still tells.
    std::fs::write(at("good.png"), &png).unwrap();
    let output = run(&[
        "infer",
        text(&detector),
        text(&at("good.png")),
        text(&at("text.png")),
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("good.png"));
}

/// The first bytes of a PNG that claims to have `side` x `side` pixels.
fn huge_png(side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::RgbImage::new(8, 8)
        .write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Png)
        .unwrap();
    bytes[16..20].copy_from_slice(&side.to_be_bytes());
    bytes[20..24].copy_from_slice(&side.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (!(crc & 1)).wrapping_add(1));
        }
    }
    !crc
}

#[test]
fn bad_data_sets_are_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::create_dir(at("few")).unwrap();
    for i in 0..3 {
        RgbImage::new(64, 64)
            .save(at("few").join(format!("{i}.png")))
            .unwrap();
    }
    std::fs::create_dir(at("torn")).unwrap();
    for i in 0..6 {
        RgbImage::new(64, 64)
            .save(at("torn").join(format!("{i}.png")))
            .unwrap();
    }
    std::fs::write(at("torn").join("3.png"), "no image").unwrap();
    std::fs::write(at("file"), "").unwrap();
    let out = at("out");
    let refused = |data: &str, words: &[&str]| {
        refuse(&train_args(text(&at(data)), text(&out), "1"), words);
        assert!(!out.join("config.json").exists() && !out.join("model.safetensors").exists());
    };
    refused("nowhere", &["nowhere"]);
    refused("empty", &["empty", "image"]);
    refused("few", &["few", "4"]);
    refused("file", &["file"]);
    refused("torn", &["3.png"]);
}

#[test]
fn bad_settings_are_named() {
    let world = world();
    let data = world.data();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let with = |extra: &[&str], words: &[&str]| {
        let args = [train_args(text(&data), text(&out), "1"), extra.to_vec()].concat();
        refuse(&args, words);
    };
    with(&["--learning-rate", "nan"], &["learning rate"]);
    if cfg!(not(feature = "cuda")) {
        with(
            &["--device", "cuda:0"],
            &["built without CUDA", "--features cuda", "--device cpu"],
        );
    }
    with(
        &["--device", "cpu", "--tf32"],
        &["--tf32", "--device cuda:N"],
    );
    with(
        &["--device", "gpu"],
        &["--device gpu", "auto, cpu or cuda:N"],
    );
    with(&["--views", "1000"], &["views"]);
    with(&["--false-alarm-rate", "2"], &["false-alarm rate"]);
    with(&["--feature-memory=-1"], &["--feature-memory"]);
    with(
        &["--learning-rate", "1e30"],
        &["the loss became", "last good state"],
    );
    let unknown = [
        "train",
        "--data",
        text(&data),
        "--out",
        text(&out),
        "--backbone",
        "resnet19",
    ];
    refuse(&unknown, &["resnet19", "resnet18"]);
    let weightless = [
        "train",
        "--data",
        text(&data),
        "--out",
        text(&out),
        "--backbone",
        "resnet18",
    ];
    let mut command = fastflow(&weightless);
    let output = command
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("--backbone-weights"));
}

#[test]
fn damaged_artifacts_are_named() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let image = world.data().join("test/good/000.png");
    let config = std::fs::read_to_string(world.detector().join("config.json")).unwrap();
    let model = std::fs::read(world.detector().join("model.safetensors")).unwrap();
    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    let refused = |config: &str, model: &[u8], words: &[&str]| {
        std::fs::write(broken.join("config.json"), config).unwrap();
        std::fs::write(broken.join("model.safetensors"), model).unwrap();
        refuse(&["infer", text(&broken), text(&image)], words);
    };
    let edited = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        config.replacen(from, to, 1)
    };
    refused(
        &edited("\"name\"", "\"surprise\": 1, \"name\""),
        &model,
        &["config.json", "surprise"],
    );
    refused(
        &edited("\"schema_version\": 2", "\"schema_version\": 99"),
        &model,
        &["schema_version"],
    );
    refused(
        &edited("\"steps\": 8", "\"steps\": 4000000000"),
        &model,
        &["steps"],
    );
    refused(
        &edited("\"height\": 64", "\"height\": 4000000000"),
        &model,
        &["config.json", "height"],
    );
    refused(
        &edited("\"clamp\": 2.0", "\"clamp\": 1e999"),
        &model,
        &["config.json"],
    );
    refused(
        &edited("\"clamp\": 2.0", "\"clamp\": NaN"),
        &model,
        &["config.json"],
    );
    refused("{", &model, &["config.json"]);
    refused(&config, &model[..model.len() / 2], &["model.safetensors"]);
    refused(&config, b"not safetensors at all", &["model.safetensors"]);
    refused(&config, &foreign_model(), &["model.safetensors"]);
    refuse(
        &["infer", text(folder.path()), text(&image)],
        &["config.json"],
    );
    refuse(
        &["infer", "no-such-detector-anywhere/", text(&image)],
        &["no-such-detector-anywhere"],
    );
}

/// A safetensors file, but somebody else's.
fn foreign_model() -> Vec<u8> {
    let tensor = candle_core::Tensor::zeros(4, candle_core::DType::F32, &candle_core::Device::Cpu);
    safetensors::serialize([("layer1.weight", tensor.unwrap())], None).unwrap()
}

/// A file-size limit stands for a full disk: one line of error, and no half-written artifact.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (world.data(), folder.path().join("out"));
    let args = [train_args(text(&data), text(&out), "1"), vec!["--no-eval"]].concat();
    let script = "ulimit -f 64; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_fastflow")])
        .args(args);
    let output = command.output().unwrap();
    let errors = told(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("limit on file sizes"), "{errors}");
    assert!(!out.join("config.json").exists() && !out.join("model.safetensors").exists());
    assert!(!out.join("run/checkpoint.safetensors").exists());
}

#[test]
fn a_check_goes_through_all_categories() {
    let folder = tempfile::tempdir().unwrap();
    generate(&folder.path().join("linen"), "1");
    std::fs::create_dir_all(folder.path().join("hollow/train/good")).unwrap();
    std::fs::create_dir_all(folder.path().join("odd/train/normal")).unwrap();
    let output = run(&["data", "check", text(folder.path())]);
    assert_eq!(output.status.code(), Some(2));
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in [
        "linen: 14 normal images",
        "hollow:\n  error: ",
        "odd:\n  error: has no train/good",
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
    let errors = told(&output);
    assert!(
        errors.contains("odd, hollow: mend") && !errors.contains("linen"),
        "{errors}"
    );
}
