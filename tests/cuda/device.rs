//! The same calls on the CPU and on a GPU: one body a case. Prints each case's largest error.

use candle_core::{Device, Tensor, Var};
use candle_fastflow::features::{FeatureStore, FeatureWriter};
use candle_fastflow::flow::{
    Coupling, FastFlow, FeatureNorm, FlowConfig, Kernels, MapKind, Share, anomaly_map,
};
use candle_fastflow::kernels::{
    FeatureShape,
    conv::{conv2d, conv2d_backward, conv2d_fused, max_pool_3x3_s2_p1},
    coupling::{self, LogDetGradient, Permutation},
    device::DeviceChoice,
    map::{image_scores, negative_log_likelihood, probability, upsample_bilinear},
    norm::{layer_norm, layer_norm_affine, layer_norm_backward, standardise},
};
use candle_fastflow::training::{AdamConfig, DeviceAdam, DeviceFeatures, device_step};

use super::host::close;

/// Of the largest value of an output, for one operation: sums are in another order there.
const ONE: f32 = 2e-5;
/// The same for many operations after one another.
const MANY: f32 = 5e-4;

/// Runs `case` on both and compares what it returns; `input(dims, seed)` makes a tensor there.
fn on_both(
    name: &str,
    tolerance: f32,
    case: impl Fn(&dyn Fn(&[usize], f64) -> Tensor) -> Vec<Tensor>,
) {
    let gpu = match DeviceChoice::Cuda(0).open() {
        Ok((gpu, _)) => gpu,
        Err(why) => {
            println!("skipped: {name} on a GPU ({why})");
            return;
        }
    };
    let run = |device: &Device| case(&|dims, seed| wave(dims, seed, device));
    let (expected, found) = (run(&Device::Cpu), run(&gpu));
    assert_eq!(expected.len(), found.len());
    let mut worst = 0f32;
    for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
        assert_eq!(expected.dims(), found.dims(), "{name} {i}");
        let (expected, found) = (values(expected), values(found));
        close(&format!("{name} {i}"), &found, &expected, tolerance);
        let size = expected.iter().fold(0f32, |size, v| size.max(v.abs()));
        let error = expected
            .iter()
            .zip(&found)
            .fold(0f32, |e, (a, b)| e.max((a - b).abs()));
        worst = worst.max(error / size);
    }
    // The same bits again: no reduction depends on what runs first.
    let again = run(&gpu);
    for (first, second) in found.iter().zip(&again) {
        assert_eq!(values(first), values(second), "{name} is not deterministic");
    }
    println!("{name}: largest error {worst:.1e} of the largest value");
}

fn wave(dims: &[usize], seed: f64, device: &Device) -> Tensor {
    let len: usize = dims.iter().product();
    let value = |i| (1.5 * (f64::from(i) * 78.233 + seed).sin() + 0.2) as f32;
    Tensor::from_vec((0..len as u32).map(value).collect(), dims, device).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor
        .flatten_all()
        .unwrap()
        .to_dtype(candle_core::DType::F32)
        .unwrap()
        .to_vec1()
        .unwrap()
}

fn reversed(channels: usize) -> Permutation {
    Permutation::new((0..channels as u32).rev().collect()).unwrap()
}

/// Batch, channels, height, width: odd ones, and the largest of a ResNet's.
const SHAPES: [(usize, usize, usize, usize); 5] = [
    (1, 2, 1, 1),
    (7, 5, 3, 5),
    (2, 9, 33, 35),
    (1, 768, 24, 24),
    (32, 64, 64, 64),
];

