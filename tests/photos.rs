//! Files of photos as people have them: depths and ranges, kinds of TIFF, long ones, other shapes, what is not read.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_fastflow::imaging::{self, Depth, PixelRange, Reading, decode, decode_as, header};
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::Tag;

#[path = "support/program.rs"]
mod program;
use program::{generate, parsed, run, succeed, text, told};

fn range(low: f32, high: f32) -> Reading {
    Reading {
        range: PixelRange::of(&[[low, high]], Depth::U16, false),
        ..Reading::default()
    }
}

/// Runs `write` with a TIFF encoder (of a BigTIFF) and puts the file there.
fn tiff(path: &Path, write: impl FnOnce(&mut TiffEncoder<&mut Cursor<Vec<u8>>>)) {
    let mut bytes = Cursor::new(Vec::new());
    write(&mut TiffEncoder::new(&mut bytes).unwrap());
    fs::write(path, bytes.into_inner()).unwrap();
}

#[test]
fn dark_twelve_bits_are_stretched_as_their_bright_twin() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let photo = |factor: u16| {
        ImageBuffer::from_fn(60, 50, |x, y| {
            Luma([(200 + ((x * 5 + y * 3) % 300) as u16) * factor])
        })
    };
    photo(1).save(at("dark.png")).unwrap();
    photo(16).save(at("bright.png")).unwrap();
    let dark = decode_as(&at("dark.png"), &range(200.0, 500.0)).unwrap();
    let bright = decode_as(&at("bright.png"), &range(3200.0, 8000.0)).unwrap();
    assert_eq!(dark.image, bright.image);
    assert_eq!((dark.doubt, bright.doubt), (None, None));
    // 350 is in the middle; 200 lies an eighth of the range above the darkest level.
    assert_eq!(dark.image.get_pixel(0, 0).0, [26; 3]);
    assert_eq!(dark.image.get_pixel(30, 0).0, [128; 3]);
    // Without a range 16 bits are scaled by all they can hold, as ever: two levels.
    let plain = decode(&at("dark.png")).unwrap();
    assert!(plain.pixels().all(|pixel| pixel.0[0] <= 2));
    // Seen with the other's range both are doubtful, and so is a dark one without any.
    for (name, reading) in [
        ("bright.png", range(200.0, 500.0)),
        ("dark.png", range(3200.0, 8000.0)),
        ("dark.png", Reading::default()),
    ] {
        assert!(
            decode_as(&at(name), &reading).unwrap().doubt.is_some(),
            "{name}"
        );
    }
    // Photos of 8 bits stay as they are, to the bit.
    let eight = RgbImage::from_fn(20, 20, |x, y| Rgb([x as u8, y as u8, 200]));
    eight.save(at("eight.png")).unwrap();
    let seen = decode_as(&at("eight.png"), &range(200.0, 500.0)).unwrap();
    assert_eq!(seen.image, eight);
    assert!(seen.doubt.is_some(), "a detector of 16 bits is told of it");
    assert_eq!(
        decode_as(&at("eight.png"), &Reading::default())
            .unwrap()
            .doubt,
        None
    );
}

#[test]
fn colour_and_transparency_of_sixteen_bits_are_scaled_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let image = ImageBuffer::from_fn(8, 8, |x, _| {
        image::Rgba([200u16, 350, 500, if x < 4 { 65535 } else { 0 }])
    });
    DynamicImage::ImageRgba16(image).save(&path).unwrap();
    let seen = decode_as(&path, &range(200.0, 500.0)).unwrap().image;
    assert_eq!(seen.get_pixel(0, 0).0, [26, 128, 230]);
    assert_eq!(seen.get_pixel(7, 0).0, [255; 3]);
}

