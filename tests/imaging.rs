//! Decoding, resizing and normalising against Pillow and timm (tests/fixtures/imaging/make.py).
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_fastflow::Error;
use candle_fastflow::imaging::{
    Affine, Augmentation, Interpolation, Mask, Preprocessing, View, decode, decode_mask,
    dimensions, list_images, resize,
};
use image::RgbImage;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/imaging")
        .join(name)
}

fn scene() -> RgbImage {
    decode(&fixture("scene.png")).unwrap()
}

/// Largest and mean difference in levels of 255.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let levels = || {
        a.as_raw()
            .iter()
            .zip(b.as_raw())
            .map(|(&a, &b)| a.abs_diff(b))
    };
    let sum: f64 = levels().map(f64::from).sum();
    (levels().max().unwrap(), sum / a.as_raw().len() as f64)
}

#[test]
fn lossless_formats_decode_to_the_same_pixels() {
    for name in ["scene.bmp", "scene.tiff", "scene.webp"] {
        assert_eq!(
            difference(&decode(&fixture(name)).unwrap(), &scene()),
            (0, 0.0),
            "{name}"
        );
    }
}

#[test]
fn jpeg_decodes_as_pillow() {
    for (name, reference, worst) in [
        ("scene.jpg", "scene.png", 24),
        ("scene_progressive.jpg", "scene.png", 24),
        ("scene_cmyk.jpg", "scene_cmyk_pillow.png", 3),
    ] {
        let found = difference(
            &decode(&fixture(name)).unwrap(),
            &decode(&fixture(reference)).unwrap(),
        );
        assert!(found.0 <= worst && found.1 < 3.0, "{name}: {found:?}");
    }
}

#[test]
fn colour_types_become_rgb() {
    let grey = decode(&fixture("grey8.png")).unwrap();
    assert!(grey.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]));
    for name in ["grey16.png", "grey16.tiff"] {
        assert_eq!(decode(&fixture(name)).unwrap(), grey, "{name}");
    }
    for name in ["palette", "alpha"] {
        let ours = decode(&fixture(&format!("{name}.png"))).unwrap();
        let pillow = decode(&fixture(&format!("{name}_pillow.png"))).unwrap();
        assert!(difference(&ours, &pillow).0 <= 1, "{name}");
    }
}

#[test]
fn the_content_tells_the_format_and_exif_the_orientation() {
    let dir = tempfile::tempdir().unwrap();
    let named_wrongly = dir.path().join("really_a_tiff.png");
    fs::copy(fixture("scene.tiff"), &named_wrongly).unwrap();
    assert_eq!(decode(&named_wrongly).unwrap(), scene());

    let turned = decode(&fixture("turned.jpg")).unwrap();
    assert!(difference(&turned, &scene()).1 < 3.0);
    assert_eq!(
        dimensions(&fixture("turned.jpg")).unwrap(),
        scene().dimensions()
    );
}

#[test]
fn resizing_is_within_one_level_of_pillow() {
    for (name, width, height) in [("down", 32, 24), ("up", 96, 80), ("squeeze", 16, 64)] {
        for (kind, filter) in [
            ("bilinear", Interpolation::Bilinear),
            ("bicubic", Interpolation::Bicubic),
        ] {
            let pillow = decode(&fixture(&format!("resized_{name}_{kind}.png"))).unwrap();
            let ours = resize(&scene(), width, height, filter).unwrap();
            let (worst, mean) = difference(&ours, &pillow);
            assert!(worst <= 1 && mean < 0.02, "{name} {kind}: {worst} {mean}");
        }
    }
}

#[test]
fn preprocessing_with_a_crop_is_timms() {
    for (size, crop, interpolation) in [
        (32, 0.875, Interpolation::Bilinear),
        (24, 0.9, Interpolation::Bicubic),
    ] {
        let preprocessing = Preprocessing {
            crop,
            interpolation,
            ..Preprocessing::imagenet(size)
        };
        let ours = preprocessing.to_tensor(&scene(), &Device::Cpu).unwrap();
        let timm = Tensor::read_npy(fixture(&format!("timm_{size}.npy"))).unwrap();
        assert_eq!(ours.dims(), [1, 3, size, size]);
        let worst = (ours.squeeze(0).unwrap() - timm)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap();
        // One level of 255 is 0.0175 after division by the smallest deviation.
        assert!(worst.to_scalar::<f32>().unwrap() < 0.018, "{size}: {worst}");
    }
}

