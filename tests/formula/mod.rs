//! Weights and inputs from a formula: the same bits as tests/fixtures/backbones/formula.py.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};

/// `count` numbers in [0, 1), 24 bits each: FNV-1a of the name, then splitmix64 of the index.
pub fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let number = |index: usize| {
        let mut x = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (x >> 40) as f64 / (1u64 << 24) as f64
    };
    (0..count).map(number).collect()
}

/// A network's tensor, by its name.
pub fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let u = uniform(name, shape.iter().product());
    let is_matrix = shape.len() >= 2 && !name.contains("embed") && !name.contains("token");
    let scales = ["weight", "running_var", "gamma_1", "gamma_2", "gamma"];
    let value = |u: f64| {
        if is_matrix {
            let fan_in: usize = shape[1..].iter().product();
            (2.0 * u - 1.0) * (6.0 / fan_in as f64).sqrt()
        } else if scales.iter().any(|end| name.ends_with(end)) {
            0.5 + u
        } else {
            0.4 * u - 0.2
        }
    };
    u.into_iter().map(|u| value(u) as f32).collect()
}

/// Saves formula weights for `{name: shape}` (a JSON file beside the fixtures) as safetensors.
pub fn save_weights(shapes: &str, path: &Path) {
    let shapes: HashMap<String, Vec<usize>> = serde_json::from_str(shapes).unwrap();
    let tensors: HashMap<_, _> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = weight(&name, &shape);
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
            (name, tensor)
        })
        .collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

/// The values that a fixture keeps of an array: about a thousand.
pub fn sample(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let step = (flat.len() / 1000) | 1;
    flat.into_iter().step_by(step).collect()
}
