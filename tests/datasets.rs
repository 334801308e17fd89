//! Every layout from small generated trees; MVTec AD's screw where ../shared has it.
#![allow(clippy::unwrap_used)]

#[path = "datasets/changed.rs"]
mod changed;
#[path = "datasets/check.rs"]
mod check;
#[path = "datasets/public.rs"]
mod public;
#[path = "datasets/roles.rs"]
mod roles;

use std::fs;
use std::path::{Path, PathBuf};

use candle_fastflow::datasets::{self, Dataset, Sample};
use candle_fastflow::{Error, Result};
use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::TempDir;

/// A folder that holds one small image at each of `paths`, all different.
fn tree(paths: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (index, path) in paths.iter().enumerate() {
        add(dir.path(), path, index as u8);
    }
    dir
}

fn add(dir: &Path, path: &str, shade: u8) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(4, 3, Rgb([shade, 0, 0]))
        .save(path)
        .unwrap();
}

fn numbered(folder: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{folder}/{i:03}.png")).collect()
}

fn with_normals(folder: &str, count: usize, more: &[&str]) -> TempDir {
    let normals = numbered(folder, count);
    tree(
        &normals
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect::<Vec<_>>(),
    )
}

/// `image class mask` of each sample, with paths inside the data set; `-` where there is none.
fn describe(dataset: &Dataset, samples: &[Sample]) -> Vec<String> {
    let inside = |p: &PathBuf| {
        p.strip_prefix(&dataset.root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_string()
    };
    samples
        .iter()
        .map(|s| {
            let masks: Vec<String> = s.masks.iter().map(inside).collect();
            let mask = if masks.is_empty() {
                "-".into()
            } else {
                masks.join("+")
            };
            format!(
                "{} {} {mask}",
                inside(&s.image),
                s.defect.as_deref().unwrap_or("-")
            )
        })
        .collect()
}

fn fails(opened: Result<Dataset>, says: &str) {
    let error = opened.unwrap_err();
    assert!(
        matches!(error, Error::Dataset { .. } | Error::Roles { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(says) && !text.contains('\n'), "{text}");
}

#[test]
fn mvtec() {
    let dir = with_normals(
        "train/good",
        5,
        &[
            "test/good/000.png",
            "test/crack/000.png",
            "test/crack/001.png",
            "test/scratch/000.png",
            "ground_truth/crack/000_mask.png",
            "ground_truth/scratch/000_mask.png",
        ],
    );
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(data.name, dir.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(data.train.len(), 5);
    assert_eq!(
        describe(&data, &data.test),
        [
            "test/crack/000.png crack ground_truth/crack/000_mask.png",
            "test/crack/001.png crack -",
            "test/good/000.png - -",
            "test/scratch/000.png scratch ground_truth/scratch/000_mask.png",
        ]
    );
}

#[test]
fn a_collection_names_its_categories() {
    let dir = tempfile::tempdir().unwrap();
    for category in ["bottle", "cable"] {
        for normal in numbered("train/good", 4) {
            add(&dir.path().join(category), &normal, 0);
        }
    }
    let found = datasets::categories(dir.path()).unwrap();
    assert_eq!(found, [dir.path().join("bottle"), dir.path().join("cable")]);
    fails(datasets::open(dir.path()), "bottle");
    assert_eq!(datasets::open(&found[1]).unwrap().name, "cable");
    assert_eq!(
        datasets::categories(&found[1]).unwrap(),
        Vec::<PathBuf>::new()
    );
}

#[test]
fn a_flat_folder_is_normal_images() {
    let dir = tree(&["a.png", "b.jpg", "c.bmp", "monday/d.png", "monday/e.tiff"]);
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(
        describe(&data, &data.train),
        [
            "a.png - -",
            "b.jpg - -",
            "c.bmp - -",
            "monday/d.png - -",
            "monday/e.tiff - -"
        ]
    );
    assert!(data.test.is_empty());
}

#[test]
fn labelled_folders_at_any_depth_and_in_any_case() {
    let dir = with_normals(
        "2024/OK",
        4,
        &[
            "2024/NG/dent/7.png",
            "2024/NG/8.png",
            "test/good/1.png",
            "test/hole/2.png",
            "masks/hole/2.png",
            "masks/2024/NG/dent/7_mask.png",
        ],
    );
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(data.train.len(), 4);
    assert_eq!(
        describe(&data, &data.test),
        [
            "2024/NG/8.png NG -",
            "2024/NG/dent/7.png dent masks/2024/NG/dent/7_mask.png",
            "test/good/1.png - -",
            "test/hole/2.png hole masks/hole/2.png",
        ]
    );
}

#[test]
fn every_fifth_normal_is_tested_on_when_no_other_normals_are() {
    let dir = with_normals("good", 11, &["bad/x.png"]);
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(data.train.len(), 9);
    assert_eq!(
        describe(&data, &data.test),
        ["good/004.png - -", "good/009.png - -", "bad/x.png bad -"]
    );
    // With too few normals all are for training.
    let data = datasets::open(with_normals("good", 4, &["bad/x.png"]).path()).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (4, 1));
}

#[test]
fn what_cannot_be_used_is_refused() {
    let dir = with_normals("good", 3, &["bad/0.png", "notes/readme.png"]);
    let at = |path: &str| datasets::open(&dir.path().join(path));
    fails(at("absent"), "there is no such folder");
    fails(at("good/000.png"), "is a file");
    fs::create_dir(dir.path().join("empty")).unwrap();
    fails(at("empty"), "holds no PNG");
    assert_eq!(at("good").unwrap().train.len(), 3);
    let no_good = with_normals("good", 0, &["bad/0.png", "bad/1.png"]);
    fails(
        datasets::open(no_good.path()),
        "holds no normal images to train on",
    );
    fails(
        datasets::open(with_normals("train", 4, &["test/0.png"]).path()),
        "needs a label",
    );
}

#[test]
fn the_hash_is_of_names_contents_and_roles_only() {
    let paths = [
        "good/0.png",
        "good/1.png",
        "good/2.png",
        "good/3.png",
        "bad/4.png",
    ];
    let (one, two) = (tree(&paths), tree(&paths));
    let hash = |dir: &TempDir| datasets::open(dir.path()).unwrap().hash().unwrap();
    let before = hash(&one);
    assert_eq!(before.len(), 64);
    assert_eq!(before, hash(&two));
    fs::rename(two.path().join("good/0.png"), two.path().join("good/9.png")).unwrap();
    assert_ne!(before, hash(&two));
    add(one.path(), "bad/4.png", 77);
    let content = hash(&one);
    assert_ne!(before, content);
    fs::rename(one.path().join("bad"), one.path().join("reject")).unwrap();
    assert_ne!(content, hash(&one));
}

#[test]
fn a_tenth_of_the_normals_is_held_out_seeded_and_disjoint() {
    for (count, held) in [(4, 2), (5, 2), (7, 3), (8, 4), (40, 4), (41, 5), (320, 32)] {
        let data = Dataset {
            root: "r".into(),
            name: "n".into(),
            train: (0..count)
                .map(|i| Sample::normal(format!("{i:04}").into()))
                .collect(),
            test: vec![],
        };
        let (train, out) = data.split_held_out(3);
        assert_eq!((train.len(), out.len()), (count - held, held));
        let mut all: Vec<_> = train.iter().chain(&out).map(|s| s.image.clone()).collect();
        assert!(train.is_sorted_by_key(|s| &s.image) && out.is_sorted_by_key(|s| &s.image));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(data.split_held_out(3).1, out);
        assert!(count < 40 || data.split_held_out(4).1 != out);
    }
}

#[test]
fn masks_are_read_at_their_images_size_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mask.png");
    GrayImage::from_fn(4, 3, |x, _| Luma([u8::from(x == 1)]))
        .save(&path)
        .unwrap();
    let sample = Sample::defective("image.png".into(), "dent", Some(path));
    assert_eq!(sample.read_mask(4, 3).unwrap().unwrap().area(), 3);
    let error = sample.read_mask(8, 6).unwrap_err().to_string();
    assert!(
        error.contains("4x3 pixels, its image image.png has 8x6"),
        "{error}"
    );
    let normal = Sample::normal("image.png".into());
    assert_eq!(normal.read_mask(4, 3).unwrap().unwrap().area(), 0);
    let unknown = Sample::defective("image.png".into(), "dent", None);
    assert!(unknown.read_mask(4, 3).unwrap().is_none());
}

#[test]
fn screw() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/screw"));
    if !dir.exists() {
        eprintln!("skipped: {} is not here", dir.display());
        return;
    }
    let data = datasets::open(dir).unwrap();
    assert_eq!(
        (data.name.as_str(), data.train.len(), data.test.len()),
        ("screw", 320, 160)
    );
    let defective: Vec<_> = data.test.iter().filter(|s| s.is_defective()).collect();
    assert_eq!(defective.len(), 119);
    assert!(defective.iter().all(|s| s.masks.len() == 1));
    let image = defective[0].read().unwrap();
    let mask = defective[0]
        .read_mask(image.width(), image.height())
        .unwrap()
        .unwrap();
    assert_eq!(image.dimensions(), (512, 512));
    assert!((1..20_000).contains(&mask.area()), "{}", mask.area());
}
