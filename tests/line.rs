//! A detector on the line: thresholds from photos of the day, photos that are unlike the training photos, drift.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use image::imageops;
use serde_json::Value;
use tempfile::TempDir;

#[path = "support/program.rs"]
mod program;
use program::{parsed, run, succeed, text, told};

struct World {
    folder: TempDir,
}

/// Cloth, and a detector made of it without a flag but the backbone's.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let world = World { folder };
    let cloth = world.cloth();
    let args = ["data", "generate", "--out", text(&cloth), "--seed", "5"];
    let counts = [
        "--train",
        "24",
        "--good",
        "14",
        "--defective",
        "7",
        "--size",
        "96",
    ];
    succeed(&[&args[..], &counts].concat());
    let detector = world.detector();
    succeed(&[
        "train",
        "--data",
        text(&cloth),
        "--out",
        text(&detector),
        "--backbone",
        "wavelet",
        "--size",
        "96",
        "--json",
    ]);
    world
});

impl World {
    fn cloth(&self) -> PathBuf {
        self.folder.path().join("cloth")
    }

    fn detector(&self) -> PathBuf {
        self.folder.path().join("detector")
    }
}

fn config(detector: &Path) -> Value {
    let text = std::fs::read_to_string(detector.join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The lines of `infer --json`, and what was told beside them.
fn inspected(detector: &Path, photos: &Path) -> (Vec<Value>, String) {
    let output = run(&["infer", text(detector), text(photos), "--json"]);
    assert!(output.status.success(), "{}", told(&output));
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), told(&output))
}

