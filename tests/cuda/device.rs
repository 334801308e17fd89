//! The same calls on the CPU and on a GPU: one body a case, and its formula in f64 where it has one. Prints each
//! case's largest error. FASTFLOW_REQUIRE_GPU=1 makes a case fail where it would be skipped for want of a GPU.

use candle_core::{DType, Device, Tensor, Var};
use candle_fastflow::kernels::{
    conv::{conv2d, conv2d_backward, conv2d_fused, max_pool_3x3_s2_p1},
    coupling::{self, Affine, LogDetGradient, Permutation},
    device::DeviceChoice,
    map::{
        ScaleMap, Statistic, anomaly_map, image_scores, negative_log_likelihood, probability,
        upsample_bilinear,
    },
    norm::{layer_norm, layer_norm_affine, layer_norm_backward, standardise},
};

use super::formulas;
use super::host::close;

#[path = "flows.rs"]
mod flows;
#[path = "methods.rs"]
mod methods;
#[path = "program.rs"]
mod program;

/// Of the largest value of an output, for one operation: sums are in another order there.
const ONE: f32 = 2e-5;
/// The same for many operations after one another.
const MANY: f32 = 5e-4;
const EPS: f32 = 1e-5;
const CLAMP: f32 = 2.0;

/// Makes a tensor of these dimensions; the seed decides its values.
type Input<'a> = &'a dyn Fn(&[usize], f64) -> Tensor;
/// Exact values of some of a case's outputs, by their index, from inputs in f64.
type Exact = Vec<(usize, Tensor)>;

/// Runs `case` on both and compares what it returns.
fn on_both(name: &str, tolerance: f32, case: impl Fn(Input) -> Vec<Tensor>) {
    on_both_and_exactly(name, tolerance, case, |_| Vec::new());
}

/// [`on_both`], and both against a formula in f64.
fn on_both_and_exactly(
    name: &str,
    tolerance: f32,
    case: impl Fn(Input) -> Vec<Tensor>,
    formula: impl Fn(Input) -> Exact,
) {
    let run = |device: &Device| case(&|dims, seed| wave(dims, seed, device));
    let exact = formula(&|dims, seed| double(&wave(dims, seed, &Device::Cpu)));
    let gpu = gpu(name);
    if exact.is_empty() && gpu.is_none() {
        return;
    }
    let on_cpu = run(&Device::Cpu);
    compare_exactly(&format!("{name} on the CPU"), &on_cpu, &exact, tolerance);
    let Some(gpu) = gpu else { return };
    let found = run(&gpu);
    assert_eq!(on_cpu.len(), found.len());
    let pairs = on_cpu.iter().zip(&found).enumerate();
    let worst = pairs.fold(0f32, |worst, (i, (expected, found))| {
        worst.max(compare(&format!("{name} {i}"), found, expected, tolerance))
    });
    println!("{name}: GPU and CPU differ by {worst:.1e} of the largest value");
    compare_exactly(&format!("{name} on the GPU"), &found, &exact, tolerance);
    // The same bits again: no reduction depends on what runs first.
    for (first, second) in found.iter().zip(&run(&gpu)) {
        assert_eq!(values(first), values(second), "{name} is not deterministic");
    }
}

/// The first GPU; none, with a message, where there is none and none is required.
fn gpu(name: &str) -> Option<Device> {
    match DeviceChoice::Cuda(0).open() {
        Ok((gpu, _)) => Some(gpu),
        Err(why) => {
            let required = std::env::var("FASTFLOW_REQUIRE_GPU").is_ok_and(|value| value != "0");
            assert!(!required, "{name}: {why}");
            println!("skipped: {name} on a GPU ({why})");
            None
        }
    }
}

fn compare_exactly(name: &str, found: &[Tensor], exact: &Exact, tolerance: f32) {
    let errors = exact.iter().map(|(i, expected)| {
        let what = format!("{name} against f64, {i}");
        compare(&what, &found[*i], expected, tolerance)
    });
    if let Some(worst) = errors.reduce(f32::max) {
        println!("{name}: largest error against f64 {worst:.1e} of the largest value");
    }
}

