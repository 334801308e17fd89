//! Perturbed test sets and synthetic defects.

use std::path::Path;
use std::str::FromStr;

use candle_fastflow::datasets::{self, Dataset, Edit, Perturbation, Sample, synthetic_defects};
use candle_fastflow::imaging::{Mask, SyntheticDefect};
use image::{Rgb, RgbImage};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A disc on stripes, and a data set of it: defective pixels are the white ones.
fn pictured(dir: &Path) -> Dataset {
    let side = 96;
    let disc = |x: u32, y: u32| (f64::from(x) - 70.0).hypot(f64::from(y) - 30.0) < 14.0;
    let shade = |x: u32, y: u32| {
        if disc(x, y) {
            255
        } else {
            60 + 40 * u8::from(x % 16 < 8)
        }
    };
    let image = RgbImage::from_fn(side, side, |x, y| Rgb([shade(x, y); 3]));
    let mask = RgbImage::from_fn(side, side, |x, y| Rgb([u8::from(disc(x, y)); 3]));
    let (image_path, mask_path) = (dir.join("i.png"), dir.join("m.png"));
    image.save(&image_path).unwrap();
    mask.save(&mask_path).unwrap();
    let normal = Sample::normal(image_path.clone());
    Dataset {
        root: dir.to_path_buf(),
        name: "disc".into(),
        train: vec![normal.clone(); 4],
        test: vec![
            normal,
            Sample::defective(image_path, "disc", Some(mask_path)),
        ],
    }
}

#[test]
fn the_unaligned_test_set_is_four_times_as_large_and_masks_follow() {
    let dir = tempfile::tempdir().unwrap();
    let data = pictured(dir.path());
    let moved = data.perturbed(Perturbation::Unaligned, 5).unwrap();
    assert_eq!((moved.train.len(), moved.test.len()), (4, 8));
    assert_eq!(moved, data.perturbed(Perturbation::Unaligned, 5).unwrap());
    assert_ne!(moved, data.perturbed(Perturbation::Unaligned, 6).unwrap());
    for sample in &moved.test {
        let Some(Edit::Move {
            degrees,
            scale,
            shift,
        }) = sample.edit
        else {
            panic!("{sample:?}")
        };
        assert!(degrees.abs() <= 15.0 && (0.85..=1.15).contains(&scale));
        assert!(shift.iter().all(|s| s.abs() <= 0.15));
        let image = sample.read().unwrap();
        let mask = sample.read_mask(96, 96).unwrap().unwrap();
        if !sample.is_defective() {
            assert_eq!(mask.area(), 0);
            continue;
        }
        // What is marked is the white disc, up to its rim (as long as 2 pi 14 pixels).
        let unlike = image
            .enumerate_pixels()
            .filter(|(x, y, p)| (p.0[0] > 178) != mask.get(*x as usize, *y as usize));
        assert!(unlike.count() < 60, "{}", sample.name(dir.path()));
        let expected = 613.0 * scale * scale;
        assert!(
            mask.area() as f64 >= 0.45 * expected,
            "at least half of the defect is left"
        );
        assert!(mask.area() as f64 <= 1.1 * expected);
    }
    let names: std::collections::HashSet<_> =
        moved.test.iter().map(|s| s.name(dir.path())).collect();
    assert_eq!(names.len(), 8);
    assert_ne!(data.hash().unwrap(), moved.hash().unwrap());
}

fn mean(image: &RgbImage) -> f64 {
    image.iter().map(|v| f64::from(*v)).sum::<f64>() / image.len() as f64
}

/// Mean squared difference of neighbouring pixels (the plain one does not see an edge that is spread).
fn sharpness(image: &RgbImage) -> f64 {
    let pairs = image
        .rows()
        .flat_map(|row| row.map(|p| f64::from(p.0[0])).collect::<Vec<_>>());
    let values: Vec<f64> = pairs.collect();
    values
        .windows(2)
        .map(|w| (w[0] - w[1]).powi(2))
        .sum::<f64>()
        / values.len() as f64
}

#[test]
fn camera_faults_change_the_image_and_not_the_mask() {
    let dir = tempfile::tempdir().unwrap();
    let data = pictured(dir.path());
    let original = data.test[1].read().unwrap();
    for how in [
        Perturbation::Brightness,
        Perturbation::Blur,
        Perturbation::Jpeg,
        Perturbation::MildJpeg,
        Perturbation::MildBlur,
        Perturbation::MildBrightness,
        Perturbation::Noise,
    ] {
        assert_eq!(Perturbation::from_str(how.name()).unwrap(), how);
        let changed = data.perturbed(how, 1).unwrap();
        assert_eq!(changed.test.len(), 2);
        let image = changed.test[1].read().unwrap();
        assert!(
            image != original && image.dimensions() == (96, 96),
            "{how:?}"
        );
        assert_eq!(
            changed.test[1].read_mask(96, 96).unwrap(),
            data.test[1].read_mask(96, 96).unwrap()
        );
    }
    let apply = |edit: Edit| edit.apply(&original).unwrap();
    assert!((mean(&apply(Edit::Brightness(0.7))) / mean(&original) - 0.7).abs() < 0.01);
    assert!(apply(Edit::Brightness(1.3)).contains(&255));
    assert!(sharpness(&apply(Edit::Blur(1.0 / 48.0))) < 0.7 * sharpness(&original));
    assert!((mean(&apply(Edit::Jpeg(40))) - mean(&original)).abs() < 1.0);
    let noisy = apply(Edit::Noise(5.0, 1));
    let differences = noisy.iter().zip(original.iter());
    let squares = differences.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let deviation = (squares.sum::<f64>() / original.as_raw().len() as f64).sqrt();
    assert!((4.0..5.5).contains(&deviation), "{deviation}");
    assert_eq!(noisy, apply(Edit::Noise(5.0, 1)));
    assert_ne!(noisy, apply(Edit::Noise(5.0, 2)));
    let error = Perturbation::from_str("fog").unwrap_err().to_string();
    assert!(
        error.contains("unaligned, brightness, blur, jpeg"),
        "{error}"
    );
}

