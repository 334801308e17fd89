//! Convolution and its gradients against plain f64 loops, on shapes that hit every edge.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};

use super::*;

mod grouped;

/// The bound of the largest error relative to the largest reference value.
const TOLERANCE: f64 = 2e-5;

/// One case: batch, channels, height, width, out channels, kernel, stride, padding.
type Case = (
    usize,
    usize,
    usize,
    usize,
    usize,
    (usize, usize),
    usize,
    usize,
);

const CASES: &[Case] = &[
    (1, 1, 5, 7, 1, (3, 3), 1, 1),
    (7, 3, 9, 6, 5, (3, 3), 1, 1),
    (2, 16, 17, 13, 24, (3, 3), 1, 1),
    (1, 64, 33, 31, 32, (3, 3), 1, 1),
    (7, 33, 4, 4, 17, (3, 3), 1, 1),
    (1, 40, 1, 1, 8, (3, 3), 1, 1),
    (3, 24, 16, 16, 24, (3, 3), 1, 1),
    (1, 600, 8, 6, 16, (3, 3), 1, 1),
    (2, 9, 11, 10, 17, (3, 3), 1, 2),
    (1, 12, 9, 11, 10, (3, 3), 1, 0),
    (5, 8, 13, 30, 8, (3, 3), 1, 1),
    (2, 5, 8, 9, 4, (1, 1), 1, 0),
    (7, 96, 15, 15, 40, (1, 1), 1, 0),
    (2, 12, 14, 11, 20, (1, 1), 2, 0),
    (1, 3, 37, 29, 16, (7, 7), 2, 3),
    (2, 8, 16, 15, 12, (3, 3), 2, 1),
    (1, 6, 9, 10, 7, (3, 3), 1, 0),
    (1, 4, 6, 9, 3, (2, 4), 1, 1),
    (2, 3, 7, 5, 3, (1, 1), 1, 1),
    (1, 2, 40, 3, 2, (5, 5), 3, 2),
];

/// A reproducible tensor of values in [-1, 1).
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    flat.into_iter().map(f64::from).collect()
}

fn assert_close(what: &str, found: &Tensor, expected: &[f64]) {
    let found = values(found);
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0f64, |max, v| max.max(v.abs()));
    assert!(scale > 0.0, "{what}: the reference is all zero");
    let worst = found
        .iter()
        .zip(expected)
        .fold(0f64, |max, (a, b)| max.max((a - b).abs()));
    assert!(
        worst <= TOLERANCE * scale,
        "{what}: error {:e}",
        worst / scale
    );
}

/// Calls `visit(y index, x index, w index)` for every product of a convolution.
fn each_product(g: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    for (b, o) in (0..g.batch).flat_map(|b| (0..g.out_channels).map(move |o| (b, o))) {
        for (oy, ox) in (0..g.out_h).flat_map(|y| (0..g.out_w).map(move |x| (y, x))) {
            for c in 0..g.in_channels {
                for (ky, kx) in (0..g.kernel_h).flat_map(|y| (0..g.kernel_w).map(move |x| (y, x))) {
                    let (iy, ix) = (oy * g.stride + ky, ox * g.stride + kx);
                    let inside = |i: usize, size| i >= g.padding && i < size + g.padding;
                    if inside(iy, g.in_h) && inside(ix, g.in_w) {
                        let (iy, ix) = (iy - g.padding, ix - g.padding);
                        visit(
                            ((b * g.out_channels + o) * g.out_h + oy) * g.out_w + ox,
                            ((b * g.in_channels + c) * g.in_h + iy) * g.in_w + ix,
                            ((o * g.in_channels + c) * g.kernel_h + ky) * g.kernel_w + kx,
                        );
                    }
                }
            }
        }
    }
}

struct Sample {
    geometry: Geometry,
    x: Tensor,
    w: Tensor,
    b: Tensor,
    residual: Tensor,
    dy: Tensor,
}

/// Inputs of a case; `strided` makes `x` and the others views of the first channels of wider tensors.
fn sample(case: Case, strided: bool) -> Sample {
    let (batch, c, h, w, o, (kh, kw), stride, padding) = case;
    let geometry = Geometry::new(&[batch, c, h, w], &[o, c, kh, kw], stride, padding).unwrap();
    let map = |channels: usize, h, w, seed| {
        if !strided {
            return noise(&[batch, channels, h, w], seed);
        }
        noise(&[batch, channels + 2, h, w], seed)
            .narrow(1, 0, channels)
            .unwrap()
    };
    Sample {
        geometry,
        x: map(c, h, w, 1),
        w: noise(&[o, c, kh, kw], 2),
        b: noise(&[o], 3),
        residual: map(o, geometry.out_h, geometry.out_w, 4),
        dy: map(o, geometry.out_h, geometry.out_w, 5),
    }
}