/// Fails above the tolerance; the largest error relative to the largest value expected.
fn compare(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) -> f32 {
    assert_eq!(expected.dims(), found.dims(), "{what}");
    let (expected, found) = (values(expected), values(found));
    close(what, &found, &expected, tolerance);
    let size = expected.iter().fold(0f32, |size, v| size.max(v.abs()));
    let errors = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    errors.fold(0f32, f32::max) / size
}

fn wave(dims: &[usize], seed: f64, device: &Device) -> Tensor {
    let len: usize = dims.iter().product();
    let value = |i| (1.5 * (f64::from(i) * 78.233 + seed).sin() + 0.2) as f32;
    Tensor::from_vec((0..len as u32).map(value).collect(), dims, device).unwrap()
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F64).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().unwrap();
    flat.to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn var(tensor: &Tensor) -> Var {
    Var::from_tensor(tensor).unwrap()
}

/// Gradients of `sum(output * weights)` over all pairs.
fn gradients(pairs: &[(&Tensor, &Tensor)], vars: &[&Var]) -> Vec<Tensor> {
    let sum = |(output, weights): &(&Tensor, &Tensor)| (*output * *weights).unwrap().sum_all();
    let sums: Vec<Tensor> = pairs.iter().map(|pair| sum(pair).unwrap()).collect();
    let all = Tensor::stack(&sums, 0).unwrap().sum_all().unwrap();
    let gradients = all.backward().unwrap();
    let of = |var: &&Var| gradients.get(var).unwrap().clone();
    vars.iter().map(of).collect()
}

/// Batch, channels, height, width: odd ones, and the largest of a ResNet's.
const SHAPES: [(usize, usize, usize, usize); 5] = [
    (1, 2, 1, 1),
    (7, 5, 3, 5),
    (2, 9, 33, 35),
    (1, 768, 24, 24),
    (32, 64, 64, 64),
];

/// Whether a formula in f64 is quick enough on the CPU.
fn is_small(dims: [usize; 4]) -> bool {
    dims.iter().product::<usize>() < 1 << 20
}

#[test]
fn coupling() {
    for (b, c, h, w) in SHAPES {
        let name = format!("coupling {b}x{c}x{h}x{w}");
        let order: Vec<u32> = (0..c as u32).rev().collect();
        let permutation = Permutation::new(order.clone()).unwrap();
        let inputs = |input: Input| {
            // The first channels of a wider batch, as a step sees them.
            let x = input(&[b, c + 1, h, w], 0.1).narrow(1, 0, c).unwrap();
            let a = (input(&[b, c / 2 * 2, h, w], 0.2) * 8.0).unwrap();
            let scale = input(&[c], 0.5).exp().unwrap();
            [x, a, scale, input(&[c], 0.7)]
        };
        let given = |input: Input| (input(&[b, c, h, w], 0.9), input(&[b, h, w], 0.4));
        let case = |input: Input| {
            let [x, a, scale, offset] = inputs(input);
            let (dy, map) = given(input);
            let affine = Affine::new(&scale, &offset).unwrap();
            let (y, log_det) = coupling::forward(&x, &a, &affine, &permutation, CLAMP).unwrap();
            let mut all = vec![y.clone(), log_det];
            for given in [LogDetGradient::Constant(-1.0), LogDetGradient::Map(&map)] {
                let g =
                    coupling::backward(&x, &a, &affine, &permutation, CLAMP, &dy, given).unwrap();
                let term = input(&[b, c - c / 2, h, w], 0.3);
                all.extend([g.x.copy().unwrap(), g.a.clone()]);
                all.extend([g.scale.clone(), g.offset.clone()]);
                all.push(g.add_to_passive(&term).unwrap());
            }
            let u = coupling::undo_affine(&y, &affine, &permutation).unwrap();
            all.extend([coupling::uncouple(&u, &a, CLAMP).unwrap(), u]);
            all
        };
        on_both_and_exactly(&name, ONE, case, |input| {
            if !is_small([b, c, h, w]) {
                return Vec::new();
            }
            let [x, a, scale, offset] = inputs(input).map(|tensor| var(&tensor));
            let (dy, map) = given(input);
            let (y, log_det) = formulas::coupling([&x, &a, &scale, &offset], &order, CLAMP);
            let minus_one = (map.zeros_like().unwrap() - 1.0).unwrap();
            let mut exact = vec![(0, y.clone()), (1, log_det.clone())];
            for (first, of_log_det) in [(2, &minus_one), (7, &map)] {
                let pairs = [(&y, &dy), (&log_det, of_log_det)];
                let found = gradients(&pairs, &[&x, &a, &scale, &offset]);
                exact.extend((first..).zip(found));
            }
            exact.push((12, x.as_tensor().clone()));
            exact
        });
    }
}

