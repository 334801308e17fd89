//! CFLOW-AD, PatchCore and PaDiM against anomalib 2.7 (tests/fixtures/anomalib/make.py). Where a definition differs on purpose
//! (how maps are enlarged, what lies beyond a border), the part that both have is compared; the script says which.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use candle_fastflow::estimators::{
    Estimator, FeatureSource, FitWith, Fitting, MapKind, MethodConfig, Scoring, Trainable,
    cflow::{CFlow, CFlowConfig, encoding},
    gaussian::PaDiMConfig,
    memory::PatchCoreConfig,
};
use candle_fastflow::kernels::{FeatureShape, coreset::greedy_k_centre, map::gaussian_blur};

#[path = "support/weyl.rs"]
mod weyl;
use weyl::{close, tensor, values};

const BATCH: usize = 2;

fn reference(name: &str) -> HashMap<String, Tensor> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/anomalib");
    candle_core::safetensors::load(format!("{folder}/{name}.safetensors"), &Device::Cpu).unwrap()
}

fn shape((channels, height, width): (usize, usize, usize)) -> FeatureShape {
    FeatureShape {
        channels,
        height,
        width,
    }
}

/// make.py's maps of these names, `[images, C, h, w]` each.
fn maps(names: &[String], shapes: &[FeatureShape], images: usize, factor: f64) -> Vec<Tensor> {
    let map = |(name, shape): (&String, &FeatureShape)| {
        let dims = [images, shape.channels, shape.height, shape.width];
        let raw = values(name, dims.iter().product()).into_iter();
        tensor(raw.map(|v| factor * v).collect(), &dims)
    };
    names.iter().zip(shapes).map(map).collect()
}

/// Features of many images to fit to.
struct Training {
    shapes: Vec<FeatureShape>,
    images: usize,
    maps: Vec<Vec<f32>>,
}

impl Training {
    fn new(names: &[String], shapes: &[FeatureShape], images: usize) -> Self {
        let maps = maps(names, shapes, images, 1.0);
        let flat = |map: &Tensor| map.flatten_all().unwrap().to_vec1().unwrap();
        Self {
            shapes: shapes.to_vec(),
            images,
            maps: maps.iter().map(flat).collect(),
        }
    }

    fn fit(&self, config: &dyn MethodConfig, seed: u64) -> Box<dyn Estimator> {
        let Fitting::Closed(method) = config.fitting() else {
            panic!("not fitted in closed form");
        };
        let mut with = FitWith {
            seed,
            device: &Device::Cpu,
            parent: None,
            progress: &mut |_, _| true,
        };
        method.fit(self, &mut with).unwrap()
    }
}

