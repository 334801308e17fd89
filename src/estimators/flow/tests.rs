#![allow(clippy::unwrap_used)]

mod averages;
mod gradients;
mod start;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use super::{
    ChannelCovariance, ChannelStatistics, Coupling, FastFlow, FeatureNorm, FlowConfig, Kernels,
};
use crate::kernels::FeatureShape;
use crate::kernels::conv::conv2d;
use crate::kernels::coupling::{self, Permutation};
use crate::kernels::norm::{layer_norm, layer_norm_affine, standardise};

const NORMS: [FeatureNorm; 5] = [
    FeatureNorm::None,
    FeatureNorm::Standardise,
    FeatureNorm::Whiten,
    FeatureNorm::LayerNorm,
    FeatureNorm::LayerNormAffine,
];

fn shape(channels: usize, height: usize, width: usize) -> FeatureShape {
    FeatureShape {
        channels,
        height,
        width,
    }
}

fn config(steps: usize, hidden: &[usize], norm: FeatureNorm) -> FlowConfig {
    FlowConfig {
        steps,
        kernels: Kernels::Alternating,
        hidden: hidden.to_vec(),
        clamp: 2.0,
        norm,
        coupling: Coupling::Affine,
        neighbourhood: 1,
    }
}

fn additive(steps: usize, hidden: &[usize]) -> FlowConfig {
    FlowConfig {
        coupling: Coupling::Additive,
        ..config(steps, hidden, FeatureNorm::LayerNormAffine)
    }
}

/// Pseudo-random numbers from a formula.
fn values(len: usize, phase: f64) -> Vec<f32> {
    (0..len)
        .map(|i| ((i as f64 * 12.9898 + phase).sin() * 1.7) as f32)
        .collect()
}

fn features(shapes: &[FeatureShape], batch: usize) -> Vec<Tensor> {
    let map = |(i, s): (usize, &FeatureShape)| {
        let len = batch * s.channels * s.height * s.width;
        let dims = (batch, s.channels, s.height, s.width);
        Tensor::from_vec(values(len, i as f64), dims, &Device::Cpu).unwrap()
    };
    shapes.iter().enumerate().map(map).collect()
}

/// A flow whose parameters have all moved away from their start.
fn moved(config: &FlowConfig, shapes: &[FeatureShape]) -> FastFlow {
    let mut flow = FastFlow::init(config, shapes, 7, &Device::Cpu).unwrap();
    for (i, (name, var)) in flow.parameters().iter().enumerate() {
        // Half of what convolutions start with: then the flow stays as well conditioned as a trained one.
        let largest = flat(var).into_iter().map(f32::abs).fold(0.0, f32::max);
        let size = if name.contains("conv") {
            0.5 * f64::from(largest)
        } else {
            0.3
        };
        let noise = Tensor::from_vec(
            values(var.elem_count(), i as f64),
            var.shape(),
            &Device::Cpu,
        )
        .unwrap();
        var.set(&(var.as_tensor() + (noise * size).unwrap()).unwrap())
            .unwrap();
    }
    if config.norm == FeatureNorm::Standardise {
        let statistics = |s: &FeatureShape| ChannelStatistics {
            mean: values(s.channels, 0.3),
            std: values(s.channels, 0.6)
                .iter()
                .map(|v| v.abs() + 0.5)
                .collect(),
        };
        flow.set_statistics(shapes.iter().map(statistics).collect())
            .unwrap();
    }
    if config.norm == FeatureNorm::Whiten {
        let all: Vec<ChannelCovariance> = shapes.iter().map(|s| covariance(s.channels)).collect();
        flow.set_covariances(&all).unwrap();
    }
    flow
}