/// `x * w + b` in f64.
fn reference(s: &Sample) -> Vec<f64> {
    let g = &s.geometry;
    let (x, w, b) = (values(&s.x), values(&s.w), values(&s.b));
    let mut y: Vec<f64> = (0..g.batch * g.out_image())
        .map(|i| b[i / g.out_plane() % g.out_channels])
        .collect();
    each_product(g, |yi, xi, wi| y[yi] += x[xi] * w[wi]);
    y
}

/// Gradients of input, weight and bias in f64.
fn reference_gradients(s: &Sample, dy: &[f64]) -> [Vec<f64>; 3] {
    let g = &s.geometry;
    let (x, w) = (values(&s.x), values(&s.w));
    let (mut dx, mut dw) = (vec![0f64; x.len()], vec![0f64; w.len()]);
    let mut db = vec![0f64; g.out_channels];
    each_product(g, |yi, xi, wi| {
        dx[xi] += dy[yi] * w[wi];
        dw[wi] += dy[yi] * x[xi];
    });
    for (i, d) in dy.iter().enumerate() {
        db[i / g.out_plane() % g.out_channels] += d;
    }
    [dx, dw, db]
}

#[test]
fn forward_matches_f64() {
    for &case in CASES {
        for strided in [false, true] {
            let s = sample(case, strided);
            let Geometry {
                stride, padding, ..
            } = s.geometry;
            let mut expected = reference(&s);
            let y = conv2d(&s.x, &s.w, Some(&s.b), stride, padding).unwrap();
            assert_close(&format!("{case:?}"), &y, &expected);
            assert_eq!(y.dims4().unwrap(), s.geometry.out_shape());
            let bare = conv2d(&s.x, &s.w, None, stride, padding).unwrap();
            let with_bias = bare
                .broadcast_add(&s.b.reshape((1, (), 1, 1)).unwrap())
                .unwrap();
            assert_close(&format!("{case:?} without bias"), &with_bias, &expected);
            for (value, residual) in expected.iter_mut().zip(values(&s.residual)) {
                *value += residual;
            }
            let fused = |relu| {
                let (b, residual) = (Some(&s.b), Some(&s.residual));
                conv2d_fused(&s.x, &s.w, b, stride, padding, residual, relu).unwrap()
            };
            assert_close(&format!("{case:?} residual"), &fused(false), &expected);
            if expected.iter().any(|&value| value > 0.0) {
                expected
                    .iter_mut()
                    .for_each(|value| *value = value.max(0.0));
                assert_close(&format!("{case:?} relu"), &fused(true), &expected);
            }
        }
    }
}

#[test]
fn gradients_match_f64() {
    for &case in CASES {
        for strided in [false, true] {
            let s = sample(case, strided);
            let Geometry {
                stride, padding, ..
            } = s.geometry;
            let got = conv2d_backward(&s.x, &s.w, &s.dy, stride, padding, None, true).unwrap();
            let [dx, dw, db] = reference_gradients(&s, &values(&s.dy));
            assert_close(&format!("{case:?} dx"), &got.input.unwrap(), &dx);
            assert_close(&format!("{case:?} dw"), &got.weight, &dw);
            assert_close(&format!("{case:?} db"), &got.bias, &db);
        }
    }
}

#[test]
fn prepared_weights_give_the_same_bits() {
    for &case in CASES {
        let s = sample(case, true);
        let Geometry {
            stride, padding, ..
        } = s.geometry;
        let (b, residual) = (Some(&s.b), Some(&s.residual));
        let prepared = PreparedConv::new(&s.w, b, stride, padding).unwrap();
        for relu in [false, true] {
            let expected = conv2d_fused(&s.x, &s.w, b, stride, padding, residual, relu).unwrap();
            let found = prepared.forward(&s.x, residual, relu).unwrap();
            assert_eq!(values(&found), values(&expected), "{case:?}");
        }
        let stranger = noise(&[1, case.1 + 1, case.2, case.3], 6);
        assert!(
            prepared.forward(&stranger, None, false).is_err(),
            "{case:?}"
        );
    }
}