#[test]
fn without_a_crop_the_whole_image_is_squeezed() {
    let preprocessing = Preprocessing {
        height: 24,
        ..Preprocessing::imagenet(32)
    };
    let pillow = decode(&fixture("resized_down_bilinear.png")).unwrap();
    let batch = preprocessing
        .batch(&[scene(), pillow.clone()], &Device::Cpu)
        .unwrap();
    assert_eq!(batch.dims(), [2, 3, 24, 32]);
    let values: Vec<Vec<f32>> = batch.flatten_from(1).unwrap().to_vec2().unwrap();
    // The second image has the input's size, so that it is only normalised.
    let expected = (f32::from(pillow.get_pixel(31, 23).0[2]) / 255.0 - 0.406) / 0.225;
    assert!((values[1][3 * 24 * 32 - 1] - expected).abs() < 1e-6);
    assert!(
        values[0]
            .iter()
            .zip(&values[1])
            .all(|(a, b)| (a - b).abs() < 0.018)
    );
    assert_eq!(preprocessing.visible(61, 47), [0.0, 0.0, 61.0, 47.0]);
}

#[test]
fn the_visible_part_of_a_crop_is_its_middle() {
    let preprocessing = Preprocessing {
        crop: 0.5,
        ..Preprocessing::imagenet(32)
    };
    assert_eq!(preprocessing.visible(128, 64), [48.0, 16.0, 32.0, 32.0]);
}

#[test]
fn absurd_preprocessing_is_refused_by_field() {
    let sound = Preprocessing::imagenet(256);
    assert!(sound.validate(Path::new("config.json")).is_ok());
    for (field, broken) in [
        (
            "height",
            Preprocessing {
                height: 0,
                ..sound.clone()
            },
        ),
        (
            "width",
            Preprocessing {
                width: 1 << 40,
                ..sound.clone()
            },
        ),
        (
            "crop",
            Preprocessing {
                crop: f32::NAN,
                ..sound.clone()
            },
        ),
        (
            "mean",
            Preprocessing {
                mean: [0.0, f32::INFINITY, 0.0],
                ..sound.clone()
            },
        ),
        (
            "std",
            Preprocessing {
                std: [0.0, 1.0, 1.0],
                ..sound.clone()
            },
        ),
    ] {
        let error = broken.validate(Path::new("config.json")).unwrap_err();
        assert!(matches!(error, Error::Config { .. }));
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("config.json: preprocessing.{field} must be")),
            "{text}"
        );
    }
}

/// The error's text, after checking that it is one line that names the file and what is accepted.
fn refused(path: &Path) -> String {
    let text = refused_at_all(path);
    if !text.contains("cannot be read") {
        assert!(text.contains("accepted are PNG"), "{text}");
    }
    text
}

/// The error's text, after checking that it is one line that names the file.
fn refused_at_all(path: &Path) -> String {
    let error = decode(path).unwrap_err();
    assert!(matches!(error, Error::Image { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with(path.to_str().unwrap()) && !text.contains('\n'),
        "{text}"
    );
    text
}

#[test]
fn truncated_files_are_errors_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "scene.png",
        "scene.jpg",
        "scene_progressive.jpg",
        "scene_cmyk.jpg",
        "turned.jpg",
        "scene.bmp",
        "scene.tiff",
        "scene.webp",
    ] {
        let bytes = fs::read(fixture(name)).unwrap();
        for keep in [bytes.len() - 2, bytes.len() * 9 / 10, bytes.len() / 2, 20] {
            let path = dir.path().join(name);
            fs::write(&path, &bytes[..keep]).unwrap();
            // Two bytes short, only a lossless container's trailer may be missing.
            if keep == bytes.len() - 2
                && decode(&path).is_ok_and(|i| difference(&i, &scene()).0 == 0)
            {
                continue;
            }
            assert!(refused(&path).contains("accepted are PNG"), "{name} {keep}");
        }
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.png");
    fs::write(&text, "this is no picture, only named like one").unwrap();
    assert!(refused(&text).contains("is not an image"));
    let empty = dir.path().join("empty.png");
    fs::write(&empty, "").unwrap();
    assert!(refused(&empty).contains("is empty"));
    assert!(refused(dir.path()).contains("is not a file"));
    assert!(refused(&dir.path().join("absent.png")).contains("cannot be read"));
    assert!(refused_at_all(&fixture("float.tiff")).contains("32-bit float values"));
}

#[test]
fn extreme_sizes_are_refused_before_allocation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("size.png");
    RgbImage::new(1, 1).save(&path).unwrap();
    assert!(refused(&path).contains("1x1 pixels are too small"));
    let png = fs::read(&path).unwrap();
    for (width, height) in [
        (60_000_u32, 60_000_u32),
        (64_001, 2),
        (u32::MAX / 2, 3),
        (11_000, 11_000),
    ] {
        let mut bytes = png.clone();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        let text = refused(&path);
        assert!(text.contains("too large;"), "{text}");
    }
}

