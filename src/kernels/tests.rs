//! Every kernel but the convolutions (which have their own loops) against its formula in candle's f64, values and
//! gradients, on shapes that hit the edges.
#![allow(clippy::unwrap_used)]

mod formulas;

use candle_core::{D, DType, Device, Tensor, Var};

use super::attention::{HeadMixing, attention};
use super::coupling::{self, Affine, LogDetGradient, Permutation};
use super::linear::{PreparedLinear, Then};
use super::{map, norm};

/// The bound of the largest error relative to the largest reference value.
const TOLERANCE: f64 = 2e-5;
const EPS: f32 = 1e-5;

/// Batch 1 and 7, one channel, odd and non-square sides, more positions than a kernel takes at once.
const SHAPES: [[usize; 4]; 6] = [
    [1, 1, 5, 7],
    [7, 3, 9, 6],
    [1, 8, 1, 3],
    [7, 2, 33, 31],
    [2, 17, 4, 13],
    [1, 64, 19, 16],
];

/// A reproducible f32 tensor, even in [-size, size).
fn noise(dims: &[usize], seed: u64, size: f32) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let draw = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
    };
    let values: Vec<f32> = (0..dims.iter().product()).map(draw).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F64).unwrap()
}

fn close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let largest = |t: Tensor| {
        let flat = t.abs().unwrap().flatten_all().unwrap();
        flat.max(0).unwrap().to_scalar::<f64>().unwrap()
    };
    let size = largest(expected.clone());
    let error = largest((double(found) - expected).unwrap());
    assert!(size > 0.0, "{what}: the reference is all zero");
    assert!(error <= TOLERANCE * size, "{what}: {:e}", error / size);
}

/// Compares `ours` of f32 inputs with `formula` of the same in f64, and the gradients of a weighted sum.
fn compare(
    what: &str,
    inputs: &[Tensor],
    ours: impl Fn(&[Var]) -> Tensor,
    formula: impl Fn(&[Var]) -> Tensor,
) {
    let vars = |tensors: Vec<Tensor>| -> Vec<Var> {
        let var = |t: &Tensor| Var::from_tensor(t).unwrap();
        tensors.iter().map(var).collect()
    };
    let singles = vars(inputs.to_vec());
    let doubles = vars(inputs.iter().map(double).collect());
    let (found, expected) = (ours(&singles), formula(&doubles));
    close(what, &found, &expected);
    // Not centred, or sums over many positions would cancel and leave nothing to compare with.
    let weights = (noise(found.dims(), 99, 1.0) + 0.5).unwrap();
    let gradients = (found * &weights).unwrap().sum_all().unwrap().backward();
    let reference = (expected * double(&weights)).unwrap().sum_all().unwrap();
    let (gradients, reference) = (gradients.unwrap(), reference.backward().unwrap());
    for (index, (single, of_double)) in singles.iter().zip(&doubles).enumerate() {
        let what = format!("{what}, gradient {index}");
        let Some(expected) = reference.get(of_double) else {
            continue;
        };
        close(&what, gradients.get(single).expect(&what), expected);
    }
}

#[test]
fn norms_match_f64() {
    for dims in SHAPES {
        let x = (noise(&dims, 1, 3.0) + 1.0).unwrap();
        compare(
            &format!("layer norm {dims:?}"),
            std::slice::from_ref(&x),
            |v| norm::layer_norm(&v[0], EPS).unwrap(),
            |v| formulas::layer_norm(&v[0], f64::from(EPS)),
        );
        let affine = [
            x.clone(),
            noise(&dims[1..], 2, 1.0),
            noise(&dims[1..], 3, 1.0),
        ];
        compare(
            &format!("affine layer norm {dims:?}"),
            &affine,
            |v| norm::layer_norm_affine(&v[0], &v[1], &v[2], EPS).unwrap(),
            |v| formulas::layer_norm_affine(&v[0], &v[1], &v[2], f64::from(EPS)),
        );
        let (mean, std) = (noise(&dims[1..2], 4, 1.0), noise(&dims[1..2], 5, 0.5));
        let std = (std + 1.0).unwrap();
        compare(
            &format!("standardise {dims:?}"),
            &[x],
            |v| norm::standardise(&v[0], &mean, &std).unwrap(),
            |v| formulas::standardise(&v[0], &double(&mean), &double(&std)),
        );
    }
}