#[test]
fn tiff_of_every_depth_is_read_with_a_range() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let of = |i: u32| i % 64;
    tiff(&at("f32.tif"), |t| {
        let values: Vec<f32> = (0..640).map(|i| of(i) as f32 / 64.0 - 0.5).collect();
        t.write_image::<colortype::Gray32Float>(32, 20, &values)
            .unwrap();
    });
    tiff(&at("f64.tif"), |t| {
        let values: Vec<f64> = (0..640).map(|i| f64::from(of(i)) / 64.0 - 0.5).collect();
        t.write_image::<colortype::Gray64Float>(32, 20, &values)
            .unwrap();
    });
    tiff(&at("u32.tif"), |t| {
        let values: Vec<u32> = (0..640).map(|i| 1_000_000 + 1000 * of(i)).collect();
        t.write_image::<colortype::Gray32>(32, 20, &values).unwrap();
    });
    tiff(&at("i16.tif"), |t| {
        let values: Vec<i16> = (0..640).map(|i| of(i) as i16 - 1000).collect();
        t.write_image::<colortype::GrayI16>(32, 20, &values)
            .unwrap();
    });
    tiff(&at("rgb-f32.tif"), |t| {
        let values: Vec<f32> = (0..640 * 3)
            .map(|i| of(i / 3) as f32 / 64.0 - 0.5)
            .collect();
        t.write_image::<colortype::RGB32Float>(32, 20, &values)
            .unwrap();
    });
    for (name, depth, low, high) in [
        ("f32.tif", Depth::F32, -0.5, 0.5 - 1.0 / 64.0),
        ("f64.tif", Depth::F64, -0.5, 0.5 - 1.0 / 64.0),
        ("u32.tif", Depth::U32, 1_000_000.0, 1_063_000.0),
        ("i16.tif", Depth::I16, -1000.0, -937.0),
        ("rgb-f32.tif", Depth::F32, -0.5, 0.5 - 1.0 / 64.0),
    ] {
        let found = header(&at(name), &Reading::default()).unwrap();
        assert_eq!(
            (found.width, found.height, found.depth),
            (32, 20, depth),
            "{name}"
        );
        let photo = imaging::photo(&at(name), &Reading::default()).unwrap();
        assert_eq!(photo.extent(), Some([low, high]), "{name}");
        let reading = Reading {
            range: PixelRange::of(&[[low, high]], depth, false),
            ..Reading::default()
        };
        let seen = decode_as(&at(name), &reading).unwrap();
        assert_eq!(seen.doubt, None, "{name}");
        let levels = [0, 21, 63].map(|x| seen.image.get_pixel(x % 32, x / 32).0[0]);
        assert_eq!(levels, [26, 94, 230], "{name}");
        // Without a range nobody knows what is black.
        let error = decode(&at(name)).unwrap_err().to_string();
        assert!(
            error.contains(depth.words()) && error.contains("no range"),
            "{error}"
        );
    }
}

#[test]
fn big_palette_and_jpeg_tiffs_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let photo = RgbImage::from_fn(48, 32, |x, y| {
        Rgb([(x * 5) as u8, (y * 7) as u8, (x + y) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    let mut big = TiffEncoder::new_big(&mut bytes).unwrap();
    big.write_image::<colortype::RGB8>(48, 32, photo.as_raw())
        .unwrap();
    fs::write(at("big.tif"), bytes.into_inner()).unwrap();
    assert_eq!(decode(&at("big.tif")).unwrap(), photo);

    // Index i is red i, green 255 - i, blue 7.
    let indices: Vec<u8> = (0..48 * 32).map(|i| (i % 251) as u8).collect();
    tiff(&at("palette.tif"), |t| {
        let mut image = t.new_image::<colortype::Gray8>(48, 32).unwrap();
        let of =
            |value: &dyn Fn(u16) -> u16| (0..256).map(|i| 257 * value(i)).collect::<Vec<u16>>();
        let map = [of(&|i| i), of(&|i| 255 - i), of(&|_| 7)].concat();
        image
            .encoder()
            .write_tag(Tag::PhotometricInterpretation, 3u16)
            .unwrap();
        image.encoder().write_tag(Tag::ColorMap, &map[..]).unwrap();
        image.write_data(&indices).unwrap();
    });
    let found = decode(&at("palette.tif")).unwrap();
    let expected = RgbImage::from_fn(48, 32, |x, y| {
        let index = indices[(y * 48 + x) as usize];
        Rgb([index, 255 - index, 7])
    });
    assert_eq!(found, expected);

    fs::write(at("jpeg.tif"), jpeg_in_tiff(&photo)).unwrap();
    let found = decode(&at("jpeg.tif")).unwrap();
    let worst = found
        .as_raw()
        .iter()
        .zip(photo.as_raw())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert_eq!(found.dimensions(), photo.dimensions());
    assert!(worst.unwrap() < 24, "{worst:?}");
    for name in ["big.tif", "palette.tif", "jpeg.tif"] {
        let found = header(&at(name), &Reading::default()).unwrap();
        assert_eq!(
            (found.width, found.height, found.depth),
            (48, 32, Depth::U8),
            "{name}"
        );
    }
}

/// A TIFF of one strip that is a JPEG, as scanners write it: YCbCr.
fn jpeg_in_tiff(photo: &RgbImage) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95);
    photo.write_with_encoder(encoder).unwrap();
    const ENTRIES: u32 = 10;
    let bits_at = 8 + 2 + 12 * ENTRIES + 4;
    let data_at = bits_at + 6;
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((ENTRIES as u16).to_le_bytes());
    let (width, height) = photo.dimensions();
    for (tag, kind, count, value) in [
        (256u16, 4u16, 1u32, width),
        (257, 4, 1, height),
        (258, 3, 3, bits_at),
        (259, 3, 1, 7),
        (262, 3, 1, 6),
        (273, 4, 1, data_at),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, jpeg.len() as u32),
        // Subsampling: none, two values of 16 bits.
        (530, 3, 2, 0x0001_0001),
    ] {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file.extend([8u16; 3].iter().flat_map(|bits| bits.to_le_bytes()));
    file.extend(jpeg);
    file
}

#[test]
fn a_page_is_taken_and_a_missing_one_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.tif");
    tiff(&path, |t| {
        for page in 1..=3u8 {
            t.write_image::<colortype::Gray8>(
                10,
                6 + u32::from(page),
                &vec![page * 50; 10 * (6 + usize::from(page))],
            )
            .unwrap();
        }
    });
    let page = |page| Reading {
        page,
        ..Reading::default()
    };
    for (number, level) in [(1, 50), (2, 100), (3, 150)] {
        let seen = decode_as(&path, &page(number)).unwrap().image;
        assert_eq!(seen.dimensions(), (10, 6 + number as u32));
        assert_eq!(seen.get_pixel(0, 0).0, [level; 3]);
        let found = header(&path, &page(number)).unwrap();
        assert_eq!((found.height, found.pages), (6 + number as u32, 3));
    }
    let error = decode_as(&path, &page(4)).unwrap_err().to_string();
    assert!(
        error.contains("has 3 pages, and page 4 was asked for"),
        "{error}"
    );
}