#[test]
fn coupling() {
    for (b, c, h, w) in SHAPES {
        on_both(&format!("coupling {b}x{c}x{h}x{w}"), ONE, |input| {
            // The first channels of a wider batch, as a step sees them.
            let x = input(&[b, c + 1, h, w], 0.1).narrow(1, 0, c).unwrap();
            let a = (input(&[b, c / 2 * 2, h, w], 0.2) * 8.0).unwrap();
            let (scale, offset) = (input(&[c], 0.5).exp().unwrap(), input(&[c], 0.7));
            let (dy, permutation) = (input(&[b, c, h, w], 0.9), reversed(c));
            let (y, log_det) =
                coupling::forward(&x, &a, &scale, &offset, &permutation, 2.0).unwrap();
            let map = input(&[b, h, w], 0.4);
            let mut all = vec![y.clone(), log_det];
            for given in [LogDetGradient::Constant(-1.0), LogDetGradient::Map(&map)] {
                let g = coupling::backward(&x, &a, &scale, &offset, &permutation, 2.0, &dy, given)
                    .unwrap();
                let term = input(&[b, c - c / 2, h, w], 0.3);
                all.extend([
                    g.x.copy().unwrap(),
                    g.a.clone(),
                    g.scale.clone(),
                    g.offset.clone(),
                ]);
                all.push(g.add_to_passive(&term).unwrap());
            }
            let u = coupling::undo_affine(&y, &scale, &offset, &permutation).unwrap();
            all.extend([coupling::uncouple(&u, &a, 2.0).unwrap(), u]);
            all
        });
    }
}

#[test]
fn norms() {
    for (b, c, h, w) in SHAPES {
        on_both(&format!("norms {b}x{c}x{h}x{w}"), ONE, |input| {
            let x = input(&[b, c + 1, h, w], 0.1).narrow(1, 0, c).unwrap();
            let (mean, std) = (input(&[c], 0.2), input(&[c], 0.3).exp().unwrap());
            let (weight, bias) = (input(&[c, h, w], 0.4), input(&[c, h, w], 0.5));
            let mut all = vec![
                layer_norm(&x, 1e-5).unwrap(),
                layer_norm_affine(&x, &weight, &bias, 1e-5).unwrap(),
                standardise(&x, &mean, &std).unwrap(),
            ];
            // Of two values each is the other's mirror image: their gradient is rounding error.
            if c * h * w > 2 {
                all.push(layer_norm_backward(&x, &input(&[b, c, h, w], 0.6), 1e-5).unwrap());
            }
            all
        });
    }
}

#[test]
fn convolutions() {
    // Batch, inputs, outputs, height, width, kernel, stride, padding.
    for (b, c, o, h, w, k, s, p) in [
        (1, 3, 5, 7, 9, 3, 1, 1),
        (7, 5, 4, 6, 6, 1, 1, 0),
        (2, 3, 8, 21, 20, 7, 2, 3),
        (3, 8, 6, 10, 9, 3, 2, 1),
        (32, 32, 32, 64, 64, 3, 1, 1),
    ] {
        on_both(
            &format!("convolution {b}x{c}x{h}x{w} to {o}, {k}x{k}"),
            ONE,
            |input| {
                let x = input(&[b, c + 1, h, w], 0.1).narrow(1, 0, c).unwrap();
                let (weight, bias) = (input(&[o, c, k, k], 0.2), input(&[o], 0.3));
                let y = conv2d(&x, &weight, Some(&bias), s, p).unwrap();
                let residual = input(y.dims(), 0.4);
                let fused =
                    conv2d_fused(&x, &weight, Some(&bias), s, p, Some(&residual), true).unwrap();
                let dy = input(y.dims(), 0.5);
                // Where a ReLU cuts must be the same on both: a mask that does not depend on rounding.
                let mask = input(y.dims(), 0.6);
                let mut all = vec![y, fused];
                for output in [None, Some(&mask)] {
                    let g = conv2d_backward(&x, &weight, &dy, s, p, output, true).unwrap();
                    all.extend([g.input.unwrap(), g.weight, g.bias]);
                }
                all
            },
        );
    }
    on_both("max-pool", ONE, |input| {
        vec![max_pool_3x3_s2_p1(&input(&[2, 3, 13, 16], 0.1)).unwrap()]
    });
}

