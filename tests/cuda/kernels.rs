//! Each kernel's body against the CPU side, on odd shapes, single images and batches of 7.

use candle_core::{Device, Tensor};
use candle_fastflow::kernels::{
    conv::{self, conv2d_backward, max_pool_3x3_s2_p1},
    coupling::{self, Affine, LogDetGradient, Permutation},
    map, norm,
};
use candle_fastflow::training::{Adam, AdamConfig};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::host::{F32_RUNS, RUNS, Run, close};

/// Batch, channels, height, width.
const SHAPES: [(usize, usize, usize, usize); 7] = [
    (1, 2, 1, 1),
    (7, 5, 3, 5),
    (1, 8, 8, 8),
    (7, 6, 4, 4),
    (2, 9, 16, 12),
    (1, 64, 14, 14),
    (1, 131, 5, 9),
];

fn noise(seed: u64, len: usize, size: f32) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-size..=size)).collect()
}

fn tensor(values: &[f32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(values, dims, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A coupling whose x (or u, or y) is the first channels of a wider tensor.
struct Case {
    dims: [usize; 4],
    wide: Vec<f32>,
    x: Tensor,
    a: Vec<f32>,
    affine: Vec<f32>,
    permutation: Vec<u32>,
}

const CLAMP: f32 = 2.0;

impl Case {
    fn new((batch, channels, height, width): (usize, usize, usize, usize), run: Run) -> Self {
        let positions = height * width;
        let more = channels + 2;
        let wide = run.stored(&noise(1, batch * more * positions, 2.0));
        let x = tensor(&wide, &[batch, more, height, width]);
        let mut affine: Vec<f32> = noise(3, 2 * channels, 0.4);
        affine[..channels]
            .iter_mut()
            .for_each(|scale| *scale += 1.0);
        let mut permutation: Vec<u32> = (0..channels as u32).collect();
        permutation.shuffle(&mut ChaCha8Rng::seed_from_u64(4));
        Self {
            dims: [batch, channels, height, width],
            x: x.narrow(1, 0, channels).unwrap(),
            wide,
            a: run.stored(&noise(2, batch * (channels / 2 * 2) * positions, 15.0)),
            affine,
            permutation,
        }
    }

    fn a(&self) -> Tensor {
        let [batch, channels, height, width] = self.dims;
        tensor(&self.a, &[batch, channels / 2 * 2, height, width])
    }

    fn global_affine(&self) -> Affine {
        Affine::packed(tensor(&self.affine, &[2 * self.dims[1]]))
    }

    fn permutation(&self) -> Permutation {
        Permutation::new(self.permutation.clone()).unwrap()
    }

    fn indices(&self) -> Vec<f32> {
        self.permutation.iter().map(|&i| i as f32).collect()
    }

    /// Batch, channels, positions, distance of x's images, clamp.
    fn numbers(&self) -> Vec<f64> {
        let [batch, channels, height, width] = self.dims;
        let positions = height * width;
        let sizes = [batch, channels, positions, (channels + 2) * positions];
        let mut numbers: Vec<f64> = sizes.map(|n| n as f64).into();
        numbers.push(f64::from(CLAMP));
        numbers
    }
}

#[test]
fn coupling_forward() {
    for (shape, run) in SHAPES
        .iter()
        .flat_map(|&shape| RUNS.map(|run| (shape, run)))
    {
        let case = Case::new(shape, run);
        let affine = case.global_affine();
        let (y, log_det) =
            coupling::forward(&case.x, &case.a(), &affine, &case.permutation(), CLAMP).unwrap();
        let inputs: [&[f32]; 4] = [&case.wide, &case.a, &case.affine, &case.indices()];
        let Some(found) = run.kernel("forward", &case.numbers(), &inputs) else {
            return;
        };
        let what = format!("{shape:?} {}", run.storage);
        close(&what, &found[0], &values(&y), run.tolerance());
        close(&what, &found[1], &values(&log_det), 2e-5);
    }
}

#[test]
fn coupling_backward() {
    for (shape, run) in SHAPES
        .iter()
        .flat_map(|&shape| RUNS.map(|run| (shape, run)))
    {
        let case = Case::new(shape, run);
        let [batch, channels, height, width] = case.dims;
        // Not centred, or the sums over positions would cancel.
        let dy = noise(5, batch * channels * height * width, 1.0);
        let dy = run.stored(&dy.iter().map(|v| v + 0.5).collect::<Vec<_>>());
        let map = noise(6, batch * height * width, 1.0);
        let map_tensor = tensor(&map, &[batch, height, width]);
        let affine = case.global_affine();
        for given in [
            LogDetGradient::Map(&map_tensor),
            LogDetGradient::Constant(-1.0),
        ] {
            let dy_tensor = tensor(&dy, &case.dims);
            let expected = coupling::backward(
                &case.x,
                &case.a(),
                &affine,
                &case.permutation(),
                CLAMP,
                &dy_tensor,
                given,
            )
            .unwrap();
            let mut numbers = case.numbers();
            numbers.extend(match given {
                LogDetGradient::Map(_) => [5.0, 1.0, 0.0],
                LogDetGradient::Constant(constant) => [1000.0, 0.0, f64::from(constant)],
            });
            let inputs: [&[f32]; 6] = [
                &case.wide,
                &case.a,
                &dy,
                &case.affine,
                &case.indices(),
                &map,
            ];
            let Some(found) = run.kernel("backward", &numbers, &inputs) else {
                return;
            };
            let what = format!("{shape:?} {}", run.storage);
            close(&what, &found[0], &values(&expected.x), run.tolerance());
            close(&what, &found[1], &values(&expected.a), run.tolerance());
            let (scale, offset) = found[2].split_at(channels);
            close(&what, scale, &values(&expected.scale), 2e-5);
            close(&what, offset, &values(&expected.offset), 2e-5);
        }
    }
}

#[test]
fn coupling_inverse_and_accumulate() {
    for (shape, run) in SHAPES
        .iter()
        .flat_map(|&shape| RUNS.map(|run| (shape, run)))
    {
        let case = Case::new(shape, run);
        let what = format!("{shape:?} {}", run.storage);
        let affine = case.global_affine();
        let undone = coupling::undo_affine(&case.x, &affine, &case.permutation()).unwrap();
        let inputs: [&[f32]; 3] = [&case.wide, &case.affine, &case.indices()];
        let Some(found) = run.kernel("undo", &case.numbers(), &inputs) else {
            return;
        };
        close(&what, &found[0], &values(&undone), run.tolerance());
        let x = coupling::uncouple(&case.x, &case.a(), CLAMP).unwrap();
        let found = run.kernel("uncouple", &case.numbers(), &[&case.wide, &case.a]);
        close(&what, &found.unwrap()[0], &values(&x), run.tolerance());
        let [batch, channels, height, width] = case.dims;
        let (passive, positions) = (channels - channels / 2, height * width);
        let term = run.stored(&noise(7, batch * passive * positions, 1.0));
        let found = run.kernel("accumulate", &case.numbers(), &[&case.wide, &term]);
        let mut expected = case.wide.clone();
        let image = (channels + 2) * positions;
        for (sum, term) in expected
            .chunks_exact_mut(image)
            .zip(term.chunks_exact(passive * positions))
        {
            sum.iter_mut()
                .zip(term)
                .for_each(|(sum, term)| *sum += term);
        }
        close(&what, &found.unwrap()[0], &expected, run.tolerance());
    }
}

#[test]
fn norms() {
    for (shape, run) in SHAPES
        .iter()
        .flat_map(|&shape| RUNS.map(|run| (shape, run)))
    {
        let (batch, channels, height, width) = shape;
        let dims = [batch, channels, height, width];
        let size = channels * height * width;
        let wide = size + 2 * height * width;
        let x = noise(1, batch * wide, 2.0);
        let x = run.stored(&x.iter().map(|v| v + 3.0).collect::<Vec<_>>());
        let dy = run.stored(&noise(2, batch * size, 1.0));
        let x_tensor = tensor(&x, &[batch, channels + 2, height, width]);
        let x_tensor = x_tensor.narrow(1, 0, channels).unwrap();
        let what = format!("{shape:?} {}", run.storage);
        for chunk in [64, 4096] {
            let numbers = [batch, size, wide, chunk, channels].map(|n| n as f64);
            let Some(found) = run.kernel("layer-norm", &numbers, &[&x]) else {
                return;
            };
            let expected = norm::layer_norm(&x_tensor, 1e-5).unwrap();
            close(&what, &found[0], &values(&expected), run.tolerance());
            let found = run
                .kernel("layer-norm-backward", &numbers, &[&x, &dy])
                .unwrap();
            let dy = tensor(&dy, &dims);
            let expected = norm::layer_norm_backward(&x_tensor, &dy, 1e-5).unwrap();
            // Of two values each is the other's mirror image: their gradient is rounding error.
            if size > 2 {
                close(&what, &found[0], &values(&expected), run.tolerance());
            }
        }
        let mut statistics = noise(3, 2 * channels, 0.5);
        statistics[channels..]
            .iter_mut()
            .for_each(|std| *std += 1.0);
        let numbers = [batch, size, wide, 64, channels].map(|n| n as f64);
        let found = run
            .kernel("standardise", &numbers, &[&x, &statistics])
            .unwrap();
        let halves = tensor(&statistics, &[2, channels]);
        let (mean, std) = (halves.get(0).unwrap(), halves.get(1).unwrap());
        let expected = norm::standardise(&x_tensor, &mean, &std).unwrap();
        close(&what, &found[0], &values(&expected), run.tolerance());
    }
}

#[test]
fn layer_norm_stands_a_far_mean() {
    let run = RUNS[2];
    let x: Vec<f32> = noise(1, 7 * 1000, 1.0).iter().map(|v| v + 1000.0).collect();
    let numbers = [7.0, 1000.0, 1000.0, 64.0, 1.0];
    let Some(found) = run.kernel("layer-norm", &numbers, &[&x]) else {
        return;
    };
    let expected = norm::layer_norm(&tensor(&x, &[7, 1000]), 1e-5).unwrap();
    close("far mean", &found[0], &values(&expected), 2e-4);
}

#[test]
fn convolution_epilogues() {
    for (shape, run) in SHAPES
        .iter()
        .flat_map(|&shape| RUNS.map(|run| (shape, run)))
    {
        let (batch, channels, height, width) = shape;
        let positions = height * width;
        let image = channels * positions;
        let (x, bias) = (noise(1, batch * image, 2.0), noise(2, channels, 1.0));
        let (x, bias) = (run.stored(&x), run.stored(&bias));
        let more = image + 2 * positions;
        let residual = run.stored(&noise(3, batch * more, 1.0));
        let at = |i: usize| (i / image, i % image);
        let what = format!("{shape:?} {}", run.storage);
        for (relu, with) in [(0, 0), (1, 0), (1, 1)] {
            let numbers = [batch, channels, positions, relu, with, more].map(|n| n as f64);
            let Some(found) = run.kernel("epilogue", &numbers, &[&x, &bias, &residual]) else {
                return;
            };
            let expected: Vec<f32> = (0..batch * image)
                .map(|i| {
                    let (b, inside) = at(i);
                    let sum = x[i] + bias[inside / positions];
                    let sum = sum
                        + if with == 1 {
                            residual[b * more + inside]
                        } else {
                            0.0
                        };
                    if relu == 1 { sum.max(0.0) } else { sum }
                })
                .collect();
            if expected.iter().any(|v| *v != 0.0) {
                close(&what, &found[0], &expected, run.tolerance());
            }
        }
        for masked in [0, 1] {
            let numbers = [batch, channels, positions, 1, masked, more, 3].map(|n| n as f64);
            let found = run
                .kernel("epilogue-backward", &numbers, &[&x, &bias, &residual])
                .unwrap();
            let expected: Vec<f32> = (0..batch * image)
                .map(|i| {
                    let (b, inside) = at(i);
                    let shut = masked == 1 && residual[b * more + inside] <= 0.0;
                    if shut { 0.0 } else { x[i] }
                })
                .collect();
            let mut sums = vec![0f64; channels];
            let mut sizes = vec![0f64; channels];
            for (i, v) in expected.iter().enumerate() {
                sums[at(i).1 / positions] += f64::from(*v);
                sizes[at(i).1 / positions] += f64::from(v.abs());
            }
            if expected.iter().any(|v| *v != 0.0) {
                close(&what, &found[0], &expected, run.tolerance());
            }
            for (channel, found) in found[1].iter().enumerate() {
                let error = (f64::from(*found) - sums[channel]).abs();
                assert!(error <= 2e-6 * sizes[channel], "{what}: bias {channel}");
            }
        }
    }
}

/// With the patches a convolution is a product: the CPU's convolution by a unit weight picks one row of them.
#[test]
fn patches_and_their_adjoint() {
    // Batch, channels, height, width, kernel, stride, padding.
    for (batch, c, h, w, kernel, stride, padding) in [
        (1, 2, 5, 7, 3, 1, 1),
        (7, 3, 4, 4, 1, 1, 0),
        (2, 2, 9, 6, 3, 2, 1),
        (1, 1, 8, 8, 7, 2, 3),
    ] {
        let run = F32_RUNS[0];
        let (out_h, out_w) = (
            (h + 2 * padding - kernel) / stride + 1,
            (w + 2 * padding - kernel) / stride + 1,
        );
        let (rows, plane) = (c * kernel * kernel, out_h * out_w);
        let x = noise(1, batch * (c + 1) * h * w, 1.0);
        let x_image = (c + 1) * h * w;
        let numbers = [
            batch, c, h, w, kernel, kernel, stride, padding, out_h, out_w, x_image,
        ];
        let numbers = numbers.map(|n| n as f64);
        let Some(columns) = run.kernel("patches", &numbers, &[&x]) else {
            return;
        };
        let input = tensor(&x, &[batch, c + 1, h, w]).narrow(1, 0, c).unwrap();
        let unit: Vec<f32> = (0..rows * rows)
            .map(|i| f32::from(i % (rows + 1) == 0))
            .collect();
        let unit = tensor(&unit, &[rows, c, kernel, kernel]);
        let expected = conv::conv2d(&input, &unit, None, stride, padding).unwrap();
        close("patches", &columns[0], &values(&expected), 2e-5);
        let dy = noise(2, batch * rows * plane, 1.0);
        let found = run.kernel("patches-backward", &numbers, &[&dy]).unwrap();
        let dy = tensor(&dy, &[batch, rows, out_h, out_w]);
        let expected = conv2d_backward(&input, &unit, &dy, stride, padding, None, true).unwrap();
        close(
            "adjoint",
            &found[0],
            &values(&expected.input.unwrap()),
            2e-5,
        );
    }
}

#[test]
fn the_stems_pool() {
    for (shape, run) in SHAPES
        .iter()
        .flat_map(|&shape| RUNS.map(|run| (shape, run)))
    {
        let (batch, channels, height, width) = shape;
        let x = run.stored(&noise(1, batch * channels * height * width, 1.0));
        let numbers = [batch * channels, height, width].map(|n| n as f64);
        let Some(found) = run.kernel("pool", &numbers, &[&x]) else {
            return;
        };
        let expected = max_pool_3x3_s2_p1(&tensor(&x, &[batch, channels, height, width])).unwrap();
        assert_eq!(found[0], values(&expected), "{shape:?}");
    }
}

/// The kinds in the order of map.h's `Kind`.
fn maps_of(z: &Tensor) -> [Tensor; 3] {
    let nll = map::negative_log_likelihood(z).unwrap();
    let exponential = map::exponential(&nll).unwrap();
    [nll, exponential, map::probability(z).unwrap()]
}

#[test]
fn maps_of_positions() {
    for (shape, run) in SHAPES
        .iter()
        .flat_map(|&shape| RUNS.map(|run| (shape, run)))
    {
        let (batch, channels, height, width) = shape;
        let z = run.stored(&noise(1, batch * (channels + 1) * height * width, 3.0));
        let tensor = tensor(&z, &[batch, channels + 1, height, width]);
        let expected = maps_of(&tensor.narrow(1, 0, channels).unwrap());
        for (kind, expected) in expected.iter().enumerate() {
            let positions = height * width;
            let numbers = [kind, batch, channels, positions, (channels + 1) * positions];
            let numbers = numbers.map(|n| n as f64);
            let Some(found) = run.kernel("positions", &numbers, &[&z]) else {
                return;
            };
            close(
                &format!("{shape:?} {kind}"),
                &found[0],
                &values(expected),
                2e-5,
            );
        }
    }
}

#[test]
fn whole_anomaly_maps() {
    // Batch, output, then (channels, height, width) a scale.
    type Scales = Vec<(usize, usize, usize)>;
    let cases: [(usize, usize, usize, Scales); 4] = [
        (1, 64, 64, vec![(6, 16, 16), (12, 8, 8), (20, 4, 4)]),
        (7, 40, 33, vec![(5, 10, 9)]),
        (2, 33, 70, vec![(4, 7, 13), (9, 3, 6)]),
        (1, 20, 24, vec![(3, 1, 1), (2, 37, 29)]),
    ];
    for (case, run) in cases.iter().flat_map(|case| RUNS.map(|run| (case, run))) {
        let (batch, height, width, scales) = case;
        for kind in 0..3 {
            let mut numbers = [kind, *batch, *height, *width, scales.len(), 32 * 40]
                .map(|n| n as f64)
                .to_vec();
            let mut latents = Vec::new();
            let mut expected = Tensor::zeros(
                (*batch, *height, *width),
                candle_core::DType::F32,
                &Device::Cpu,
            )
            .unwrap();
            for (k, &(c, h, w)) in scales.iter().enumerate() {
                let z = run.stored(&noise(k as u64, batch * c * h * w, 3.0));
                let (shift, factor) = (0.25 * k as f64, 1.0 / (k + 2) as f64);
                numbers.extend([c as f64, h as f64, w as f64, shift, factor]);
                let map = &maps_of(&tensor(&z, &[*batch, c, h, w]))[kind];
                let map = map::upsample_bilinear(map, *height, *width).unwrap();
                expected = (expected + ((map - shift).unwrap() * factor).unwrap()).unwrap();
                latents.push(z);
            }
            let inputs: Vec<&[f32]> = latents.iter().map(Vec::as_slice).collect();
            let Some(found) = run.kernel("anomaly-map", &numbers, &inputs) else {
                return;
            };
            close(
                &format!("{case:?} {kind}"),
                &found[0],
                &values(&expected),
                2e-5,
            );
        }
    }
}

#[test]
fn resampling_and_scores() {
    for (run, (h, w, out_h, out_w)) in F32_RUNS.iter().zip([(5, 7, 16, 9), (9, 8, 4, 30)]) {
        let maps = noise(1, 7 * h * w, 1.0);
        let numbers = [7, h, w, out_h, out_w].map(|n| n as f64);
        let Some(found) = run.kernel("upsample", &numbers, &[&maps]) else {
            return;
        };
        let expected = map::upsample_bilinear(&tensor(&maps, &[7, h, w]), out_h, out_w).unwrap();
        close("upsample", &found[0], &values(&expected), 2e-5);
    }
    for (size, k) in [(1, 1), (1000, 1), (1000, 7), (333, 333), (64, 10)] {
        // Many equal values, so that the bound is among them.
        let maps: Vec<f32> = noise(2, 3 * size, 4.0)
            .iter()
            .map(|v| v.round() - 0.5)
            .collect();
        let numbers = [3.0, size as f64, k as f64];
        let found = F32_RUNS[0].kernel("score", &numbers, &[&maps]).unwrap();
        for (image, score) in maps.chunks_exact(size).zip(&found[0]) {
            let mut sorted = image.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let expected = sorted[..k].iter().sum::<f32>() / k as f32;
            assert!(
                (score - expected).abs() < 1e-5,
                "{size} {k}: {score} {expected}"
            );
        }
    }
}

#[test]
fn the_optimizers_steps() {
    let size = 1001;
    let start = noise(1, size, 1.0);
    let gradients: Vec<Vec<f32>> = (2..5).map(|seed| noise(seed, size, 10.0)).collect();
    let images = 7.0;
    for clip in [0.0, 1e9, 0.5] {
        let numbers = [size as f64, images, clip, 1e-2, 1e-1];
        let losses = [3.0, 2.0, 1.0];
        let inputs: [&[f32]; 5] = [&start, &losses, &gradients[0], &gradients[1], &gradients[2]];
        let Some(found) = F32_RUNS[0].kernel("adam", &numbers, &inputs) else {
            return;
        };
        let var = candle_core::Var::from_vec(start.clone(), size, &Device::Cpu).unwrap();
        let config = AdamConfig {
            learning_rate: 1e-2,
            weight_decay: 1e-1,
            ..AdamConfig::default()
        };
        let mut adam = Adam::new(vec![("p".into(), var.clone())], config).unwrap();
        let mut norms = 0.0;
        for gradient in &gradients {
            let squares: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum();
            let norm = squares.sqrt() / images;
            norms += norm;
            let factor = if clip > 0.0 && norm > clip {
                clip / norm
            } else {
                1.0
            };
            adam.step(std::slice::from_ref(gradient), (factor / images) as f32)
                .unwrap();
        }
        close("parameter", &found[0], &values(var.as_tensor()), 2e-5);
        let control = &found[1];
        assert_eq!((control[1], control[3], control[4]), (6.0, 3.0, 0.0));
        assert!((f64::from(control[2]) - norms).abs() < 1e-4 * norms);
    }
    // A loss that is not a number stops everything from its step on.
    let numbers = [size as f64, images, 0.0, 1e-2, 0.0];
    let losses = [f32::NAN, 2.0, 1.0];
    let inputs: [&[f32]; 5] = [&start, &losses, &gradients[0], &gradients[1], &gradients[2]];
    let found = F32_RUNS[0].kernel("adam", &numbers, &inputs).unwrap();
    assert_eq!(found[0], start);
    assert_eq!((found[1][3], found[1][4]), (0.0, 1.0));
}