#[test]
fn gif_pnm_and_files_without_an_extension_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let photo = RgbImage::from_fn(20, 10, |x, _| Rgb([if x < 10 { 0 } else { 255 }; 3]));
    photo
        .save_with_format(at("a.gif"), ImageFormat::Gif)
        .unwrap();
    photo
        .save_with_format(at("b.ppm"), ImageFormat::Pnm)
        .unwrap();
    photo
        .save_with_format(at("d.jfif"), ImageFormat::Png)
        .unwrap();
    photo.save_with_format(at("e"), ImageFormat::Png).unwrap();
    // 12 bits of 4095, as cameras write it.
    let mut pgm = b"P5\n20 10\n4095\n".to_vec();
    pgm.extend((0..200u16).flat_map(|i| (200 + i).to_be_bytes()));
    fs::write(at("c.pgm"), pgm).unwrap();
    fs::write(at("README"), "Photos of a line").unwrap();
    fs::write(at("BMW"), "BM is how a text may begin").unwrap();
    let listed = imaging::list_images(folder.path()).unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|p| p.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["a.gif", "b.ppm", "c.pgm", "d.jfif", "e"]);
    for name in ["a.gif", "b.ppm", "d.jfif", "e"] {
        assert_eq!(decode(&at(name)).unwrap(), photo, "{name}");
    }
    assert_eq!(
        header(&at("c.pgm"), &Reading::default()).unwrap().depth,
        Depth::U16
    );
}

#[test]
fn what_is_not_read_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let unread = || imaging::survey(folder.path()).unwrap().1;
    assert!(unread().is_empty());
    put("a.HEIC", b"");
    put("b.heic", b"");
    put("c.jp2", b"");
    put("notes.txt", b"");
    put(".d.heic", b"");
    put("e", b"\0\0\0\x1cftypheic\0\0\0\0");
    put("f.png", b"");
    let found = unread().to_string();
    assert_eq!(
        found,
        "4 files were not looked at: 2 .heic, 1 .jp2, 1 heic without extension (cannot be read here); convert them \
         to PNG"
    );
}

#[test]
fn long_photos_are_read_within_the_limit_and_a_flag_raises_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line.png");
    image::GrayImage::from_pixel(64_000, 20, Luma([90]))
        .save(&path)
        .unwrap();
    assert_eq!(decode(&path).unwrap().dimensions(), (64_000, 20));
    let small = Reading {
        max_pixels: 1_000_000,
        ..Reading::default()
    };
    let error = decode_as(&path, &small).unwrap_err().to_string();
    assert!(
        error.contains("64000x20 pixels are too large") && error.contains("at most 1 megapixels"),
        "{error}"
    );
    image::GrayImage::from_pixel(64_001, 2, Luma([90]))
        .save(&path)
        .unwrap();
    assert!(decode(&path).is_err());
}