/// PNG's checksum, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| {
            (c >> 1) ^ (0xedb8_8320 * (c & 1))
        })
    })
}

#[test]
fn masks_mark_what_is_not_zero() {
    let mask = decode_mask(&fixture("mask.png")).unwrap();
    assert_eq!((mask.width(), mask.height(), mask.area()), (61, 47, 437));
    assert!(mask.get(30, 20) && !mask.get(30, 33) && !mask.get(61, 0));
    for name in [
        "mask_one.png",
        "mask_sixteen.png",
        "mask_colour.png",
        "mask_alpha.png",
    ] {
        assert_eq!(decode_mask(&fixture(name)).unwrap(), mask, "{name}");
    }
    let lossy = decode_mask(&fixture("mask.jpg")).unwrap();
    assert!(lossy.area().abs_diff(mask.area()) < 12, "{}", lossy.area());
    assert_eq!(
        mask.resized(23, 80),
        decode_mask(&fixture("mask_resized.png")).unwrap()
    );
}

#[test]
fn soft_edges_leave_a_masks_area_as_it_was_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mask.png");
    let disc = |x: u32, y: u32| (x as f64 - 50.0).hypot(y as f64 - 50.0);
    let area = |save: &dyn Fn(f64) -> image::DynamicImage| {
        save(1.0).save(&path).unwrap();
        decode_mask(&path).unwrap().area() as f64
    };
    let drawn = std::f64::consts::PI * 20.0 * 20.0;
    // Edges of 16 pixels, half of the largest value at radius 20; any value above 0 would be twice the area.
    for largest in [255.0, 120.0] {
        let found = area(&|_| {
            image::GrayImage::from_fn(100, 100, |x, y| {
                let share = (0.5 + (20.0 - disc(x, y)) / 16.0).clamp(0.0, 1.0);
                image::Luma([(share * largest).round() as u8])
            })
            .into()
        });
        assert!(
            (found / drawn - 1.0).abs() < 0.05,
            "{largest}: {found} of {drawn}"
        );
    }
    // Labels count whatever their number, in grey and in colour.
    let labels = image::GrayImage::from_fn(100, 100, |x, _| image::Luma([(x / 25) as u8]));
    assert_eq!(area(&|_| labels.clone().into()), 7500.0);
    let colours = [[0, 0, 0], [255, 0, 0], [0, 64, 0], [0, 0, 30]];
    let colours = RgbImage::from_fn(100, 100, |x, _| image::Rgb(colours[x as usize / 25]));
    assert_eq!(area(&|_| colours.clone().into()), 7500.0);
    assert_eq!(area(&|_| image::GrayImage::new(100, 100).into()), 0.0);
}

#[test]
fn images_are_listed_sorted_and_without_hidden_files() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "b/2.JPG",
        "b/1.tiff",
        "a.webp",
        "b/c/3.bmp",
        "notes.txt",
        "._a.png",
        ".cache/x.png",
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let found = list_images(dir.path()).unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["a.webp", "b/1.tiff", "b/2.JPG", "b/c/3.bmp"]);
    assert!(matches!(
        list_images(&dir.path().join("absent")),
        Err(Error::Io { .. })
    ));
}

/// The part of two images that is not closer than `margin` to the border.
fn middles(a: &RgbImage, b: &RgbImage, margin: u32) -> (RgbImage, RgbImage) {
    let (w, h) = (a.width() - 2 * margin, a.height() - 2 * margin);
    let cut = |i: &RgbImage| image::imageops::crop_imm(i, margin, margin, w, h).to_image();
    (cut(a), cut(b))
}

#[test]
fn movements_are_pillows_away_from_the_border() {
    let (width, height) = scene().dimensions();
    let turn = View {
        degrees: 15.0,
        ..View::IDENTITY
    };
    let shift = Affine::about_centre(width, height, 0.0, 0.9, [4.0, -3.0]);
    for (name, ours) in [
        ("rotated.png", turn.apply(&scene())),
        ("moved.png", shift.warp(&scene())),
    ] {
        let (ours, pillow) = middles(&ours, &decode(&fixture(name)).unwrap(), 9);
        assert!(
            difference(&ours, &pillow).0 <= 1,
            "{name} {:?}",
            difference(&ours, &pillow)
        );
    }
}