#[test]
fn synthetic_defects_are_where_the_mask_says_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let image = pictured(dir.path()).train[0].read().unwrap();
    let plain = RgbImage::from_pixel(64, 80, Rgb([250; 3]));
    for image in [&image, &plain] {
        let pixels = f64::from(image.width()) * f64::from(image.height());
        for kind in SyntheticDefect::ALL {
            for seed in 0..40 {
                let draw = || kind.apply(image, &mut ChaCha8Rng::seed_from_u64(seed));
                let (spoiled, mask) = draw();
                assert_eq!((&spoiled, &mask), (&draw().0, &draw().1));
                let share = mask.area() as f64 / pixels;
                let is_visible = mask.area() >= 4 && share < 0.12;
                assert!(is_visible, "{kind:?} {seed}: {share}");
                for (x, y, pixel) in spoiled.enumerate_pixels() {
                    let old = image.get_pixel(x, y).0;
                    let change = old
                        .iter()
                        .zip(pixel.0)
                        .map(|(a, b)| a.abs_diff(b))
                        .max()
                        .unwrap();
                    assert_eq!(mask.get(x as usize, y as usize), change >= 12);
                }
            }
        }
    }
}

#[test]
fn a_synthetic_test_set_has_each_normal_image_and_each_kind_of_defect() {
    let dir = tempfile::tempdir().unwrap();
    let normals = pictured(dir.path()).train;
    let test = synthetic_defects(&normals, 9);
    assert_eq!(test.len(), 16);
    assert_eq!(test, synthetic_defects(&normals, 9));
    assert_ne!(test, synthetic_defects(&normals, 10));
    assert_eq!(test.iter().filter(|s| !s.is_defective()).count(), 4);
    let blots: Vec<&Sample> = test
        .iter()
        .filter(|s| s.defect.as_deref() == Some("synthetic-blot"))
        .collect();
    assert_eq!(blots.len(), 4);
    let masks: Vec<Mask> = blots
        .iter()
        .map(|s| s.read_mask(96, 96).unwrap().unwrap())
        .collect();
    assert!(
        masks.windows(2).all(|m| m[0] != m[1]),
        "defects differ from image to image"
    );
    let (normal, spoilt) = (test[0].read().unwrap(), blots[0].read().unwrap());
    let changed = normal.enumerate_pixels().filter(|(x, y, p)| {
        spoilt
            .get_pixel(*x, *y)
            .0
            .iter()
            .zip(p.0)
            .any(|(a, b)| a.abs_diff(b) >= 12)
    });
    assert_eq!(changed.count(), masks[0].area());
}

/// Whether a pixel within 3 differs from the corner of the photo, which is background.
fn near_product(photo: &RgbImage, x: u32, y: u32) -> bool {
    let level = |x, y| photo.get_pixel(x, y).0[0];
    let span = |at: u32| at.saturating_sub(3)..=(at + 3).min(511);
    let mut around = span(y).flat_map(|y| span(x).map(move |x| (x, y)));
    around.any(|(x, y)| level(x, y).abs_diff(level(0, 0)) >= 12)
}

#[test]
fn screws_get_visible_defects_where_the_screw_is() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/screw"));
    if !dir.exists() {
        eprintln!("skipped: {} is not here", dir.display());
        return;
    }
    let data = datasets::open(dir).unwrap();
    let test = synthetic_defects(&data.train[..4], 1);
    for sample in test.iter().filter(|s| s.is_defective()) {
        let image = sample.read().unwrap();
        let mask = sample
            .read_mask(image.width(), image.height())
            .unwrap()
            .unwrap();
        assert!(mask.area() >= 4, "{}", sample.name(dir));
        let good = data.train.iter().find(|good| good.image == sample.image);
        let good = good.unwrap().read().unwrap();
        let marked = (0..512 * 512).filter(|i| mask.pixels()[*i]);
        for (x, y) in marked.map(|i| (i as u32 % 512, i as u32 / 512)) {
            assert!(near_product(&good, x, y), "{} {x} {y}", sample.name(dir));
        }
        let grey = image.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]);
        assert!(grey, "a grey image stays grey");
    }
}