#[test]
fn a_check_notes_inverted_masks_and_reads_photos_of_any_depth() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, image: DynamicImage| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image.save(path).unwrap();
    };
    let deep =
        |seed: u16| ImageBuffer::from_fn(40, 40, |x, y| Luma([200 + seed + (x * y) as u16 % 100]));
    put("train/good/0.png", DynamicImage::ImageLuma16(deep(0)));
    put("test/good/0.png", DynamicImage::ImageLuma16(deep(1)));
    put("test/hole/0.png", DynamicImage::ImageLuma16(deep(2)));
    let mask = |x: u32, y: u32| Luma([if x < 8 && y < 8 { 0 } else { 255 }]);
    put(
        "ground_truth/hole/0_mask.png",
        image::GrayImage::from_fn(40, 40, mask).into(),
    );
    let report = candle_fastflow::datasets::check(folder.path(), &|_, _| {}).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(
        report.problems[0].what,
        "the mask marks 96 % of the photo; where the background is meant, invert it"
    );
    assert!(report.is_usable());
}

/// A generated cloth, its photos changed by `change` and saved again.
fn cloth(folder: &Path, name: &str, change: impl Fn(&RgbImage) -> DynamicImage) -> PathBuf {
    let data = folder.join(name);
    generate(&data, "3");
    let photos = imaging::list_images(&data).unwrap();
    for photo in photos
        .iter()
        .filter(|photo| !photo.starts_with(data.join("ground_truth")))
    {
        change(&decode(photo).unwrap()).save(photo).unwrap();
    }
    data
}

/// 12 bits in the dark, 200 to 500, times a factor.
fn dark(photo: &RgbImage, factor: u16) -> DynamicImage {
    let grey = DynamicImage::from(photo.clone()).to_luma8();
    let deep = ImageBuffer::from_fn(grey.width(), grey.height(), |x, y| {
        let value = u32::from(grey.get_pixel(x, y).0[0]);
        Luma([(200 + (value * 300 / 255) as u16) * factor])
    });
    DynamicImage::ImageLuma16(deep)
}

fn train(data: &Path, out: &Path, rest: &[&str]) -> String {
    let args = [
        "train",
        "--data",
        text(data),
        "--out",
        text(out),
        "--backbone",
        "wavelet",
    ];
    let output = run(&[&args[..], rest].concat());
    assert!(output.status.success(), "{}", told(&output));
    told(&output) + &String::from_utf8_lossy(&output.stdout)
}

fn input(detector: &Path) -> Value {
    let text = fs::read_to_string(detector.join("config.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["preprocessing"].clone()
}

#[test]
fn dark_cloth_is_inspected_as_well_as_its_bright_twin() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut found = Vec::new();
    for (name, factor) in [("dark", 1), ("bright", 16)] {
        let data = cloth(folder.path(), name, |photo| dark(photo, factor));
        let detector = at(&format!("{name}-detector"));
        let said = train(&data, &detector, &["--size", "96"]);
        let range = input(&detector)["range"].clone();
        let [low, high] =
            ["low", "high"].map(|end| range[end].as_f64().unwrap() / f64::from(factor));
        assert!(
            (200.0..500.0).contains(&low) && low + 50.0 < high && high <= 500.0,
            "{range}"
        );
        let line = format!(
            "16-bit photos use {} to {} of 65535: scaled by that",
            range["low"].as_f64().unwrap(),
            range["high"].as_f64().unwrap()
        );
        assert!(said.contains(&line), "{said}");
        let figures = parsed(&succeed(&[
            "eval",
            text(&detector),
            "--data",
            text(&data),
            "--json",
        ]));
        found.push(figures["image_auroc"].as_f64().unwrap());
        // Overlays show the photo as stretched, not black.
        let photo = data.join("test/good/000.png");
        let out = at(&format!("{name}-overlays"));
        succeed(&["infer", text(&detector), text(&photo), "--out", text(&out)]);
        let overlay = out.join("000.png");
        let levels: Vec<u8> = decode(&overlay).unwrap().pixels().map(|p| p.0[1]).collect();
        assert!(levels.iter().max().unwrap() - levels.iter().min().unwrap() > 60);
    }
    assert_eq!(found[0], found[1]);
    // As well as the same cloth of 8 bits, but for one pair of photos in 28.
    let data = cloth(folder.path(), "eight", |photo| {
        DynamicImage::from(photo.clone()).to_luma8().into()
    });
    let detector = at("eight-detector");
    train(&data, &detector, &["--size", "96", "--no-eval"]);
    let figures = parsed(&succeed(&[
        "eval",
        text(&detector),
        "--data",
        text(&data),
        "--json",
    ]));
    let eight = figures["image_auroc"].as_f64().unwrap();
    assert!(
        found[0] > 0.8 && found[0] >= eight - 1.5 / 28.0,
        "{found:?} {eight}"
    );

    // The twin's photos are told of, once, and in JSON; its own are not.
    let detector = at("dark-detector");
    let inspect = |data: &str| {
        run(&[
            "infer",
            text(&detector),
            text(&at(data).join("test/good")),
            "--json",
        ])
    };
    let output = inspect("bright");
    assert_eq!(
        told(&output).matches("other pixel values").count(),
        1,
        "{}",
        told(&output)
    );
    assert!(
        told(&output).contains("4 of 4 photos with other pixel values"),
        "{}",
        told(&output)
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    let line = parsed(lines.lines().next().unwrap());
    assert_eq!(line["unlike"]["range"]["kind"], "outside");
    let output = inspect("dark");
    assert_eq!(told(&output), "");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("unlike"));
}

#[test]
fn eight_bits_leave_no_range_and_an_artifact_without_the_new_fields_is_the_same_detector() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("cloth");
    generate(&data, "3");
    let detector = folder.path().join("detector");
    let said = train(&data, &detector, &["--size", "96", "--no-eval"]);
    assert!(!said.contains("scaled by"), "{said}");
    let input = input(&detector);
    assert!(
        input.get("range").is_none() && input.get("page").is_none(),
        "{input}"
    );
    assert_eq!(input["aspects"], serde_json::json!([1.0, 1.0]));
    let photos = data.join("test");
    let before = succeed(&["infer", text(&detector), text(&photos), "--json"]);
    let path = detector.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["preprocessing"]
        .as_object_mut()
        .unwrap()
        .remove("aspects");
    fs::write(&path, config.to_string()).unwrap();
    assert_eq!(
        succeed(&["infer", text(&detector), text(&photos), "--json"]),
        before
    );
}

