//! Latents, log-determinants, loss, gradients and maps against FrEIA 0.2 (tests/fixtures/flow/make.py).
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use candle_fastflow::estimators::flow::{
    Coupling, FastFlow, FeatureNorm, FlowConfig, Kernels, anomaly_map,
};
use candle_fastflow::estimators::{MapKind, Share};
use candle_fastflow::kernels::FeatureShape;

#[path = "support/weyl.rs"]
mod weyl;
use weyl::{close, tensor, values};

const BATCH: usize = 2;
const MAP_SIZE: (usize, usize) = (19, 14);

/// The case's flow, filled as make.py's `fill` does.
fn flow(config: &FlowConfig, shapes: &[FeatureShape]) -> FastFlow {
    let template = FastFlow::init(config, shapes, 0, &Device::Cpu).unwrap();
    let filled = |(name, like): (String, Tensor)| {
        let raw = values(&name, like.elem_count());
        if name.ends_with("permutation") {
            let mut indices: Vec<u32> = (0..raw.len() as u32).collect();
            indices.sort_by(|&a, &b| raw[a as usize].total_cmp(&raw[b as usize]));
            let dims = indices.len();
            return (name, Tensor::from_vec(indices, dims, &Device::Cpu).unwrap());
        }
        let fan_in: usize = like.dims().iter().skip(1).product();
        let value = |v: f64| match name.as_str() {
            name if name.ends_with("conv1.weight") || name.ends_with("conv2.weight") => {
                v * 2.0 / (fan_in as f64).sqrt()
            }
            name if name.ends_with("global_scale") => 2.0 * (5f64.exp() - 1.0).ln() + 0.5 * v,
            name if name.ends_with("norm.weight") => 1.0 + 0.3 * v,
            _ => 0.3 * v,
        };
        let tensor = tensor(raw.into_iter().map(value).collect(), like.dims());
        (name, tensor)
    };
    let tensors: BTreeMap<_, _> = template
        .tensors()
        .unwrap()
        .into_iter()
        .map(filled)
        .collect();
    FastFlow::from_tensors(config, shapes, tensors, &Device::Cpu).unwrap()
}

fn check(case: &str, config: FlowConfig, shapes: &[(usize, usize, usize)]) {
    let path = format!(
        "{}/tests/fixtures/flow/{case}.safetensors",
        env!("CARGO_MANIFEST_DIR")
    );
    let reference: HashMap<String, Tensor> =
        candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let shape = |&(channels, height, width): &(usize, usize, usize)| FeatureShape {
        channels,
        height,
        width,
    };
    let shapes: Vec<FeatureShape> = shapes.iter().map(shape).collect();
    let flow = flow(&config, &shapes);
    let map = |(i, s): (usize, &FeatureShape)| {
        let dims = [BATCH, s.channels, s.height, s.width];
        let raw = values(&format!("features.{i}"), dims.iter().product());
        tensor(raw.into_iter().map(|v| 2.0 * v).collect(), &dims)
    };
    let features: Vec<Tensor> = shapes.iter().enumerate().map(map).collect();

    let latents = flow.forward(&features).unwrap();
    for (i, latent) in latents.iter().enumerate() {
        close("z", &latent.z, &reference[&format!("z.{i}")]);
        let log_det = latent.log_det.flatten_from(1).unwrap().sum(1).unwrap();
        close("log_det", &log_det, &reference[&format!("log_det.{i}")]);
    }
    for (kind, name) in [
        (MapKind::Nll, "nll"),
        (MapKind::Exp, "exp"),
        (MapKind::Prob, "prob"),
    ] {
        let map = anomaly_map(&latents, kind, &Share::mean(latents.len()), MAP_SIZE).unwrap();
        close(name, &map, &reference[&format!("map.{name}")]);
    }
    let (loss, gradients) = flow.loss_and_gradients(&features).unwrap();
    close("loss", &tensor(vec![loss], &[1]), &reference["loss"]);
    let parameters = flow.parameters();
    assert_eq!(
        reference
            .keys()
            .filter(|name| name.starts_with("gradient"))
            .count(),
        parameters.len()
    );
    for ((name, _), gradient) in parameters.iter().zip(&gradients) {
        close(name, gradient, &reference[&format!("gradient.{name}")]);
    }
}

fn config(steps: usize, kernels: Kernels, hidden: &[usize], norm: FeatureNorm) -> FlowConfig {
    FlowConfig {
        steps,
        kernels,
        hidden: hidden.to_vec(),
        clamp: 2.0,
        norm,
        coupling: Coupling::Affine,
        neighbourhood: 1,
    }
}

#[test]
fn eight_steps_of_3x3_without_norm() {
    let config = config(8, Kernels::Three, &[4], FeatureNorm::None);
    check("three", config, &[(8, 6, 5)]);
}

#[test]
fn the_ports_trainable_norm_two_scales_odd_channels() {
    let config = config(
        3,
        Kernels::Alternating,
        &[5, 4],
        FeatureNorm::LayerNormAffine,
    );
    check("ports", config, &[(6, 8, 6), (9, 4, 3)]);
}

#[test]
fn twenty_alternating_steps_with_layer_norm() {
    let config = config(20, Kernels::Alternating, &[3], FeatureNorm::LayerNorm);
    check("deep", config, &[(10, 3, 4)]);
}
