#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::{contrast, *};

fn product() -> GeneratedProduct {
    GeneratedProduct::new(5, 128).unwrap()
}

fn levels(image: &RgbImage) -> Vec<[f32; 3]> {
    image.pixels().map(|pixel| pixel.0.map(f32::from)).collect()
}

fn grey(image: &RgbImage, keep: impl Fn(u32, u32) -> bool) -> Vec<f32> {
    let pixels = image.enumerate_pixels();
    let kept = pixels.filter(|(x, y, _)| keep(*x, *y));
    kept.map(|(_, _, pixel)| pixel.0.iter().map(|&level| f32::from(level) / 3.0).sum())
        .collect()
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

#[test]
fn a_seed_and_an_index_make_a_photo() {
    let photo = product().good(Split::Train, 3);
    assert_eq!(photo, product().good(Split::Train, 3));
    for other in [
        product().good(Split::Train, 4),
        product().good(Split::Good, 3),
        GeneratedProduct::new(6, 128).unwrap().good(Split::Train, 3),
    ] {
        let mask = GrayImage::from_pixel(128, 128, image::Luma([255]));
        let change = contrast::change(&levels(&photo), &levels(&other), &mask);
        assert!(change > 15.0, "{change}");
    }
    assert!(GeneratedProduct::new(0, 8).is_err());
}

#[test]
fn a_photo_has_texture_and_is_well_exposed() {
    for index in 0..4 {
        let photo = product().good(Split::Train, index);
        let deviation = contrast::texture_deviation(&levels(&photo), 128);
        assert!((12.0..40.0).contains(&deviation), "{deviation}");
        let grey = grey(&photo, |_, _| true);
        assert!((120.0..200.0).contains(&mean(&grey)), "{}", mean(&grey));
        let clipped = grey.iter().filter(|level| **level > 254.0).count();
        assert!(clipped < grey.len() / 100, "{clipped}");
    }
}

/// From the finished photos alone: the defect's mean against the cloth around it, and the deviation of
/// all that is not defective.
#[test]
fn defects_are_no_stronger_than_the_texture_allows() {
    for index in 0..14 {
        let DefectivePhoto {
            kind,
            image,
            mask,
            contrast,
        } = product().defective(index);
        let masked = |x, y| mask.get_pixel(x, y)[0] > 0;
        let near = |x: u32, y: u32| {
            let around = |at: u32| at.saturating_sub(8)..(at + 9).min(128);
            !masked(x, y) && around(x).any(|x| around(y).any(|y| masked(x, y)))
        };
        let intact = grey(&image, |x, y| !masked(x, y));
        let deviation = mean(
            &intact
                .iter()
                .map(|level| (level - mean(&intact)).powi(2))
                .collect::<Vec<_>>(),
        )
        .sqrt();
        let step = (mean(&grey(&image, masked)) - mean(&grey(&image, near))).abs();
        assert!(
            step <= 2.0 * deviation,
            "{kind:?} {index}: {step} against {deviation}"
        );
        assert!(
            (0.35..=MAX_CONTRAST).contains(&contrast),
            "{kind:?} {index}: {contrast}"
        );
    }
}

#[test]
fn the_mask_covers_what_a_defect_changes_and_little_else() {
    let mut shares: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    for index in 0..14 {
        let kind = DefectKind::ALL[index % 7];
        let mut rng = product().rng(Split::Defective, index);
        let fabric = Fabric::new(&mut rng);
        let camera = Camera::new(128, &mut rng);
        let defect = Defect::new(kind, &mut rng);
        let (intact, exposed) = (
            camera.expose(&fabric, None),
            camera.expose(&fabric, Some(&defect)),
        );
        let mask = camera.mask(&defect);
        let area = mask.pixels().filter(|pixel| pixel[0] > 0).count();
        assert!((12..128 * 128 / 6).contains(&area), "{kind:?}: {area}");

        let (mut inside, mut all) = (0.0, 0.0);
        for ((before, after), covered) in intact.iter().zip(&exposed).zip(mask.pixels()) {
            let square: f32 = (0..3).map(|c| (after[c] - before[c]).powi(2)).sum();
            all += square;
            inside += if covered[0] > 0 { square } else { 0.0 };
        }
        shares.entry(kind.name()).or_default().push(inside / all);
    }
    for (kind, shares) in shares {
        assert!(mean(&shares) > 0.8, "{kind}: {shares:?}");
    }
}

#[test]
fn writes_a_whole_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cloth");
    let options = GenerateOptions {
        seed: 1,
        train: 2,
        good: 1,
        defective: 8,
        size: 64,
    };
    let generated = GeneratedProduct::write(&root, &options).unwrap();
    assert_eq!(generated.defects.len(), 8);
    assert_eq!(generated.defects[7].image, "test/broken_yarn/001.png");

    let size = |path: &str| image::open(root.join(path)).unwrap().to_rgb8().dimensions();
    for path in [
        "train/good/001.png",
        "test/good/000.png",
        "test/broken_yarn/001.png",
        "test/scratch/000.png",
        "ground_truth/broken_yarn/001_mask.png",
        "ground_truth/scratch/000_mask.png",
    ] {
        assert_eq!(size(path), (64, 64), "{path}");
    }
    let record = std::fs::read_to_string(root.join("generated.json")).unwrap();
    assert!(record.contains("\"defect\": \"loose_thread\""), "{record}");

    let again = GeneratedProduct::write(&root, &options)
        .unwrap_err()
        .to_string();
    assert!(again.contains("exists already"), "{again}");
    let nothing = GenerateOptions {
        train: 0,
        good: 0,
        defective: 0,
        ..options
    };
    assert!(GeneratedProduct::write(folder.path().join("none"), &nothing).is_err());
}

/// The committed pictures are what the generator makes (up to the last bit of the machine's arithmetic).
#[test]
fn the_bundled_samples_are_generated() {
    let folder = tempfile::tempdir().unwrap();
    let names = GeneratedProduct::write_samples(folder.path()).unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/images");
    assert_eq!(names.len(), 7);
    for name in names {
        let [ours, theirs] = [folder.path(), &bundled]
            .map(|folder| image::open(folder.join(&name)).unwrap().to_rgb8());
        let off: Vec<f32> = ours
            .iter()
            .zip(theirs.iter())
            .map(|(a, b)| f32::from(a.abs_diff(*b)))
            .collect();
        assert!(
            mean(&off) < 0.5,
            "{name}: {}; run `fastflow data generate --samples`",
            mean(&off)
        );
    }
}