#[test]
fn maps_and_scores() {
    on_both("maps and scores", ONE, |input| {
        let z = input(&[3, 20, 9, 11], 0.1);
        let maps = negative_log_likelihood(&z).unwrap();
        let large = upsample_bilinear(&maps, 40, 33).unwrap();
        let scores = [1, 7, 40 * 33].map(|k| image_scores(&large, k).unwrap());
        let mut all = vec![maps, probability(&z).unwrap(), large];
        all.extend(scores);
        all
    });
}

fn shapes() -> Vec<FeatureShape> {
    let shape = |(channels, height, width)| FeatureShape {
        channels,
        height,
        width,
    };
    [(16, 12, 10), (9, 6, 5)].map(shape).to_vec()
}

fn flow(norm: FeatureNorm, device: &Device) -> FastFlow {
    let config = FlowConfig {
        steps: 4,
        kernels: Kernels::Alternating,
        hidden: vec![8, 5],
        clamp: 2.0,
        norm,
        coupling: Coupling::Affine,
    };
    FastFlow::init(&config, &shapes(), 3, device).unwrap()
}

fn features(input: &dyn Fn(&[usize], f64) -> Tensor, batch: usize) -> Vec<Tensor> {
    let map = |s: &FeatureShape| input(&[batch, s.channels, s.height, s.width], s.channels as f64);
    shapes().iter().map(map).collect()
}

#[test]
fn whole_flows() {
    for norm in [
        FeatureNorm::LayerNorm,
        FeatureNorm::LayerNormAffine,
        FeatureNorm::Standardise,
    ] {
        on_both(&format!("flow with {norm:?}"), MANY, |input| {
            let features = features(input, 7);
            let flow = flow(norm, features[0].device());
            let (loss, gradients) = flow.device_loss_and_gradients(&features).unwrap();
            let latents = flow.forward(&features).unwrap();
            let z: Vec<Tensor> = latents.iter().map(|latent| latent.z.clone()).collect();
            let mut all = vec![loss.reshape(1).unwrap(), flow.nll(&features).unwrap()];
            for kind in [MapKind::Nll, MapKind::Exp, MapKind::Prob] {
                all.push(anomaly_map(&latents, kind, &Share::mean(z.len()), (48, 50)).unwrap());
            }
            all.extend(flow.inverse(&z).unwrap());
            all.extend(z);
            all.extend(gradients);
            all
        });
    }
}

fn store(input: &dyn Fn(&[usize], f64) -> Tensor, images: usize) -> FeatureStore {
    let mut writer = FeatureWriter::new(shapes(), images, u64::MAX, &std::env::temp_dir()).unwrap();
    let maps = features(input, images);
    for image in 0..images {
        let one: Vec<Tensor> = maps
            .iter()
            .map(|map| map.narrow(0, image, 1).unwrap())
            .collect();
        writer.push(&one).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn training_steps() {
    on_both("training", MANY, |input| {
        let store = store(input, 6);
        let device = input(&[1], 0.0).device().clone();
        let flow = flow(FeatureNorm::LayerNormAffine, &device);
        let config = AdamConfig {
            // Adam's first steps divide rounding errors by themselves where a gradient is about 0.
            epsilon: 1e-3,
            ..AdamConfig::default()
        };
        let mut adam = DeviceAdam::new(flow.parameters(), config, &device).unwrap();
        let features = DeviceFeatures::new(&store, &device).unwrap();
        for batch in [[0, 1, 2], [3, 4, 5], [5, 2, 0]] {
            device_step(&flow, &mut adam, &features, &batch, Some(100.0)).unwrap();
        }
        let progressed = adam.progressed().unwrap();
        assert_eq!((adam.steps(), progressed.refused), (3, None));
        let mut all: Vec<Tensor> = flow
            .parameters()
            .iter()
            .map(|(_, var): &(String, Var)| var.as_tensor().clone())
            .collect();
        let sums = [progressed.loss as f32, progressed.gradient_norm as f32];
        all.push(Tensor::new(&sums, &Device::Cpu).unwrap());
        all
    });
}
