//! `data check` finds what is wrong with each file.

use std::fs;
use std::path::Path;

use candle_fastflow::datasets::{self, ProblemKind};
use image::{GrayImage, Rgb, RgbImage};

use super::with_normals;

fn mask(dir: &Path, path: &str, width: u32, marked: u32) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_fn(width, 3, |x, _| image::Luma([u8::from(x < marked)]))
        .save(path)
        .unwrap();
}

#[test]
fn a_sound_data_set_has_no_problems() {
    let dir = with_normals(
        "train/good",
        5,
        &["test/good/a.png", "test/dent/a.png", "test/dent/b.png"],
    );
    mask(dir.path(), "ground_truth/dent/a_mask.png", 4, 1);
    mask(dir.path(), "ground_truth/dent/b_mask.png", 4, 2);
    let last = std::sync::atomic::AtomicUsize::new(0);
    let progress = |done: usize, all: usize| {
        assert!(done <= all && all == 8);
        last.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
    };
    let report = datasets::check(dir.path(), &progress).unwrap();
    assert_eq!(last.into_inner(), 8);
    assert!(
        report.problems.is_empty() && report.is_usable(),
        "{report:?}"
    );
    assert_eq!((report.train, report.test_normal, report.masks), (5, 1, 2));
    assert_eq!(
        report.defects.iter().collect::<Vec<_>>(),
        [(&"dent".to_string(), &2)]
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json["sizes"][0],
        serde_json::json!({"width": 4, "height": 3, "images": 8})
    );
}

#[test]
fn every_problem_is_told_by_file_and_kind() {
    let dir = with_normals(
        "train/good",
        5,
        &[
            "test/good/a.png",
            "test/dent/bare.png",
            "test/dent/large.png",
            "test/dent/blank.png",
            "test/dent/fine.png",
            "holiday.png",
        ],
    );
    let root = dir.path();
    mask(root, "ground_truth/dent/large_mask.png", 5, 1);
    mask(root, "ground_truth/dent/blank_mask.png", 4, 0);
    mask(root, "ground_truth/dent/fine_mask.png", 4, 1);
    mask(root, "ground_truth/dent/nothing_mask.png", 4, 1);
    fs::write(root.join("train/good/zzz.png"), "not an image").unwrap();
    fs::copy(
        root.join("train/good/001.png"),
        root.join("test/good/copy.png"),
    )
    .unwrap();
    RgbImage::from_pixel(9, 9, Rgb([1, 2, 3]))
        .save(root.join("train/good/other.png"))
        .unwrap();

    let report = datasets::check(root, &|_, _| {}).unwrap();
    let found: Vec<_> = report
        .problems
        .iter()
        .map(|p| (p.path.strip_prefix(root).unwrap().to_str().unwrap(), p.kind))
        .collect();
    assert_eq!(
        found,
        [
            ("ground_truth/dent/blank_mask.png", ProblemKind::MaskEmpty),
            ("ground_truth/dent/large_mask.png", ProblemKind::MaskSize),
            (
                "ground_truth/dent/nothing_mask.png",
                ProblemKind::MaskOrphan
            ),
            ("holiday.png", ProblemKind::Unused),
            ("test/dent/bare.png", ProblemKind::MaskMissing),
            ("test/good/copy.png", ProblemKind::TrainedOn),
            ("train/good/zzz.png", ProblemKind::Unreadable),
        ]
    );
    assert!(!report.is_usable());
    assert!(report.problems[5].what.contains("train/good/001.png"));
    assert_eq!((report.sizes.len(), report.sizes[1].width), (2, 9));
    assert!(datasets::check(&root.join("absent"), &|_, _| {}).is_err());
}