impl FeatureSource for Training {
    fn len(&self) -> usize {
        self.images
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn map(&self, record: usize, scale: usize) -> &[f32] {
        let values = self.shapes[scale].values();
        &self.maps[scale][record * values..][..values]
    }
}

fn names(prefix: &str) -> [String; 2] {
    ["one", "two"].map(|name| format!("{prefix}.{name}"))
}

/// The flow filled as make.py's `fill` does.
fn cflow(reference: &HashMap<String, Tensor>, shapes: &[FeatureShape]) -> CFlow {
    let config = CFlowConfig::default();
    let template = CFlow::init(&config, shapes, 0, &Device::Cpu).unwrap();
    let filled = |(name, like): (String, Tensor)| {
        if let Some(stored) = reference.get(&name) {
            return (name, stored.clone());
        }
        if name.ends_with("mean") || name.ends_with("std") {
            return (name, like);
        }
        let fan_in: usize = like.dims().iter().skip(1).product();
        let value = |v: f64| match name.rsplit('.').next().unwrap() {
            "weight" => v * 2.0 / (fan_in as f64).sqrt(),
            "global_scale" => 2.0 * (5f64.exp() - 1.0).ln() + 0.5 * v,
            _ => 0.3 * v,
        };
        let raw = values(&name, like.elem_count()).into_iter();
        let tensor = tensor(raw.map(value).collect(), like.dims());
        (name, tensor)
    };
    let tensors = template.tensors().unwrap().into_iter().map(filled);
    CFlow::from_tensors(&config, shapes, tensors.collect(), &Device::Cpu).unwrap()
}

#[test]
fn cflow_is_anomalibs_and_freias() {
    let reference = reference("cflow");
    let shapes = [(6, 4, 5), (9, 3, 3)].map(shape);
    let flow = cflow(&reference, &shapes);
    let features = maps(
        &["features.0".into(), "features.1".into()],
        &shapes,
        BATCH,
        2.0,
    );
    for (scale, (z, log_det)) in flow.forward(&features).unwrap().iter().enumerate() {
        close("z", z, &reference[&format!("z.{scale}")]);
        close("log_det", log_det, &reference[&format!("log_det.{scale}")]);
        let at = &shapes[scale];
        let encoding = encoding(128, at.height, at.width);
        let encoding = Tensor::new(encoding, &Device::Cpu).unwrap();
        close(
            "encoding",
            &encoding,
            &reference[&format!("encoding.{scale}")],
        );
    }
    let scoring = Scoring {
        image_map: MapKind::Nll,
        pixel_map: MapKind::Exp,
        ..CFlowConfig::default().scoring()
    };
    let maps = flow.native_maps(&features, &scoring).unwrap();
    // The likelihood's constant is left out here.
    let constant = 0.5 * (2.0 * std::f64::consts::PI).ln();
    for (scale, (nll, exp)) in maps.image.iter().zip(&maps.pixel).enumerate() {
        close(
            "nll",
            &(nll + constant).unwrap(),
            &reference[&format!("nll.{scale}")],
        );
        // anomalib divides by the largest likelihood of what it is shown, and subtracts from the largest.
        let largest = exp.flatten_all().unwrap().min(0).unwrap();
        let relative = exp.broadcast_div(&largest).unwrap();
        let found = (1.0 - relative).unwrap();
        close("map", &found, &reference[&format!("map.{scale}")]);
    }
    let (_, gradients) = flow.loss_and_gradients(&features).unwrap();
    for ((name, _), gradient) in flow.parameters().iter().zip(gradients) {
        let found = match gradient.rank() {
            2 => gradient.sum(1).unwrap(),
            _ => gradient,
        };
        close(name, &found, &reference[&format!("gradient.{name}")]);
    }
}

/// Features, averaged over 3 x 3 and joined; a greedy choice of them from the same start; distances and image scores.
#[test]
fn patchcore_is_anomalibs() {
    let reference = reference("patchcore");
    let shapes = [(6, 6, 8), (4, 3, 4)].map(shape);
    let config = PatchCoreConfig::default();
    // All features are remembered where the memory is large enough, in their order.
    let whole = Training::new(&names("train"), &shapes, 3).fit(&config, 0);
    let rows = whole.tensors().unwrap()["banks.0.memory"].clone();
    close("embedding", &rows, &reference["embedding"]);
    let chosen = reference["coreset"].to_vec1::<u32>().unwrap();
    let found = greedy_k_centre(&rows, chosen.len(), chosen[0] as usize).unwrap();
    assert_eq!(found, chosen);

    let bank = rows.index_select(&reference["coreset"], 0).unwrap();
    let tensors = BTreeMap::from([("banks.0.memory".to_string(), bank)]);
    let patchcore = config.load(&shapes, tensors, &Device::Cpu).unwrap();
    let seen = maps(&names("test"), &shapes, BATCH, 1.0);
    let maps = patchcore.native_maps(&seen, &config.scoring()).unwrap();
    close("distances", &maps.pixel[0], &reference["distances"]);
    close("scores", &maps.scores.unwrap(), &reference["scores"]);
}

/// The smoothing of PatchCore's and PaDiM's maps, sigma 4, where no border is near.
#[test]
fn smoothing_is_anomalibs() {
    let reach = 16;
    let pixels = tensor(values("pixels", 44 * 48), &[1, 44, 48]);
    let inner = |map: &Tensor| {
        let rows = map.narrow(0, reach, 44 - 2 * reach).unwrap();
        rows.narrow(1, reach, 48 - 2 * reach).unwrap()
    };
    let found = gaussian_blur(&pixels, 4.0).unwrap().squeeze(0).unwrap();
    let reference = reference("patchcore");
    close("smoothed", &inner(&found), &inner(&reference["smoothed"]));
}

/// Means, inverse covariances and distances on the channels that a seed draws.
#[test]
fn padim_is_anomalibs() {
    let reference = reference("padim");
    let shapes = [(6, 3, 4), (4, 3, 4)].map(shape);
    let config = PaDiMConfig {
        // anomalib adds 1e-5 to the paper's 0.01.
        regularisation: 0.01001,
        ..PaDiMConfig::new(4)
    };
    let padim = Training::new(&names("padim"), &shapes, 12).fit(&config, 1);
    let tensors = padim.tensors().unwrap();
    let channels = |tensor: &Tensor| tensor.to_vec1::<u32>().unwrap();
    assert_eq!(
        channels(&tensors["channels"]),
        channels(&reference["channels"]),
        "make.py's CHANNELS are those that the seed draws"
    );
    close("means", &tensors["means"], &reference["mean"]);
    close(
        "inverse",
        &inverses(&tensors["factors"], 4),
        &reference["inverse"],
    );
    let seen = maps(&names("seen"), &shapes, BATCH, 2.0);
    let maps = padim.native_maps(&seen, &config.scoring()).unwrap();
    close("distances", &maps.pixel[0], &reference["distances"]);
}

/// `L^-T L^-1` of every position from the packed rows of `L^-1`: `[P, D, D]`.
fn inverses(factors: &Tensor, size: usize) -> Tensor {
    let positions = factors.to_vec2::<f32>().unwrap();
    let mut all = Vec::new();
    for packed in &positions {
        let at = |row: usize, column: usize| match column <= row {
            true => f64::from(packed[row * (row + 1) / 2 + column]),
            false => 0.0,
        };
        for i in 0..size {
            for j in 0..size {
                all.push((0..size).map(|row| at(row, i) * at(row, j)).sum());
            }
        }
    }
    tensor(all, &[positions.len(), size, size])
}
