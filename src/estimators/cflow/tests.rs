#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::block::{Block, Parameters, block};
use super::config::Sizes;
use super::{CFlow, CFlowConfig, encoding};
use crate::estimators::{
    Estimator, FeatureSource, MapKind, MethodConfig, Scoring, Trainable, source::tests::Fixed,
};
use crate::kernels::FeatureShape;

fn config() -> CFlowConfig {
    CFlowConfig {
        steps: 2,
        condition: 8,
        ..CFlowConfig::default()
    }
}

fn features(images: usize) -> Fixed {
    let shape = |channels, height, width| FeatureShape {
        channels,
        height,
        width,
    };
    let shapes = vec![shape(5, 3, 4), shape(4, 2, 2)];
    let value = |i: usize| ((i as f32 * 12.9898).sin() * 43_758.547).fract();
    let record = |image: usize| {
        let map = |(scale, shape): (usize, &FeatureShape)| {
            let first = 1000 * image + 500 * scale;
            (0..shape.values())
                .map(|i| value(first + i) + 3.0)
                .collect()
        };
        shapes.iter().enumerate().map(map).collect()
    };
    Fixed {
        records: (0..images).map(record).collect(),
        shapes,
    }
}

/// A flow that has seen the features' statistics and whose global parameters are no longer the fresh ones.
fn flow(features: &Fixed) -> CFlow {
    let mut flow = CFlow::init(&config(), &features.shapes, 7, &Device::Cpu).unwrap();
    flow.prepare(features).unwrap();
    for (name, var) in flow.parameters() {
        if name.contains("global") {
            let moved: Vec<f32> = (0..var.elem_count())
                .map(|i| 0.3 * (i as f32 + name.len() as f32).sin())
                .collect();
            let moved = Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap();
            var.set(&(var.as_tensor() + moved).unwrap()).unwrap();
        }
    }
    flow
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn doubled(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F64).unwrap()
}

/// `log|det dy/dx|` by central differences, in f64.
#[test]
fn the_log_determinant_is_that_of_the_numerical_jacobian() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let sizes = Sizes::of(&config(), 5);
    let one = Block::init(&sizes, 1.9, &mut rng, &Device::Cpu).unwrap();
    let weights = one.parameters.tensors(false);
    let weights = Parameters {
        // Far from 1, and a subnet that says something.
        global_scale: (doubled(&weights.global_scale) * 0.4).unwrap(),
        global_offset: doubled(&weights.global_offset),
        linear1_bias: doubled(&weights.linear1_bias),
        linear1_weight: (doubled(&weights.linear1_weight) * 5.0).unwrap(),
        linear2_bias: doubled(&weights.linear2_bias),
        linear2_weight: (doubled(&weights.linear2_weight) * 20.0).unwrap(),
    };
    let rotation = doubled(&one.rotation);
    let condition: Vec<f64> = (0..8).map(|i| f64::from(i).cos()).collect();
    let condition = Tensor::from_vec(condition, (1, 8), &Device::Cpu).unwrap();
    let look = |x: &[f64]| {
        let x = Tensor::from_slice(x, (1, 5), &Device::Cpu).unwrap();
        let (y, log_det) = block(&x, &condition, &weights, &rotation, 1.9).unwrap();
        let y = y.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        (y, log_det.to_vec1::<f64>().unwrap()[0])
    };
    let x = [0.3, -1.2, 0.8, 1.5, -0.4];
    let (_, found) = look(&x);
    let step = 1e-5;
    let jacobian = DMatrix::from_fn(5, 5, |row, column| {
        let at = |sign: f64| {
            let mut moved = x;
            moved[column] += sign * step;
            look(&moved).0[row]
        };
        (at(1.0) - at(-1.0)) / (2.0 * step)
    });
    let expected = jacobian.determinant().abs().ln();
    assert!(expected.abs() > 0.5, "{expected} says little");
    assert!((found - expected).abs() < 1e-6, "{found} {expected}");
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let features = features(3);
    let flow = flow(&features);
    let batch = features.batch(&[0, 1, 2], &Device::Cpu).unwrap();
    let (loss, gradients) = flow.loss_and_gradients(&batch).unwrap();
    let each = flow.nll(&batch).unwrap().to_vec1::<f32>().unwrap();
    let loss = loss.to_scalar::<f64>().unwrap();
    let sum: f64 = each.iter().map(|&nll| f64::from(nll)).sum();
    assert!((loss / sum - 1.0).abs() < 1e-5, "{loss} {sum}");
    let parameters = flow.parameters();
    assert!(parameters.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(parameters.len(), gradients.len());
    let step = 4e-3;
    for ((name, var), gradient) in parameters.iter().zip(&gradients) {
        let (values, gradient) = (flat(var), flat(gradient));
        let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        assert!(norm > 0.0, "{name}");
        // Along the gradient itself the slope is its norm.
        let at = |sign: f32| {
            let moved = values.iter().zip(&gradient);
            let moved: Vec<f32> = moved.map(|(v, g)| v + sign * step * g / norm).collect();
            let moved = Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap();
            var.set(&moved).unwrap();
            let loss = flow.loss_and_gradients(&batch).unwrap().0;
            loss.to_scalar::<f64>().unwrap()
        };
        let slope = (at(1.0) - at(-1.0)) / f64::from(2.0 * step);
        at(0.0);
        let norm = f64::from(norm);
        assert!(
            (slope - norm).abs() < 0.02 * norm + 5e-3,
            "{name}: {slope} {norm}"
        );
    }
}

