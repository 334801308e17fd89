//! Whole flows, their training and backbones.

use candle_core::{Device, Tensor, Var};
use candle_fastflow::backbones;
use candle_fastflow::estimators::flow::{
    Activations, Coupling, FastFlow, FeatureNorm, FlowConfig, Kernels, anomaly_map,
};
use candle_fastflow::estimators::{MapKind, Share};
use candle_fastflow::features::{FeatureStore, FeatureWriter};
use candle_fastflow::kernels::FeatureShape;
use candle_fastflow::kernels::adam::{AdamStep, Decision, adam_step};
use candle_fastflow::training::{AdamConfig, DeviceAdam, DeviceFeatures, device_step};

use super::{Input, MANY, ONE, on_both};

fn shapes() -> Vec<FeatureShape> {
    let shape = |(channels, height, width)| FeatureShape {
        channels,
        height,
        width,
    };
    [(16, 12, 10), (9, 6, 5)].map(shape).to_vec()
}

fn flow(norm: FeatureNorm, coupling: Coupling, device: &Device) -> FastFlow {
    let config = FlowConfig {
        steps: 4,
        kernels: Kernels::Alternating,
        hidden: vec![8, 5],
        clamp: 2.0,
        norm,
        coupling,
        neighbourhood: 1,
    };
    FastFlow::init(&config, &shapes(), 3, device).unwrap()
}

fn features(input: Input, batch: usize) -> Vec<Tensor> {
    let map = |s: &FeatureShape| input(&[batch, s.channels, s.height, s.width], s.channels as f64);
    shapes().iter().map(map).collect()
}

#[test]
fn whole_flows() {
    let every_norm = [
        FeatureNorm::None,
        FeatureNorm::LayerNorm,
        FeatureNorm::LayerNormAffine,
        FeatureNorm::Standardise,
    ];
    let of_norm = every_norm.map(|norm| (norm, Coupling::Affine, Activations::Keep));
    let others = [
        (
            FeatureNorm::LayerNormAffine,
            Coupling::Additive,
            Activations::Keep,
        ),
        (
            FeatureNorm::LayerNorm,
            Coupling::Affine,
            Activations::Rebuild,
        ),
        (FeatureNorm::None, Coupling::Additive, Activations::Rebuild),
    ];
    for (norm, coupling, activations) in of_norm.into_iter().chain(others) {
        let name = format!("flow with {norm:?}, {coupling:?}, {activations:?}");
        on_both(&name, MANY, |input| {
            let features = features(input, 7);
            let mut flow = flow(norm, coupling, features[0].device());
            flow.set_activations(activations);
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

fn store(input: Input, images: usize) -> FeatureStore {
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
        let flow = flow(FeatureNorm::LayerNormAffine, Coupling::Affine, &device);
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

/// More tensors than one launch takes, empty blocks and odd sizes among them.
#[test]
fn optimizer_of_many_tensors() {
    on_both("optimizer", ONE, |input| {
        let device = input(&[1], 0.0).device().clone();
        let tensors = |seed: usize, rows: Option<usize>| -> Vec<Tensor> {
            let one = |i: usize| {
                let size = 1 + i * i % 301;
                let dims = [rows.unwrap_or(1), size];
                input(&dims[usize::from(rows.is_none())..], (seed + i) as f64)
            };
            (0..203).map(one).collect()
        };
        let (gradients, parameters) = (tensors(1, None), tensors(300, None));
        let moments: Vec<Tensor> = tensors(600, Some(2))
            .iter()
            .map(|moments| moments.sqr().unwrap())
            .collect();
        let decision = Decision::new(gradients.len(), &device).unwrap();
        let loss = Tensor::new(2.5f64, &device).unwrap();
        let step = AdamStep {
            beta1: 0.9,
            beta2: 0.999,
            decay: 0.01,
            rate: 0.1,
            inverse2: 1.5,
            epsilon: 1e-3,
        };
        assert!(decision.decide(&gradients[1..], &loss, 4, None).is_err());
        decision.decide(&gradients, &loss, 4, Some(0.7)).unwrap();
        adam_step(step, &decision, &gradients, &moments, &parameters).unwrap();
        let decided = decision.read().unwrap();
        assert_eq!((decided.steps, decided.refused), (1, None));
        let norm = Tensor::new(&[decided.gradient_norm as f32], &Device::Cpu).unwrap();
        let mut all = vec![norm];
        all.extend(parameters);
        all.extend(moments);
        all
    });
}

#[test]
fn backbones_with_random_weights() {
    for (id, side) in [
        ("resnet18", 64),
        ("deit_tiny_distilled_patch16_224", 224),
        ("cait_xxs24_224", 224),
    ] {
        on_both(&format!("backbone {id}"), MANY, |input| {
            let images = input(&[2, 3, side, side], 0.1);
            let backbone = backbones::load_random(id, 0, images.device()).unwrap();
            backbone.features(&images).unwrap()
        });
    }
}