#[test]
fn a_rotation_replicates_the_border() {
    let white = RgbImage::from_pixel(20, 10, image::Rgb([255; 3]));
    let turn = View {
        degrees: 40.0,
        ..View::IDENTITY
    };
    assert_eq!(turn.apply(&white), white);
}

#[test]
fn flips_and_turns_move_pixels_without_changing_them() {
    let image = scene();
    assert_eq!(View::IDENTITY.apply(&image), image);
    let view = View {
        horizontal_flip: true,
        ..View::IDENTITY
    };
    assert_eq!(view.apply(&image).get_pixel(0, 5), image.get_pixel(60, 5));
    let view = View {
        vertical_flip: true,
        quarter_turns: 1,
        ..View::IDENTITY
    };
    // After the flip the top left pixel is the bottom left one; a turn clockwise brings it back up.
    assert_eq!(view.apply(&image).get_pixel(0, 0), image.get_pixel(0, 0));
    assert_eq!(view.apply(&image).dimensions(), (47, 61));
}

#[test]
fn masks_move_with_their_images() {
    let mut mask = Mask::empty(61, 47);
    for (x, y) in [(40, 10), (41, 10), (40, 11), (0, 0)] {
        mask.set(x, y, true);
    }
    let shifted = Affine::about_centre(61, 47, 0.0, 1.0, [-7.0, 5.0]).warp_mask(&mask);
    assert_eq!(shifted.area(), 3, "the corner left the image");
    assert!(shifted.get(33, 15) && shifted.get(34, 15) && shifted.get(33, 16));

    // An image that shows its mask still does after any movement.
    let mut block = Mask::empty(61, 47);
    (20..36).for_each(|x| (12..30).for_each(|y| block.set(x, y, true)));
    let drawn = RgbImage::from_fn(61, 47, |x, y| {
        image::Rgb([255 * u8::from(block.get(x as usize, y as usize)); 3])
    });
    let movement = Affine::about_centre(61, 47, -13.0, 1.1, [3.5, -2.0]);
    let (image, mask) = (movement.warp(&drawn), movement.warp_mask(&block));
    let unlike = image
        .enumerate_pixels()
        .filter(|(x, y, p)| (p.0[0] > 127) != mask.get(*x as usize, *y as usize));
    assert!(unlike.count() < 6);
    assert!((mask.area() as f64 / (block.area() as f64 * 1.21) - 1.0).abs() < 0.05);
}

#[test]
fn views_follow_the_papers_probabilities() {
    use rand::SeedableRng;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let paper = Augmentation::default();
    let views: Vec<View> = (0..4000).map(|_| paper.sample(&mut rng)).collect();
    let share = |test: fn(&View) -> bool| views.iter().filter(|v| test(v)).count() as f64 / 4000.0;
    assert!((share(|v| v.horizontal_flip) - 0.5).abs() < 0.03);
    assert!((share(|v| v.vertical_flip) - 0.3).abs() < 0.03);
    assert!((share(|v| v.degrees != 0.0) - 0.7).abs() < 0.03);
    assert!((share(|v| v.degrees > 7.5) - 0.7 / 4.0).abs() < 0.03);
    assert!(
        views
            .iter()
            .all(|v| v.degrees.abs() <= 15.0 && v.quarter_turns == 0)
    );
    let turning = Augmentation {
        quarter_turns: true,
        rotation: 1.0,
        ..paper
    };
    let turns: Vec<u8> = (0..400)
        .map(|_| turning.sample(&mut rng).quarter_turns)
        .collect();
    assert!((0..4).all(|t| turns.iter().filter(|&&found| found == t).count() > 60));
    assert_eq!(Augmentation::none().sample(&mut rng), View::IDENTITY);
    assert!(Augmentation::none().is_none() && !turning.is_none());
}

#[test]
fn augmentation_is_checked_and_read_with_defaults() {
    let read: Augmentation = serde_json::from_str(r#"{"rotation": 0}"#).unwrap();
    assert_eq!(
        read,
        Augmentation {
            rotation: 0.0,
            ..Augmentation::default()
        }
    );
    assert!(serde_json::from_str::<Augmentation>(r#"{"rotaton": 0}"#).is_err());
    let broken = Augmentation {
        degrees: f64::NAN,
        ..Augmentation::default()
    };
    let text = broken
        .validate(Path::new("config.json"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "config.json: augmentation.degrees must be 0 to 180, found NaN"
    );
}
