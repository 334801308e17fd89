//! Features of every backbone against independent references; make.py and make_taps.py in tests/fixtures/backbones
//! made them.

#![allow(clippy::unwrap_used)]

mod formula;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_fastflow::backbones::{
    self, Backbone, BackboneInfo, Taps, Weights,
    cait::{self, Cait},
    vit::{self, Vit},
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/backbones");

fn reference(name: &str) -> Vec<f32> {
    let tensor = ["features", "taps"].into_iter().find_map(|file| {
        let path = format!("{FIXTURES}/{file}.safetensors");
        let mut tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        tensors.remove(name)
    });
    tensor.unwrap().to_vec1().unwrap()
}

/// The largest difference relative to the reference's largest value.
fn deviation(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(0f32, |max, value| max.max(value.abs()));
    assert!(largest > 1e-3, "a reference of nothing");
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0f32, f32::max) / largest
}

fn assert_maps(backbone: &dyn Backbone, images: &Tensor, name: &str, tolerance: f32) {
    let (batch, _, height, width) = images.dims4().unwrap();
    let maps = backbone.features(images).unwrap();
    let shapes = backbone.shapes(height, width).unwrap();
    assert_eq!(maps.len(), shapes.len());
    for (index, (map, shape)) in maps.iter().zip(shapes).enumerate() {
        let shape = [batch, shape.channels, shape.height, shape.width];
        assert_eq!(map.dims(), shape);
        let found = deviation(
            &formula::sample(map),
            &reference(&format!("{name}.{index}")),
        );
        assert!(found < tolerance, "{name}, map {index}: off by {found:e}");
    }
}

fn formula_weights(arch: &str, dir: &Path) -> PathBuf {
    let path = dir.join("model.safetensors");
    let shapes = std::fs::read_to_string(format!("{FIXTURES}/{arch}.json")).unwrap();
    formula::save_weights(&shapes, &path);
    path
}