#[test]
fn maps_match_f64() {
    for dims in SHAPES {
        let z = [noise(&dims, 6, 3.0)];
        compare(
            &format!("nll {dims:?}"),
            &z,
            |v| map::negative_log_likelihood(&v[0]).unwrap(),
            |v| formulas::negative_log_likelihood(&v[0]),
        );
        compare(
            &format!("exp {dims:?}"),
            &z,
            |v| map::exponential(&map::negative_log_likelihood(&v[0]).unwrap()).unwrap(),
            |v| formulas::exponential(&v[0]),
        );
        compare(
            &format!("prob {dims:?}"),
            &z,
            |v| map::probability(&v[0]).unwrap(),
            |v| formulas::probability(&v[0]),
        );
        let small = [noise(&[dims[0], dims[2], dims[3]], 7, 1.0)];
        for (height, width) in [(dims[2] * 4, dims[3] * 4), (11, 5)] {
            compare(
                &format!("upsample {dims:?} to {height}x{width}"),
                &small,
                |v| map::upsample_bilinear(&v[0], height, width).unwrap(),
                |v| formulas::upsample(&v[0], height, width),
            );
        }
    }
}

const CLAMP: f32 = 1.9;

#[test]
fn couplings_match_f64() {
    for dims in SHAPES.into_iter().filter(|dims| dims[1] > 1) {
        let [batch, channels, height, width] = dims;
        let active = channels / 2;
        let inputs = [
            noise(&dims, 8, 2.0),
            noise(&[batch, 2 * active, height, width], 9, 15.0),
            (noise(&[channels], 10, 0.4) + 1.0).unwrap(),
            noise(&[channels], 11, 0.5),
        ];
        let indices: Vec<u32> = (0..channels as u32).rev().collect();
        let permutation = Permutation::new(indices.clone()).unwrap();
        let formula = |v: &[Var]| {
            let inputs = [0, 1, 2, 3].map(|i| v[i].as_tensor());
            formulas::coupling(inputs, &indices, CLAMP)
        };
        let fused = |v: &[Var]| {
            let affine = Affine::new(&v[2], &v[3]).unwrap();
            coupling::forward(&v[0], &v[1], &affine, &permutation, CLAMP).unwrap()
        };
        // Both outputs as one, so that the gradients of both are compared.
        let joined = |(y, log_det): (Tensor, Tensor)| {
            Tensor::cat(&[y, log_det.unsqueeze(1).unwrap()], 1).unwrap()
        };
        compare(
            &format!("coupling {dims:?}"),
            &inputs,
            |v| joined(fused(v)),
            |v| joined(formula(v)),
        );
        let [x, a, scale, offset] = &inputs;
        let affine = Affine::new(scale, offset).unwrap();
        let (y, _) = coupling::forward(x, a, &affine, &permutation, CLAMP).unwrap();
        let u = coupling::undo_affine(&y, &affine, &permutation).unwrap();
        let back = coupling::uncouple(&u, a, CLAMP).unwrap();
        close(&format!("inverse {dims:?}"), &back, &double(x));
        let dy = noise(&dims, 12, 1.0);
        let constant = LogDetGradient::Constant(-1.0);
        let direct = coupling::backward(x, a, &affine, &permutation, CLAMP, &dy, constant);
        let direct = direct.unwrap();
        let doubles: Vec<Var> = inputs
            .iter()
            .map(|t| Var::from_tensor(&double(t)).unwrap())
            .collect();
        let (y, log_det) = formula(&doubles);
        let loss = (y * double(&dy)).unwrap().sum_all().unwrap();
        let loss = (loss - log_det.sum_all().unwrap()).unwrap();
        let reference = loss.backward().unwrap();
        let found = [&direct.x, &direct.a, &direct.scale, &direct.offset];
        for (index, found) in found.into_iter().enumerate() {
            let expected = reference.get(&doubles[index]).unwrap();
            close(
                &format!("backward {dims:?}, input {index}"),
                found,
                expected,
            );
        }
    }
}