/// `A A^T` of some matrix, plus a diagonal.
fn covariance(channels: usize) -> ChannelCovariance {
    let a = values(channels * channels, 0.9);
    let element = |row: usize, column: usize| {
        let products = (0..channels)
            .map(|i| f64::from(a[row * channels + i]) * f64::from(a[column * channels + i]));
        products.sum::<f64>() / channels as f64 + if row == column { 0.5 } else { 0.0 }
    };
    let all = (0..channels * channels).map(|i| element(i / channels, i % channels));
    ChannelCovariance {
        mean: values(channels, 0.3),
        covariance: all.collect(),
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let pairs = flat(a).into_iter().zip(flat(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn norm_of(tensor: &Tensor) -> f32 {
    flat(tensor).iter().map(|v| v * v).sum::<f32>().sqrt()
}

/// One scale composed of differentiable kernels, through which candle's autograd runs.
fn composed(flow: &FastFlow, scale: usize, x: &Tensor) -> (Tensor, Tensor) {
    let config = flow.config();
    let vars: BTreeMap<String, Var> = flow.parameters().into_iter().collect();
    let stored = flow.tensors().unwrap();
    let get = |name: &str| {
        let name = format!("scales.{scale}.{name}");
        vars.get(&name)
            .map_or_else(|| stored[&name].clone(), |var| var.as_tensor().clone())
    };
    let mut x = match config.norm {
        FeatureNorm::None => x.clone(),
        FeatureNorm::Standardise => standardise(x, &get("norm.mean"), &get("norm.std")).unwrap(),
        FeatureNorm::Whiten => {
            let channels = x.dim(1).unwrap();
            let matrix = get("norm.matrix").reshape((channels, channels, 1, 1));
            let mean = get("norm.mean").reshape((1, channels, 1, 1)).unwrap();
            let centred = x.broadcast_sub(&mean).unwrap();
            conv2d(&centred, &matrix.unwrap(), None, 1, 0).unwrap()
        }
        FeatureNorm::LayerNorm => layer_norm(x, 1e-5).unwrap(),
        FeatureNorm::LayerNormAffine => {
            layer_norm_affine(x, &get("norm.weight"), &get("norm.bias"), 1e-5).unwrap()
        }
    };
    let channels = x.dim(1).unwrap();
    let mut log_det = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap();
    for step in 0..config.steps {
        let padding = config.kernels.size(step) / 2;
        let get = |name: &str| get(&format!("steps.{step}.{name}"));
        let passive = x.narrow(1, 0, channels - channels / 2).unwrap();
        let hidden = conv2d(
            &passive,
            &get("conv1.weight"),
            Some(&get("conv1.bias")),
            1,
            padding,
        )
        .unwrap();
        let hidden = hidden.relu().unwrap();
        let mut a = conv2d(
            &hidden,
            &get("conv2.weight"),
            Some(&get("conv2.bias")),
            1,
            padding,
        )
        .unwrap();
        if config.coupling == Coupling::Additive {
            a = Tensor::cat(&[&a.zeros_like().unwrap(), &a], 1).unwrap();
        }
        let g = get("global_scale");
        // Plain softplus: fine where g is moderate.
        let scale = (((g * 0.5).unwrap().exp().unwrap() + 1.0)
            .unwrap()
            .log()
            .unwrap()
            * 0.2)
            .unwrap();
        let permutation = Permutation::new(get("permutation").to_vec1().unwrap()).unwrap();
        let offset = get("global_offset");
        let affine = coupling::Affine::new(&scale, &offset).unwrap();
        let (y, part) = coupling::forward(&x, &a, &affine, &permutation, config.clamp).unwrap();
        let part = part
            .broadcast_add(&scale.log().unwrap().sum_all().unwrap())
            .unwrap();
        log_det = log_det.broadcast_add(&part).unwrap();
        x = y;
    }
    (x, log_det)
}

fn composed_loss(flow: &FastFlow, features: &[Tensor]) -> Tensor {
    let mut loss = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap();
    for (scale, map) in features.iter().enumerate() {
        let (z, log_det) = composed(flow, scale, map);
        let energy = (z.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap();
        loss = (loss + (energy - log_det.sum_all().unwrap()).unwrap()).unwrap();
    }
    loss
}

#[test]
fn gradients_agree_with_autograd() {
    let shapes = [shape(6, 5, 4), shape(7, 3, 3)];
    let affine = NORMS.map(|norm| config(4, &[5, 4], norm));
    for config in affine.into_iter().chain([additive(4, &[5, 4])]) {
        let (norm, flow) = (config.norm, moved(&config, &shapes));
        let features = features(&shapes, 3);
        let (loss, gradients) = flow.loss_and_gradients(&features).unwrap();
        let reference = composed_loss(&flow, &features);
        let expected = f64::from(reference.to_scalar::<f32>().unwrap());
        assert!(
            (loss - expected).abs() < 1e-5 * expected.abs(),
            "{norm:?}: {loss} {expected}"
        );
        let store = reference.backward().unwrap();
        assert_eq!(gradients.len(), flow.parameters().len());
        for ((name, var), gradient) in flow.parameters().iter().zip(&gradients) {
            let expected = store.get(var).unwrap();
            let scale = norm_of(expected);
            assert!(scale > 1e-3, "{name} is not exercised");
            let error = difference(gradient, expected);
            assert!(
                error < 1e-4 * scale,
                "{norm:?} {name}: {error} beside {scale}"
            );
        }
    }
}

#[test]
fn gradients_hold_no_more_memory_than_they_need() {
    let (steps, shapes) = (2, [shape(6, 12, 10)]);
    let flow = moved(&config(steps, &[5], FeatureNorm::None), &shapes);
    let (_, gradients) = flow.loss_and_gradients(&features(&shapes, 3)).unwrap();
    for gradient in &gradients {
        let candle_core::Storage::Cpu(candle_core::CpuStorage::F32(held)) =
            &*gradient.storage_and_layout().0
        else {
            panic!("a gradient is not f32");
        };
        // Those of one step's affine, and of all steps' scales, lie side by side.
        assert!(held.len() <= 2 * gradient.elem_count(), "{}", held.len());
    }
}

#[test]
fn inverse_undoes_forward_at_full_depth() {
    let shapes = [shape(32, 12, 10), shape(49, 6, 5)];
    for (steps, norm) in [(8, FeatureNorm::None), (20, FeatureNorm::Standardise)] {
        let flow = moved(&config(steps, &[12, 16], norm), &shapes);
        let features = features(&shapes, 2);
        let latents = flow.forward(&features).unwrap();
        let z: Vec<Tensor> = latents.into_iter().map(|latent| latent.z).collect();
        for (back, map) in flow.inverse(&z).unwrap().iter().zip(&features) {
            let error = difference(back, map);
            assert!(error < 1e-4, "{steps} steps: {error}");
        }
        assert!(difference(&z[0], &features[0]) > 0.1);
    }
}

/// ln |det| by Gaussian elimination with row pivots.
fn log_abs_det(mut m: Vec<Vec<f64>>) -> f64 {
    let mut total = 0.0;
    for k in 0..m.len() {
        let pivot = (k..m.len())
            .max_by(|&a, &b| m[a][k].abs().total_cmp(&m[b][k].abs()))
            .unwrap();
        m.swap(k, pivot);
        let row = m[k].clone();
        total += row[k].abs().ln();
        for other in m.iter_mut().skip(k + 1) {
            let factor = other[k] / row[k];
            other
                .iter_mut()
                .zip(&row)
                .for_each(|(value, r)| *value -= factor * r);
        }
    }
    total
}

#[test]
fn log_det_is_the_jacobians() {
    let shapes = [shape(5, 2, 3)];
    let flow = moved(&config(4, &[6], FeatureNorm::None), &shapes);
    let map = features(&shapes, 1).remove(0);
    let x = Var::from_tensor(&map).unwrap();
    let (z, _) = composed(&flow, 0, &x);
    let latent = flow.forward(&[map]).unwrap().remove(0);
    assert!(difference(&z, &latent.z) < 1e-5);
    let z = z.flatten_all().unwrap();
    let row = |i: usize| {
        let store = z.get(i).unwrap().backward().unwrap();
        flat(store.get(&x).unwrap())
            .into_iter()
            .map(f64::from)
            .collect()
    };
    let expected = log_abs_det((0..30).map(row).collect());
    let found: f32 = flat(&latent.log_det).iter().sum();
    assert!(
        (f64::from(found) - expected).abs() < 1e-4 * (1.0 + expected.abs()),
        "{found} {expected}"
    );
    assert!(expected.abs() > 1.0);
}

#[test]
fn nll_is_the_loss_image_by_image() {
    let shapes = [shape(6, 5, 4), shape(7, 3, 3)];
    let flow = moved(&config(2, &[5, 4], FeatureNorm::LayerNorm), &shapes);
    let features = features(&shapes, 3);
    let each = flat(&flow.nll(&features).unwrap());
    let (loss, _) = flow.loss_and_gradients(&features).unwrap();
    let sum: f64 = each.iter().map(|&v| f64::from(v)).sum();
    assert!((loss - sum).abs() < 1e-5 * loss.abs(), "{loss} {sum}");
    for (i, &nll) in each.iter().enumerate() {
        let single: Vec<Tensor> = features
            .iter()
            .map(|map| map.narrow(0, i, 1).unwrap())
            .collect();
        assert_eq!(flow.loss_and_gradients(&single).unwrap().0 as f32, nll);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let shapes = [shape(16, 40, 36)];
    let flow = moved(&config(3, &[8], FeatureNorm::LayerNormAffine), &shapes);
    let features = features(&shapes, 3);
    let run = || {
        let (loss, gradients) = flow.loss_and_gradients(&features).unwrap();
        let gradients: Vec<Vec<f32>> = gradients.iter().map(flat).collect();
        (loss.to_bits(), gradients)
    };
    let outside = run();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .unwrap();
    assert!(outside == pool.install(run));
}

#[test]
fn survives_its_own_tensors() {
    let shapes = [shape(6, 5, 4), shape(7, 3, 3)];
    for norm in NORMS {
        let config = config(11, &[5, 4], norm);
        let flow = moved(&config, &shapes);
        let count: usize = flow
            .parameters()
            .iter()
            .map(|(_, var)| var.elem_count())
            .sum();
        assert_eq!(count, flow.parameter_count());
        let again = FastFlow::from_tensors(&config, &shapes, flow.tensors().unwrap(), &Device::Cpu)
            .unwrap();
        let features = features(&shapes, 2);
        let (a, b) = (
            flow.forward(&features).unwrap(),
            again.forward(&features).unwrap(),
        );
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(
                (flat(&a.z), flat(&a.log_det)),
                (flat(&b.z), flat(&b.log_det))
            );
        }
        let names = |flow: &FastFlow| {
            flow.parameters()
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert!(names(&flow).is_sorted() && names(&flow) == names(&again));
    }
}

#[test]
fn refuses_foreign_tensors_by_name() {
    let shapes = [shape(6, 5, 4)];
    let config = config(2, &[5], FeatureNorm::Standardise);
    let flow = FastFlow::init(&config, &shapes, 1, &Device::Cpu).unwrap();
    let refused = |name: &str, tensor: Option<Tensor>, word: &str| {
        let mut tensors = flow.tensors().unwrap();
        match tensor {
            Some(tensor) => tensors.insert(name.into(), tensor),
            None => tensors.remove(name),
        };
        let error = FastFlow::from_tensors(&config, &shapes, tensors, &Device::Cpu).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(name) && message.contains(word),
            "{message}"
        );
    };
    let cpu = &Device::Cpu;
    refused("scales.0.steps.1.conv2.bias", None, "missing");
    refused(
        "scales.0.steps.2.conv2.bias",
        Some(Tensor::new(1f32, cpu).unwrap()),
        "does not belong",
    );
    refused(
        "scales.0.steps.1.conv1.bias",
        Some(Tensor::new(&[1f32; 4], cpu).unwrap()),
        "[5]",
    );
    refused(
        "scales.0.steps.1.conv1.bias",
        Some(Tensor::new(&[1f64; 5], cpu).unwrap()),
        "f64",
    );
    let bad = [1.0, f32::NAN, 1.0, 1.0, 1.0];
    refused(
        "scales.0.steps.1.conv1.bias",
        Some(Tensor::new(&bad, cpu).unwrap()),
        "finite",
    );
    refused(
        "scales.0.steps.0.permutation",
        Some(Tensor::new(&[0u32, 1, 2, 3, 4, 4], cpu).unwrap()),
        "permutation",
    );
    let zero = Tensor::new(&[1f32, 1.0, 0.0, 1.0, 1.0, 1.0], cpu).unwrap();
    let mut tensors = flow.tensors().unwrap();
    tensors.insert("scales.0.norm.std".into(), zero);
    let error = FastFlow::from_tensors(&config, &shapes, tensors, cpu).unwrap_err();
    assert!(error.to_string().contains("channel 2"), "{error}");
}

#[test]
fn refuses_misfitting_features_and_statistics() {
    let shapes = [shape(6, 5, 4)];
    let mut flow = FastFlow::init(
        &config(1, &[5], FeatureNorm::None),
        &shapes,
        1,
        &Device::Cpu,
    )
    .unwrap();
    assert!(flow.forward(&[]).is_err());
    let error = flow
        .nll(&features(&[shape(6, 4, 5)], 1))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("feature map 0") && error.contains("[B, 6, 5, 4]"),
        "{error}"
    );
    let statistics = ChannelStatistics {
        mean: vec![0.0; 6],
        std: vec![1.0; 6],
    };
    assert!(flow.set_statistics(vec![statistics]).is_err());
}