#[test]
fn a_seed_gives_the_same_flow_and_its_tensors_give_it_back() {
    let features = features(4);
    let flow = flow(&features);
    let batch = features.batch(&[1, 3], &Device::Cpu).unwrap();
    let tensors = flow.tensors().unwrap();
    let again = self::flow(&features).tensors().unwrap();
    assert!(
        tensors
            .iter()
            .all(|(name, t)| flat(t) == flat(&again[name]))
    );
    let loaded = config()
        .load(&features.shapes, tensors.clone(), &Device::Cpu)
        .unwrap();
    let scoring = config().scoring();
    let maps = |of: &dyn Estimator| {
        let maps = of.native_maps(&batch, &scoring).unwrap();
        maps.image.iter().map(flat).collect::<Vec<_>>()
    };
    assert_eq!(maps(&flow), maps(loaded.as_ref()));
    let refused = |name: &str, tensor: Option<Tensor>, word: &str| {
        let mut tensors = tensors.clone();
        match tensor {
            Some(tensor) => tensors.insert(name.into(), tensor),
            None => tensors.remove(name),
        };
        let loaded = config().load(&features.shapes, tensors, &Device::Cpu);
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(word), "{error}");
    };
    let full = |value: f32, dims: &[usize]| Tensor::full(value, dims, &Device::Cpu).unwrap();
    refused(
        "scales.1.blocks.0.rotation",
        Some(full(0.5, &[4, 4])),
        "orthogonal",
    );
    refused("scales.0.std", Some(full(0.0, &[5])), "positive");
    refused("scales.0.mean", Some(full(f32::NAN, &[5])), "not finite");
    refused("scales.0.blocks.1.linear1.bias", None, "missing");
}

/// By hand from the latents: `(0.5 sum z^2 - log|det J|) / C`, and what a detector shows of it.
#[test]
fn maps_are_negative_log_likelihoods_a_channel() {
    let features = features(4);
    let flow = flow(&features);
    let batch = features.batch(&[0, 2], &Device::Cpu).unwrap();
    let scoring = Scoring {
        pixel_map: MapKind::Exp,
        ..config().scoring()
    };
    let maps = flow.native_maps(&batch, &scoring).unwrap();
    assert_eq!(maps.image[0].dims(), [2, 3, 4]);
    let (z, log_det) = flow.forward(&batch).unwrap().swap_remove(0);
    let (z, log_det) = (z.to_vec2::<f32>().unwrap(), flat(&log_det));
    let (nll, exp) = (flat(&maps.image[0]), flat(&maps.pixel[0]));
    for (at, z) in z.iter().enumerate() {
        let energy: f32 = z.iter().map(|v| 0.5 * v * v).sum();
        let expected = (energy - log_det[at]) / 5.0;
        assert!((nll[at] - expected).abs() < 1e-5, "{} {expected}", nll[at]);
        assert!((exp[at] + (-expected).exp()).abs() < 1e-5);
    }
    let prob = Scoring {
        image_map: MapKind::Prob,
        ..scoring
    };
    assert!(flow.native_maps(&batch, &prob).is_err());
}

/// A channel that never varies in training is not divided by nothing.
#[test]
fn a_constant_channel_is_left_as_it_is() {
    let mut features = features(3);
    for record in &mut features.records {
        record[0][..12].fill(0.0);
    }
    let mut flow = CFlow::init(&config(), &features.shapes, 1, &Device::Cpu).unwrap();
    flow.prepare(&features).unwrap();
    let std = flat(&flow.tensors().unwrap()["scales.0.std"]);
    assert!(std[0] == 1.0 && std[1] != 1.0, "{std:?}");
    let batch = features.batch(&[0], &Device::Cpu).unwrap();
    assert!(flat(&flow.nll(&batch).unwrap())[0].is_finite());
}

/// The first and the second column of a map, and its second row, at frequencies 1 and 1e-2.
#[test]
fn encodings_are_waves_of_column_and_row() {
    let found = encoding(8, 2, 2);
    let (s, c) = (1f32.sin(), 1f32.cos());
    let (slow_s, slow_c) = (0.01f32.sin(), 0.01f32.cos());
    let zero = [0.0, 1.0, 0.0, 1.0];
    let one = [s, c, slow_s, slow_c];
    assert_eq!(found[..4], zero);
    assert_eq!(found[4..8], zero);
    for (found, expected) in found[8..12].iter().zip(&one) {
        assert!((found - expected).abs() < 1e-6);
    }
    assert_eq!(found[16..20], zero);
    for (found, expected) in found[20..24].iter().zip(&one) {
        assert!((found - expected).abs() < 1e-6);
    }
}

#[test]
fn absurd_settings_are_refused() {
    let shapes = features(1).shapes;
    let refused = |config: CFlowConfig, word: &str| {
        let error = config.validate(&shapes).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    config().validate(&shapes).unwrap();
    let steps = |steps| CFlowConfig { steps, ..config() };
    refused(steps(0), "steps");
    refused(steps(usize::MAX), "steps");
    let condition = |condition| CFlowConfig {
        condition,
        ..config()
    };
    refused(condition(6), "multiple of 4");
    let clamp = CFlowConfig {
        clamp: f32::NAN,
        ..config()
    };
    refused(clamp, "clamp");
}