#[test]
fn norms() {
    for (b, c, h, w) in SHAPES {
        let name = format!("norms {b}x{c}x{h}x{w}");
        let inputs = |input: Input| {
            let x = input(&[b, c + 1, h, w], 0.1).narrow(1, 0, c).unwrap();
            let (mean, std) = (input(&[c], 0.2), input(&[c], 0.3).exp().unwrap());
            let (weight, bias) = (input(&[c, h, w], 0.4), input(&[c, h, w], 0.5));
            [x, mean, std, weight, bias, input(&[b, c, h, w], 0.6)]
        };
        // Of two values each is the other's mirror image: their gradient is rounding error.
        let differentiable = c * h * w > 2;
        let case = |input: Input| {
            let [x, mean, std, weight, bias, dy] = inputs(input);
            let mut all = vec![
                layer_norm(&x, EPS).unwrap(),
                layer_norm_affine(&x, &weight, &bias, EPS).unwrap(),
                standardise(&x, &mean, &std).unwrap(),
            ];
            if differentiable {
                all.push(layer_norm_backward(&x, &dy, EPS).unwrap());
            }
            all
        };
        on_both_and_exactly(&name, ONE, case, |input| {
            if !is_small([b, c, h, w]) {
                return Vec::new();
            }
            let [x, mean, std, weight, bias, dy] = inputs(input);
            let (x, eps) = (var(&x), f64::from(EPS));
            let y = formulas::layer_norm(&x, eps);
            let mut exact = vec![
                (0, y.clone()),
                (1, formulas::layer_norm_affine(&x, &weight, &bias, eps)),
                (2, formulas::standardise(&x, &mean, &std)),
            ];
            if differentiable {
                exact.push((3, gradients(&[(&y, &dy)], &[&x]).remove(0)));
            }
            exact
        });
    }
}

/// Padded by hand, and without the rows and columns that no window reaches: candle's own gradient takes it that
/// as many are left over in both directions.
fn exact_conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Tensor {
    let kernel = weight.dim(2).unwrap();
    let reached = |x: Tensor, dim: usize| {
        let x = x.pad_with_zeros(dim, padding, padding).unwrap();
        let windows = (x.dim(dim).unwrap() - kernel) / stride;
        x.narrow(dim, 0, windows * stride + kernel).unwrap()
    };
    let x = reached(reached(x.clone(), 2), 3);
    x.conv2d(weight, 0, stride, 1, 1).unwrap()
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
        let name = format!("convolution {b}x{c}x{h}x{w} to {o}, {k}x{k}");
        let inputs = |input: Input| {
            let x = input(&[b, c + 1, h, w], 0.1).narrow(1, 0, c).unwrap();
            [x, input(&[o, c, k, k], 0.2), input(&[o], 0.3)]
        };
        // Residual, the output's gradient, and where a ReLU cuts: the same on both, so not what rounding makes it.
        let like_y = |input: Input, dims: &[usize]| [0.4, 0.5, 0.6].map(|seed| input(dims, seed));
        let case = |input: Input| {
            let [x, weight, bias] = inputs(input);
            let y = conv2d(&x, &weight, Some(&bias), s, p).unwrap();
            let bare = conv2d_fused(&x, &weight, None, s, p, None, true).unwrap();
            let [residual, dy, mask] = like_y(input, y.dims());
            let fused =
                conv2d_fused(&x, &weight, Some(&bias), s, p, Some(&residual), true).unwrap();
            let mut all = vec![y, bare, fused];
            for output in [None, Some(&mask)] {
                let g = conv2d_backward(&x, &weight, &dy, s, p, output, true).unwrap();
                all.extend([g.input.unwrap(), g.weight, g.bias]);
            }
            all
        };
        on_both_and_exactly(&name, ONE, case, |input| {
            if !is_small([b, c, h, w]) {
                return Vec::new();
            }
            let [x, weight, bias] = inputs(input).map(|tensor| var(&tensor));
            let product = exact_conv2d(&x, &weight, s, p);
            let y = product
                .broadcast_add(&formulas::per_channel(&bias))
                .unwrap();
            let [residual, dy, mask] = like_y(input, y.dims());
            let fused = (&y + residual).unwrap().relu().unwrap();
            let mut exact = vec![(0, y.clone()), (1, product.relu().unwrap()), (2, fused)];
            let passes = mask.gt(0.0).unwrap().to_dtype(DType::F64).unwrap();
            for (first, dy) in [(3, dy.clone()), (6, (dy * passes).unwrap())] {
                let found = gradients(&[(&y, &dy)], &[&x, &weight, &bias]);
                exact.extend((first..).zip(found));
            }
            exact
        });
    }
    on_both("max-pool", ONE, |input| {
        vec![max_pool_3x3_s2_p1(&input(&[2, 3, 13, 16], 0.1)).unwrap()]
    });
}

