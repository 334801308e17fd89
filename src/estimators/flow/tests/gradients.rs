//! Gradients against differences of the loss, and of the pass that rebuilds activations against the one that keeps them.

use candle_core::{Device, Tensor};

use super::{NORMS, config, features, flat, moved, shape, values};
use crate::estimators::flow::{Activations, FeatureNorm};

#[test]
fn gradients_agree_with_finite_differences() {
    let shapes = [shape(6, 5, 4), shape(7, 3, 3)];
    let flow = moved(&config(3, &[5, 4], FeatureNorm::LayerNormAffine), &shapes);
    let features = features(&shapes, 2);
    // Small weights beside the biases keep every ReLU away from its kink, which differences would straddle.
    for (name, var) in flow.parameters() {
        if name.ends_with("conv1.bias") {
            let sides = (0..var.elem_count()).map(|i| if i % 3 == 2 { -2f32 } else { 2.0 });
            var.set(&Tensor::from_iter(sides, &Device::Cpu).unwrap())
                .unwrap();
        } else if name.ends_with("conv1.weight") {
            var.set(&(var.as_tensor() * 0.25).unwrap()).unwrap();
        }
    }
    let (_, gradients) = flow.loss_and_gradients(&features).unwrap();
    for (i, ((name, var), gradient)) in flow.parameters().iter().zip(&gradients).enumerate() {
        let start = var.copy().unwrap();
        let direction = values(var.elem_count(), 5.0 + i as f64);
        let direction = Tensor::from_vec(direction, var.shape(), &Device::Cpu).unwrap();
        let along = (gradient * &direction).unwrap().sum_all().unwrap();
        let along = f64::from(along.to_scalar::<f32>().unwrap());
        let loss_at = |step: f64| {
            var.set(&(&start + (&direction * step).unwrap()).unwrap())
                .unwrap();
            flow.loss_and_gradients(&features).unwrap().0
        };
        // The loss moves by about 0.2: far above rounding. Fourth-order central differences.
        let step = 0.2 / along.abs().max(20.0);
        let slope = |step: f64| (loss_at(step) - loss_at(-step)) / (2.0 * step);
        let numeric = (4.0 * slope(step) - slope(2.0 * step)) / 3.0;
        var.set(&start).unwrap();
        let tolerance = 0.01 * numeric.abs() + 0.02;
        assert!(
            (along - numeric).abs() < tolerance,
            "{name}: {along} {numeric}"
        );
    }
}

/// The reversible pass gives the gradients of the one that keeps everything, up to the inverse's rounding.
#[test]
fn rebuilt_activations_give_the_same_gradients() {
    let shapes = [shape(6, 5, 7), shape(9, 3, 4)];
    let features = features(&shapes, 2);
    for norm in NORMS {
        let mut flow = moved(&config(8, &[5, 8], norm), &shapes);
        let (loss, kept) = flow.loss_and_gradients(&features).unwrap();
        flow.set_activations(Activations::Rebuild);
        let (again, rebuilt) = flow.loss_and_gradients(&features).unwrap();
        assert_eq!(loss, again);
        let mut differ = false;
        for ((name, _), (kept, rebuilt)) in flow.parameters().iter().zip(kept.iter().zip(&rebuilt))
        {
            let (kept, rebuilt) = (flat(kept), flat(rebuilt));
            let largest = kept.iter().map(|v| v.abs()).fold(0.0, f32::max);
            let gaps = kept.iter().zip(&rebuilt).map(|(a, b)| (a - b).abs());
            let gap = gaps.fold(0.0, f32::max);
            assert!(gap <= 2e-4 * largest, "{norm:?} {name}: {gap} of {largest}");
            differ |= gap > 0.0;
        }
        assert!(differ, "{norm:?}: nothing was rebuilt");
    }
}