/// A wide cloth: every photo twice beside itself and a bit.
fn wide(folder: &TempDir) -> PathBuf {
    let data = folder.path().join("wide");
    generate(&data, "5");
    fs::remove_dir_all(data.join("test")).unwrap();
    fs::remove_dir_all(data.join("ground_truth")).unwrap();
    for path in imaging::list_images(&data).unwrap() {
        let photo = decode(&path).unwrap();
        let long = RgbImage::from_fn(288, 96, |x, y| *photo.get_pixel(x % 96, y));
        long.save(&path).unwrap();
    }
    data
}

#[test]
fn an_input_is_as_wide_as_said_or_as_the_photos() {
    let folder = tempfile::tempdir().unwrap();
    let data = wide(&folder);
    let sides = |name: &str, rest: &[&str]| {
        let out = folder.path().join(name);
        let said = train(&data, &out, &[&["--no-eval"], rest].concat());
        let input = input(&out);
        let side = |name: &str| input[name].as_u64().unwrap();
        (side("height"), side("width"), said)
    };
    let padim = ["--method", "padim", "--channels", "8"];
    let (height, width, said) = sides("said", &[&padim[..], &["--size", "64x160"]].concat());
    assert_eq!((height, width), (64, 160));
    assert!(
        said.contains("input of 64x160 pixels, height x width"),
        "{said}"
    );
    let (height, width, said) = sides("across", &[&padim[..], &["--size", "160x64"]].concat());
    assert_eq!((height, width), (160, 64));
    assert!(said.contains("lies across the photos' shape"), "{said}");
    // A number is a square as ever; without one the photos are three times as wide as high.
    let (height, width, _) = sides("square", &[&padim[..], &["--size", "96"]].concat());
    assert_eq!((height, width), (96, 96));
    let (height, width, _) = sides("own", &padim);
    assert!(
        (2.7..3.3).contains(&(width as f64 / height as f64)),
        "{height}x{width}"
    );
    // Photos of another shape are told of.
    let square = folder.path().join("square.png");
    RgbImage::new(96, 96).save(&square).unwrap();
    let output = run(&[
        "infer",
        text(&folder.path().join("own")),
        text(&square),
        "--json",
    ]);
    assert!(
        told(&output).contains("1 of 1 photos of another shape"),
        "{}",
        told(&output)
    );
    let line = parsed(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(line["unlike"]["aspect"], 1.0);
    let output = run(&[
        "train",
        "--data",
        text(&data),
        "--out",
        "x",
        "--size",
        "64*160",
    ]);
    assert!(
        !output.status.success() && told(&output).contains("height x width"),
        "{}",
        told(&output)
    );
}