#[test]
fn maps_and_scores() {
    let case = |input: Input| {
        let z = input(&[3, 20, 9, 11], 0.1);
        let maps = negative_log_likelihood(&z).unwrap();
        let large = upsample_bilinear(&maps, 40, 33).unwrap();
        let scores = [1, 7, 40 * 33].map(|k| image_scores(&large, k).unwrap());
        let mut all = vec![maps, probability(&z).unwrap(), large];
        all.extend(scores);
        all
    };
    on_both_and_exactly("maps and scores", ONE, case, |input| {
        let z = input(&[3, 20, 9, 11], 0.1);
        let maps = formulas::negative_log_likelihood(&z);
        let large = formulas::upsample(&maps, 40, 33);
        let flat = large.flatten_from(1).unwrap();
        let (largest, mean) = (flat.max(1).unwrap(), flat.mean(1).unwrap());
        vec![
            (0, maps),
            (1, formulas::probability(&z)),
            (2, large),
            (3, largest),
            (5, mean),
        ]
    });
}

/// The whole map: in one kernel, and where the low-resolution positions under a tile or the scales are too many for it.
#[test]
fn fused_maps() {
    let one_kernel: &[[usize; 4]] = &[[2, 6, 16, 12], [2, 9, 8, 6], [2, 3, 1, 1]];
    let large_region: &[[usize; 4]] = &[[1, 2, 200, 190]];
    let many_scales: &[[usize; 4]] = &[[2, 3, 4, 5]; 9];
    for (what, scales) in [
        ("one kernel", one_kernel),
        ("a large region", large_region),
        ("many scales", many_scales),
    ] {
        let latents = |input: Input| -> Vec<Tensor> {
            let seeds = scales.iter().zip(1u8..);
            seeds.map(|(dims, seed)| input(dims, seed.into())).collect()
        };
        let parts = |index: usize| (0.3 - 0.1 * index as f32, 1.5 / (index + 1) as f32);
        let size = (64, 50);
        for statistic in [
            Statistic::Nll,
            Statistic::Exponential,
            Statistic::Probability,
        ] {
            let case = |input: Input| {
                let latents = latents(input);
                let scale = |(index, z)| {
                    let (shift, factor) = parts(index);
                    ScaleMap { z, shift, factor }
                };
                let scales: Vec<ScaleMap> = latents.iter().enumerate().map(scale).collect();
                vec![anomaly_map(&scales, statistic, size).unwrap()]
            };
            let name = format!("fused map, {what}, {statistic:?}");
            on_both_and_exactly(&name, ONE, case, |input| {
                let mut sum: Option<Tensor> = None;
                for (index, z) in latents(input).iter().enumerate() {
                    let maps = match statistic {
                        Statistic::Nll => formulas::negative_log_likelihood(z),
                        Statistic::Exponential => formulas::exponential(z),
                        Statistic::Probability => formulas::probability(z),
                    };
                    let (shift, factor) = parts(index);
                    let map = formulas::upsample(&maps, size.0, size.1);
                    let map = ((map - f64::from(shift)).unwrap() * f64::from(factor)).unwrap();
                    sum = Some(match sum {
                        None => map,
                        Some(sum) => (map + sum).unwrap(),
                    });
                }
                vec![(0, sum.unwrap())]
            });
        }
    }
}