#[test]
fn a_nan_stays_one() {
    for case in [CASES[2], CASES[13]] {
        let s = sample(case, false);
        let bias = Tensor::full(f32::NAN, s.b.shape(), &Device::Cpu).unwrap();
        let Geometry {
            stride, padding, ..
        } = s.geometry;
        let y = conv2d_fused(&s.x, &s.w, Some(&bias), stride, padding, None, true).unwrap();
        assert!(values(&y).iter().all(|v| v.is_nan()));
    }
}

#[test]
fn the_relu_mask_stops_gradients() {
    for &case in CASES {
        let s = sample(case, true);
        let Geometry {
            stride, padding, ..
        } = s.geometry;
        let y = conv2d_fused(&s.x, &s.w, Some(&s.b), stride, padding, None, true).unwrap();
        let mut dy = values(&s.dy);
        for (gradient, output) in dy.iter_mut().zip(values(&y)) {
            *gradient *= f64::from(u8::from(output > 0.0));
        }
        let [dx, dw, db] = reference_gradients(&s, &dy);
        let got = conv2d_backward(&s.x, &s.w, &s.dy, stride, padding, Some(&y), true).unwrap();
        assert_close("dx", &got.input.unwrap(), &dx);
        assert_close("dw", &got.weight, &dw);
        assert_close("db", &got.bias, &db);
        let spared = conv2d_backward(&s.x, &s.w, &s.dy, stride, padding, Some(&y), false).unwrap();
        assert!(spared.input.is_none());
        assert_eq!(values(&spared.weight), values(&got.weight));
    }
}

#[test]
fn candle_differentiates_through_it_and_spares_frozen_inputs() {
    let s = sample(CASES[2], false);
    let (x, w, b) = (
        Var::from_tensor(&s.x).unwrap(),
        Var::from_tensor(&s.w).unwrap(),
        Var::from_tensor(&s.b).unwrap(),
    );
    let loss = |x: &Tensor| {
        let y = conv2d(x, &w, Some(&b), 1, 1).unwrap();
        (y * &s.dy).unwrap().sum_all().unwrap()
    };
    let [dx, dw, db] = reference_gradients(&s, &values(&s.dy));
    let store = loss(&x).backward().unwrap();
    assert_close("dx", store.get(&x).unwrap(), &dx);
    assert_close("dw", store.get(&w).unwrap(), &dw);
    assert_close("db", store.get(&b).unwrap(), &db);
    let frozen = loss(&s.x).backward().unwrap();
    assert!(frozen.get(&s.x).is_none());
    assert_close("dw", frozen.get(&w).unwrap(), &dw);
}

#[test]
fn threads_and_batch_do_not_change_a_bit() {
    for &case in CASES {
        let s = sample(case, true);
        let Geometry {
            stride, padding, ..
        } = s.geometry;
        let run = || {
            let y = conv2d(&s.x, &s.w, Some(&s.b), stride, padding).unwrap();
            let g = conv2d_backward(&s.x, &s.w, &s.dy, stride, padding, Some(&y), true).unwrap();
            [y, g.input.unwrap(), g.weight, g.bias].map(|tensor| values(&tensor))
        };
        let all_threads = run();
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            assert_eq!(pool.install(run), all_threads, "{case:?} on {threads}");
        }
        let last = s.x.narrow(0, s.geometry.batch - 1, 1).unwrap();
        let alone = values(&conv2d(&last, &s.w, Some(&s.b), stride, padding).unwrap());
        let image = s.geometry.out_image();
        assert_eq!(
            alone,
            all_threads[0][(s.geometry.batch - 1) * image..],
            "{case:?} alone"
        );
    }
}

#[test]
fn misfits_are_named() {
    let tensor = |shape: &[usize]| noise(shape, 1);
    let (x, w) = (tensor(&[1, 4, 5, 5]), tensor(&[2, 4, 3, 3]));
    assert!(conv2d(&x, &tensor(&[2, 3, 3, 3]), None, 1, 1).is_err());
    assert!(conv2d(&x, &w, Some(&tensor(&[3])), 1, 1).is_err());
    assert!(conv2d(&x, &w, None, 0, 1).is_err());
    assert!(conv2d(&tensor(&[1, 4, 2, 2]), &w, None, 1, 0).is_err());
    let error = conv2d_fused(&x, &w, None, 1, 1, Some(&x), false)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "convolution residual: expected shape [1, 2, 5, 5], found [1, 4, 5, 5]"
    );
}
