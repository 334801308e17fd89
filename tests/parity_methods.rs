//! Methods against independent references: tests/fixtures/methods, one script a fixture.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use candle_fastflow::estimators::{
    EstimatorConfig, FeatureSource, FitWith, Fitting, MethodConfig,
    differnet::DifferNetConfig,
    memory::{Precision, SpadeConfig},
};
use candle_fastflow::kernels::FeatureShape;

#[path = "support/weyl.rs"]
mod weyl;
use weyl::{close, tensor, values};

fn shape(channels: usize, height: usize, width: usize) -> FeatureShape {
    FeatureShape {
        channels,
        height,
        width,
    }
}

fn expected(file: &str) -> HashMap<String, Tensor> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/methods");
    candle_core::safetensors::load(folder.join(file), &Device::Cpu).unwrap()
}

/// Photos whose maps have names.
struct Named {
    shapes: Vec<FeatureShape>,
    photos: Vec<Vec<Vec<f32>>>,
}

impl Named {
    fn new(shapes: &[FeatureShape], kind: &str, count: usize) -> Self {
        let photo = |number| {
            let maps = shapes.iter().enumerate();
            let map = |(scale, shape): (usize, &FeatureShape)| {
                let raw = values(&format!("{kind}.{number}.{scale}"), shape.values());
                raw.into_iter().map(|v| v as f32).collect()
            };
            maps.map(map).collect()
        };
        Self {
            shapes: shapes.to_vec(),
            photos: (0..count).map(photo).collect(),
        }
    }
}

impl FeatureSource for Named {
    fn len(&self) -> usize {
        self.photos.len()
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn map(&self, record: usize, scale: usize) -> &[f32] {
        &self.photos[record][scale]
    }
}

#[test]
fn spade_is_numpys() {
    let shapes = [shape(3, 6, 8), shape(5, 3, 4)];
    let config = EstimatorConfig::Spade(SpadeConfig {
        photos: 4,
        precision: Precision::F32,
    });
    let Fitting::Closed(method) = config.fitting() else {
        panic!("SPADE is fitted in closed form");
    };
    let mut with = FitWith {
        seed: 0,
        device: &Device::Cpu,
        parent: None,
        progress: &mut |_, _| true,
    };
    let spade = method
        .fit(&Named::new(&shapes, "normal", 9), &mut with)
        .unwrap();
    let queries = Named::new(&shapes, "query", 2);
    let queries = queries.batch(&[0, 1], &Device::Cpu).unwrap();
    let found = spade.native_maps(&queries, &config.scoring()).unwrap();
    let expected = expected("spade.safetensors");
    close("scores", &found.scores.unwrap(), &expected["scores"]);
    close("maps", &found.pixel[0], &expected["maps"]);
}

#[test]
fn differnets_flow_is_freias() {
    let config = DifferNetConfig {
        steps: 3,
        hidden: 6,
        inputs: 2,
        ..DifferNetConfig::default()
    };
    let sizes = [shape(4, 4, 4), shape(4, 2, 2)];
    let shapes: Vec<FeatureShape> = sizes.iter().flat_map(|&size| [size; 4]).collect();
    let Fitting::Gradient(method) = config.fitting() else {
        panic!("DifferNet is trained");
    };
    let template = method
        .init(&shapes, 0, &Device::Cpu)
        .unwrap()
        .tensors()
        .unwrap();
    let filled = template.into_iter().map(|(name, like)| {
        let raw = values(&name, like.elem_count());
        if name.ends_with("permutation") {
            let mut order: Vec<u32> = (0..raw.len() as u32).collect();
            order.sort_by(|&a, &b| raw[a as usize].total_cmp(&raw[b as usize]));
            let count = order.len();
            return (name, Tensor::from_vec(order, count, &Device::Cpu).unwrap());
        }
        let value = |v: f64| match name.as_str() {
            "mean" => 0.1 * v,
            "std" => 1.0 + 0.5 * v,
            name if name.ends_with("bias") => 0.3 * v,
            _ => v,
        };
        let filled = tensor(raw.into_iter().map(value).collect(), like.dims());
        (name, filled)
    });
    let filled: BTreeMap<_, _> = filled.collect();
    let model = method
        .load_trainable(&shapes, filled, &Device::Cpu)
        .unwrap();
    let map = |size: usize, turn: usize| {
        let FeatureShape {
            channels,
            height,
            width,
        } = sizes[size];
        let raw = values(&format!("features.{size}.{turn}"), 2 * sizes[size].values());
        tensor(raw, &[2, channels, height, width])
    };
    let features: Vec<Tensor> = (0..8).map(|i| map(i / 4, i % 4)).collect();
    let expected = expected("differnet.safetensors");
    close("nll", &model.nll(&features).unwrap(), &expected["nll"]);
    let found = model.native_maps(&features, &config.scoring()).unwrap();
    close("scores", &found.scores.unwrap(), &expected["scores"]);
    close("map.0", &found.pixel[0], &expected["map.0"]);
    close("map.1", &found.pixel[1], &expected["map.1"]);
}