fn refused(args: &[&str], words: &[&str]) {
    let output = run(args);
    let errors = told(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    for word in words {
        assert!(errors.contains(word), "{word}: {errors}");
    }
}

#[test]
fn a_threshold_comes_from_photos_of_the_day() {
    let out = WORLD.folder.path().join("calibrated");
    let good = WORLD.cloth().join("test/good");
    let detector = WORLD.detector();
    let args = ["calibrate", text(&detector), "--normals", text(&good)];
    let found = parsed(&succeed(
        &[
            &args[..],
            &["--out", text(&out), "--false-alarm-rate", "0.2", "--json"],
        ]
        .concat(),
    ));
    let (lines, _) = inspected(&detector, &good);
    let mut scores: Vec<f64> = lines
        .iter()
        .map(|line| line["score"].as_f64().unwrap())
        .collect();
    scores.sort_by(f64::total_cmp);
    // 15 exchangeable scores: the 12th smallest of 14 is exceeded by a fifth of them.
    assert!(
        (found["threshold"].as_f64().unwrap() - scores[11]).abs() < 1e-6,
        "{found} {scores:?}"
    );
    assert_eq!(
        (&found["photos"], &found["photos_needed"]),
        (&14.into(), &4.into())
    );
    let calibration = &config(&out)["calibration"];
    assert_eq!(calibration["source"], "recalibrated");
    assert_eq!(calibration["normal_scores"].as_array().unwrap().len(), 14);
    // The scores stay, two photos are above the new threshold, and 0.5 lies at it.
    let (lines, _) = inspected(&out, &good);
    let above = lines.iter().filter(|line| line["verdict"] == "defective");
    assert_eq!(above.count(), 2);
    for line in &lines {
        let scaled = line["scaled"].as_f64().unwrap();
        assert_eq!(scaled > 0.5, line["verdict"] == "defective", "{line}");
    }
    // With as few photos as these no 1 % can be promised, and that is said.
    let in_words = succeed(
        &[
            &args[..],
            &["--out", text(&WORLD.folder.path().join("words"))],
        ]
        .concat(),
    );
    assert!(
        in_words.contains("14 photos cannot promise 1.0 %: that takes 99"),
        "{in_words}"
    );
    refused(
        &args_with(&args, &["--out", text(&out)]),
        &["holds a detector already"],
    );
    let cloth = WORLD.cloth();
    refused(
        &[
            "calibrate",
            text(&detector),
            "--normals",
            text(&cloth),
            "--out",
            "nowhere",
        ],
        &["defective photos too"],
    );
    refused(
        &["calibrate", "bottle", "--normals", text(&good)],
        &["bottle", "--out"],
    );
    refused(
        &args_with(&args, &["--out", "nowhere", "--false-alarm-rate", "1"]),
        &["rate", "between 0 and 1"],
    );
}

fn args_with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

#[test]
fn photos_unlike_those_of_training_are_told_of() {
    let blurred = WORLD.folder.path().join("blurred");
    std::fs::create_dir_all(&blurred).unwrap();
    for index in 0..12 {
        let name = format!("{index:03}.png");
        let photo = image::open(WORLD.cloth().join("test/good").join(&name)).unwrap();
        let photo = imageops::blur(&photo.to_rgb8(), 3.0);
        photo.save(blurred.join(name)).unwrap();
    }
    let detector = WORLD.detector();
    let (lines, notes) = inspected(&detector, &blurred);
    for line in &lines {
        let quality = line["unlike"]["quality"].as_array().unwrap();
        assert!(quality.contains(&"sharpness".into()), "{line}");
    }
    assert!(notes.contains("12 of 12 photos are outside"), "{notes}");
    assert!(notes.contains("sharpness 12"), "{notes}");
    let (lines, notes) = inspected(&detector, &WORLD.cloth().join("test/good"));
    assert!(
        lines.iter().all(|line| line["unlike"].is_null()) && notes.is_empty(),
        "{notes}"
    );
}

#[test]
fn photos_that_all_score_high_are_drift_and_not_defects() {
    let bright = WORLD.folder.path().join("bright");
    std::fs::create_dir_all(&bright).unwrap();
    for index in 0..14 {
        let name = format!("{index:03}.png");
        let photo = image::open(WORLD.cloth().join("test/good").join(&name)).unwrap();
        imageops::blur(&photo.to_rgb8(), 1.2)
            .save(bright.join(name))
            .unwrap();
    }
    let detector = WORLD.detector();
    let (lines, notes) = inspected(&detector, &bright);
    let above = lines
        .iter()
        .filter(|line| line["verdict"] == "defective")
        .count();
    assert!(above > 7, "{above} {lines:?}");
    assert!(
        notes.contains(&format!("{above} of 14 photos score above")),
        "{notes}"
    );
    assert!(notes.contains("calibrate"), "{notes}");
}

#[test]
fn a_photo_unlike_the_other_training_photos_is_named() {
    let photos = WORLD.folder.path().join("with-a-stranger");
    std::fs::create_dir_all(&photos).unwrap();
    for index in 0..24 {
        let name = format!("{index:03}.png");
        std::fs::copy(
            WORLD.cloth().join("train/good").join(&name),
            photos.join(&name),
        )
        .unwrap();
    }
    // A defect among the good ones.
    let stranger = image::RgbImage::from_fn(96, 96, |x, y| {
        image::Rgb([(x * 2) as u8, 30, (y * 2) as u8])
    });
    stranger.save(photos.join("stranger.png")).unwrap();
    let out = WORLD.folder.path().join("stranger-detector");
    let output = run(&[
        "train",
        "--data",
        text(&photos),
        "--out",
        text(&out),
        "--backbone",
        "wavelet",
        "--size",
        "96",
    ]);
    let notes = told(&output);
    assert!(output.status.success(), "{notes}");
    assert!(
        notes.contains("1 of 25 photos of good products") && notes.contains("stranger.png"),
        "{notes}"
    );
    let calibration = &config(&out)["calibration"];
    assert_eq!(calibration["outliers"][0]["image"], "stranger.png");
    let stranger = calibration["outliers"][0]["score"].as_f64().unwrap();
    assert!(calibration["threshold"].as_f64().unwrap() < stranger);
    assert_eq!(calibration["normal_scores"].as_array().unwrap().len(), 24);
    assert_eq!(config(&out)["training"]["folds"], 5);
}