/// One image of `pixel(x, y)`, normalised as for ImageNet.
fn normalised(height: u32, width: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Tensor {
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let mut values = Vec::new();
    for channel in 0..3 {
        for y in 0..height {
            let value = |x| f64::from(pixel(x, y)[channel]) / 255.0;
            let row = (0..width).map(value);
            values.extend(row.map(|value| ((value - mean[channel]) / std[channel]) as f32));
        }
    }
    let shape = (1, 3, height as usize, width as usize);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Two images of a formula's values from -1 to 1.
fn formula_images(name: &str, height: usize, width: usize) -> Tensor {
    let values = formula::uniform(name, 2 * 3 * height * width);
    let values: Vec<f32> = values.iter().map(|u| (2.0 * u - 1.0) as f32).collect();
    Tensor::from_vec(values, (2, 3, height, width), &Device::Cpu).unwrap()
}

fn taps(text: &str) -> Taps {
    text.parse().unwrap()
}

#[test]
fn resnets_equal_timm() {
    let images = formula_images("input", 64, 48);
    for arch in [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "wide_resnet50_2",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let weights = formula_weights(arch, dir.path());
        let backbone = backbones::load(arch, Some(&weights), &Device::Cpu).unwrap();
        assert_maps(&*backbone, &images, arch, 1e-4);
        if !["resnet34", "resnet50"].contains(&arch) {
            continue;
        }
        let other = taps("2,4");
        let backbone =
            backbones::load_with(arch, Some(&other), Some(&weights), &Device::Cpu).unwrap();
        assert_eq!(backbone.info().taps, [2, 4]);
        assert_maps(&*backbone, &images, &format!("{arch}@2,4"), 1e-4);
    }
}

#[test]
fn stages_behind_the_last_tap_are_not_read_and_a_missing_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // this file has no layer4
    let path = formula_weights("resnet18", dir.path());
    let load = |text: &str, path: &Path| {
        backbones::load_with("resnet18", Some(&taps(text)), Some(path), &Device::Cpu)
    };
    let error = load("1,4", &path).err().unwrap().to_string();
    assert!(
        error.contains("`layer4.0.conv1.weight`") && error.contains("ends before stage 4"),
        "{error}"
    );
    // and with stage 3 taken out too, stage 2 is still to be had, to the same bits
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    tensors.retain(|name, _| !name.starts_with("layer3"));
    let cut = dir.path().join("cut.safetensors");
    candle_core::safetensors::save(&tensors, &cut).unwrap();
    assert!(load("3", &cut).is_err());
    let images = formula_images("input", 64, 48);
    let flat = |map: &Tensor| map.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let maps = load("2", &cut).unwrap().features(&images).unwrap();
    let all = load("1,2,3", &path).unwrap().features(&images).unwrap();
    assert_eq!(maps.len(), 1);
    assert_eq!(flat(&maps[0]), flat(&all[1]));
}

#[cfg(feature = "transformers")]
#[test]
fn eva_through_candle_transformers_equals_timm() {
    use candle_fastflow::backbones::eva::{Config, Eva};

    let config = Config {
        width: 128,
        depth: 3,
    };
    let build = |weights: &Weights, taps: &str| -> Box<dyn Backbone> {
        let info = tapped("eva02_base_patch14_448", taps);
        Box::new(Eva::new(info, &config, weights).unwrap())
    };
    assert_transformer("eva", &[(448, 448)], |weights| build(weights, "1"));
    assert_taps("eva@0,1", (448, 448), |weights| build(weights, "0,1"));
}

/// Checks a transformer at its own input size and at another, whose position embedding is resampled.
fn assert_transformer(
    name: &str,
    sizes: &[(usize, usize)],
    build: impl Fn(&Weights) -> Box<dyn Backbone>,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = formula_weights(name, dir.path());
    let backbone = build(&Weights::open(&path, &Device::Cpu).unwrap());
    for &(height, width) in sizes {
        let name = format!("{name}.{height}x{width}");
        let images = formula_images(&name, height, width);
        assert_maps(&*backbone, &images, &name, 2e-4);
        let cut = images.narrow(2, 0, height - 1).unwrap();
        let error = backbone.features(&cut).unwrap_err().to_string();
        assert!(
            error.contains(&format!("found {}x{width}", height - 1)),
            "{error}"
        );
    }
}

/// What `id` is with these taps.
fn tapped(id: &str, text: &str) -> BackboneInfo {
    backbones::info_with(id, Some(&taps(text))).unwrap()
}

/// Checks the maps of a transformer at the taps behind the `@` of the reference's name.
fn assert_taps(
    name: &str,
    (height, width): (usize, usize),
    build: impl Fn(&Weights) -> Box<dyn Backbone>,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = formula_weights(name.split('@').next().unwrap(), dir.path());
    let backbone = build(&Weights::open(&path, &Device::Cpu).unwrap());
    assert_maps(
        &*backbone,
        &formula_images("input", height, width),
        name,
        2e-4,
    );
}

#[test]
fn vision_transformers_equal_timm() {
    let info = |taps: &str| tapped("deit_tiny_patch16_224", taps);
    for (name, patch, grid, distilled, layer_scale) in [
        ("vit", 4, 6, false, false),
        ("vit_distilled", 4, 6, true, false),
        ("vit_dinov2", 7, 9, false, true),
    ] {
        let config = vit::Config {
            patch,
            grid,
            width: 32,
            heads: 2,
            depth: 4,
            distilled,
            layer_scale,
        };
        let own = patch * grid;
        let sizes = [(own, own), (own - patch, own + 2 * patch)];
        assert_transformer(name, &sizes, |weights| {
            Box::new(Vit::new(info("2"), &config, weights).unwrap())
        });
        assert_taps(&format!("{name}@0,2"), (own, own), |weights| {
            Box::new(Vit::new(info("0,2"), &config, weights).unwrap())
        });
    }
}

#[test]
fn cait_equals_timm() {
    let info = |taps: &str| tapped("cait_xxs24_224", taps);
    let config = cait::Config {
        grid: 4,
        width: 48,
        heads: 4,
        depth: 4,
    };
    let sizes = [(64, 64), (48, 96)];
    assert_transformer("cait", &sizes, |weights| {
        Box::new(Cait::new(info("2"), &config, weights).unwrap())
    });
    assert_taps("cait@0,2", (64, 64), |weights| {
        Box::new(Cait::new(info("0,2"), &config, weights).unwrap())
    });
}

#[test]
fn the_real_resnet18_equals_timm_on_a_screw() {
    let shared = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let weights = shared.join("weights/resnet18.tv_in1k/model.safetensors");
    let photo = shared.join("data/screw/train/good/000.png");
    if !weights.exists() || !photo.exists() {
        eprintln!("skipped: ../shared is absent");
        return;
    }
    let grey = image::open(photo).unwrap().into_luma8();
    let image = normalised(256, 256, |x, y| [grey.get_pixel(2 * x, 2 * y).0[0]; 3]);
    let backbone = backbones::load("resnet18", Some(&weights), &Device::Cpu).unwrap();
    assert_maps(&*backbone, &image, "screw", 1e-4);
}

/// scikit-image's `chelsea` (CC0), squeezed to 224x224; make.py wrote the file.
#[test]
fn the_real_deit_tiny_sees_a_cat() {
    let weights = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"))
        .join("weights/deit_tiny_patch16_224.fb_in1k/model.safetensors");
    if !weights.exists() {
        eprintln!("skipped: ../shared is absent");
        return;
    }
    let photo = image::open(format!("{FIXTURES}/chelsea.jpg"))
        .unwrap()
        .into_rgb8();
    let images = normalised(224, 224, |x, y| photo.get_pixel(x, y).0);
    let config = vit::Config {
        patch: 16,
        grid: 14,
        width: 192,
        heads: 3,
        depth: 12,
        distilled: false,
        layer_scale: false,
    };
    let info = tapped("deit_tiny_patch16_224", "11");
    let weights = Weights::open(&weights, &Device::Cpu).unwrap();
    let tokens = Vit::new(info, &config, &weights)
        .unwrap()
        .tokens(&images)
        .unwrap();
    let class = tokens.get(0).unwrap().narrow(0, 0, 1).unwrap();
    let head = weights.tensor("head.weight", &[1000, 192]).unwrap();
    let bias = weights.tensor("head.bias", &[1000]).unwrap();
    let logits = class
        .matmul(&head.t().unwrap())
        .unwrap()
        .broadcast_add(&bias)
        .unwrap();
    let probabilities = candle_nn::ops::softmax(&logits, 1).unwrap();
    let probabilities: Vec<f32> = probabilities.flatten_all().unwrap().to_vec1().unwrap();
    // Egyptian cat, tabby, tiger cat: as timm says of this file
    for (class, expected) in [(285, 0.3094), (281, 0.2802), (282, 0.1891)] {
        let found = probabilities[class];
        assert!((found - expected).abs() < 0.005, "class {class}: {found}");
    }
}

#[test]
fn the_wavelet_bank_equals_kymatio_and_scipy() {
    let values = formula::uniform("wavelet", 3 * 48 * 32);
    let values = values.iter().map(|u| *u as f32).collect();
    let image = Tensor::from_vec(values, (1, 3, 48, 32), &Device::Cpu).unwrap();
    let backbone = backbones::load("wavelet", None, &Device::Cpu).unwrap();
    // the filters are cut where their envelope falls below 1e-3, kymatio's are not
    assert_maps(&*backbone, &image, "wavelet", 2e-3);
    let odd = image.narrow(2, 0, 40).unwrap();
    let error = backbone.features(&odd).unwrap_err().to_string();
    assert!(error.contains("16 divides, found 40x32"), "{error}");
}

#[test]
fn a_tap_that_is_not_there_is_named_with_those_that_are() {
    let load = |id: &str, text: &str| {
        let loaded = backbones::load_random_with(id, Some(&taps(text)), 0, &Device::Cpu);
        loaded.err().unwrap().to_string()
    };
    let error = load("resnet50", "1,5");
    assert!(
        error.contains("`resnet50.tv_in1k` has no tap 5: there are 1 to 4"),
        "{error}"
    );
    let error = load("cait_xxs24_224", "24");
    assert!(error.contains("0 to 23") && error.contains("20"), "{error}");
    let error = load("wavelet", "4,8");
    assert!(error.contains("its taps are 4,8,16"), "{error}");
    // a network built by hand with fewer blocks than its info was asked for
    let config = cait::Config {
        grid: 4,
        width: 48,
        heads: 4,
        depth: 4,
    };
    let info = backbones::info("cait_xxs24_224").unwrap();
    let error = Cait::new(info, &config, &Weights::random(0, &Device::Cpu));
    let error = error.err().unwrap().to_string();
    assert!(error.contains("no tap 20: there are 0 to 3"), "{error}");
}
