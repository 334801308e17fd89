//! Features of every backbone against independent references; tests/fixtures/backbones/make.py made them.

#![allow(clippy::unwrap_used)]

mod formula;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_fastflow::backbones::{self, Backbone};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/backbones");

fn reference(name: &str) -> Vec<f32> {
    let path = Path::new(FIXTURES).join("features.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    tensors[name].to_vec1().unwrap()
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

#[test]
fn resnets_equal_timm() {
    let values = formula::uniform("input", 2 * 3 * 64 * 48);
    let values: Vec<f32> = values.iter().map(|u| (2.0 * u - 1.0) as f32).collect();
    let images = Tensor::from_vec(values, (2, 3, 64, 48), &Device::Cpu).unwrap();
    for arch in ["resnet18", "wide_resnet50_2"] {
        let dir = tempfile::tempdir().unwrap();
        let weights = formula_weights(arch, dir.path());
        let backbone = backbones::load(arch, Some(&weights), &Device::Cpu).unwrap();
        assert_maps(&*backbone, &images, arch, 1e-4);
    }
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
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let mut values = Vec::new();
    for channel in 0..3 {
        for y in (0..512).step_by(2) {
            let pixel = |x| f64::from(grey.get_pixel(x, y).0[0]) / 255.0;
            let row = (0..512).step_by(2).map(pixel);
            values.extend(row.map(|value| ((value - mean[channel]) / std[channel]) as f32));
        }
    }
    let image = Tensor::from_vec(values, (1, 3, 256, 256), &Device::Cpu).unwrap();
    let backbone = backbones::load("resnet18", Some(&weights), &Device::Cpu).unwrap();
    assert_maps(&*backbone, &image, "screw", 1e-4);
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