#[test]
fn transformers_layers_match_f64() {
    for (batch, tokens, inputs, outputs) in [
        (1, 1, 1, 1),
        (7, 5, 3, 130),
        (1, 197, 300, 96),
        (2, 111, 64, 33),
    ] {
        let x = noise(&[batch, tokens, inputs], 13, 1.0);
        let (w, b) = (
            noise(&[outputs, inputs], 14, 1.0),
            noise(&[outputs], 15, 1.0),
        );
        let residual = noise(&[batch, tokens, outputs], 16, 1.0);
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let layer = PreparedLinear::new(values(&w), values(&b), &Device::Cpu).unwrap();
        let product = double(&x)
            .broadcast_matmul(&double(&w).t().unwrap())
            .unwrap();
        let sum = product.broadcast_add(&double(&b)).unwrap();
        let what = format!("linear {batch} {tokens} {inputs} {outputs}");
        close(&what, &layer.forward(&x, Then::Stop).unwrap(), &sum);
        close(
            &what,
            &layer.forward(&x, Then::Gelu).unwrap(),
            &sum.gelu_erf().unwrap(),
        );
        let added = (sum + double(&residual)).unwrap();
        close(
            &what,
            &layer.forward(&x, Then::Add(&residual)).unwrap(),
            &added,
        );
    }
}

#[test]
fn attention_matches_f64() {
    for (batch, tokens, heads, width) in
        [(1, 1, 1, 1), (7, 5, 3, 4), (1, 197, 2, 33), (2, 77, 4, 16)]
    {
        let qkv = noise(&[batch, tokens, 3 * heads * width], 17, 1.5);
        let mixing = HeadMixing {
            scores: noise(&[heads, heads], 18, 1.0),
            weights: noise(&[heads, heads], 19, 1.0),
            bias: noise(&[heads], 20, 1.0),
        };
        for mixing in [None, Some(&mixing)] {
            let what = format!(
                "attention {batch} {tokens} {heads} {width} {}",
                mixing.is_some()
            );
            let expected = formula_attention(&double(&qkv), heads, mixing);
            close(&what, &attention(&qkv, heads, mixing).unwrap(), &expected);
        }
    }
}

fn formula_attention(qkv: &Tensor, heads: usize, mixing: Option<&HeadMixing>) -> Tensor {
    let (batch, tokens, triple) = qkv.dims3().unwrap();
    let width = triple / 3 / heads;
    let split = qkv.reshape((batch, tokens, 3, heads, width)).unwrap();
    let split = split.permute((2, 0, 3, 1, 4)).unwrap();
    let [q, k, v] = [0, 1, 2].map(|i| split.get(i).unwrap().contiguous().unwrap());
    let scores = q.matmul(&k.t().unwrap()).unwrap();
    let mut weights = (scores / (width as f64).sqrt()).unwrap();
    let mix = |planes: Tensor, by: &Tensor| {
        let flat = planes.reshape((batch, heads, tokens * tokens)).unwrap();
        let mixed = double(by).broadcast_matmul(&flat).unwrap();
        mixed.reshape(planes.shape()).unwrap()
    };
    if let Some(mixing) = mixing {
        weights = mix(weights, &mixing.scores);
    }
    weights = candle_nn::ops::softmax(&weights, D::Minus1).unwrap();
    if let Some(mixing) = mixing {
        let bias = double(&mixing.bias).reshape((1, (), 1, 1)).unwrap();
        weights = mix(weights, &mixing.weights).broadcast_add(&bias).unwrap();
    }
    let out = weights.matmul(&v).unwrap().transpose(1, 2).unwrap();
    out.reshape((batch, tokens, heads * width)).unwrap()
}
