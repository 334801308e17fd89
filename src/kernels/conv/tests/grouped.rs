//! Grouped convolutions against plain f64 loops.
#![allow(clippy::unwrap_used)]

use super::*;

/// One case: input, groups, outputs a group, kernel, stride, padding.
type Case = ([usize; 4], usize, usize, (usize, usize), usize, usize);

const CASES: &[Case] = &[
    // depthwise: EfficientNet's and ConvNeXt's, then edges
    ([2, 24, 14, 17], 24, 1, (3, 3), 1, 1),
    ([1, 16, 15, 12], 16, 1, (5, 5), 2, 2),
    ([2, 8, 14, 9], 8, 1, (7, 7), 1, 3),
    ([1, 6, 9, 33], 6, 1, (3, 3), 2, 1),
    ([1, 5, 11, 20], 5, 1, (3, 3), 3, 0),
    ([3, 4, 1, 1], 4, 1, (3, 3), 1, 1),
    ([1, 3, 6, 9], 3, 1, (2, 4), 1, 1),
    ([1, 7, 5, 40], 7, 1, (1, 1), 1, 0),
    // two and three outputs a channel
    ([2, 6, 8, 10], 6, 2, (3, 3), 1, 1),
    ([1, 4, 9, 9], 4, 3, (3, 3), 2, 1),
    // groups of several channels: ResNeXt's, pointwise, strided
    ([2, 32, 12, 11], 8, 4, (3, 3), 1, 1),
    ([1, 12, 9, 7], 3, 5, (1, 1), 1, 0),
    ([2, 12, 13, 10], 2, 9, (3, 3), 2, 1),
    ([1, 10, 8, 8], 5, 1, (3, 3), 1, 1),
];

/// The operands of a case: x, w, bias, residual; the images lie in a wider tensor.
fn operands(case: Case) -> ([Tensor; 4], Geometry) {
    let (x, groups, outputs, (kh, kw), stride, padding) = case;
    let dense = [groups * outputs, x[1], kh, kw];
    let geometry = Geometry::new(&x, &dense, stride, padding).unwrap();
    let wide =
        |[b, c, h, w]: [usize; 4], seed| noise(&[b, c + 2, h, w], seed).narrow(1, 1, c).unwrap();
    let w = noise(&[dense[0], x[1] / groups, kh, kw], 2);
    let (b, o, h, width) = geometry.out_shape();
    let residual = wide([b, o, h, width], 4);
    let operands = [wide(x, 1), w, noise(&[dense[0]], 3), residual];
    (operands, geometry)
}

/// Bias, products, residual and ReLU in f64, straight from the definition.
fn reference([x, w, b, residual]: &[Tensor; 4], g: &Geometry, groups: usize) -> Vec<f64> {
    let (x, w, b, residual) = (values(x), values(w), values(b), values(residual));
    let (inputs, outputs) = (g.in_channels / groups, g.out_channels / groups);
    let pixel = |image: usize, channel: usize, y: usize, column: usize| {
        let y = y.checked_sub(g.padding).filter(|y| *y < g.in_h);
        let column = column.checked_sub(g.padding).filter(|c| *c < g.in_w);
        match (y, column) {
            (Some(y), Some(c)) => x[((image * g.in_channels + channel) * g.in_h + y) * g.in_w + c],
            _ => 0.0,
        }
    };
    let mut out = Vec::new();
    for (index, residual) in residual.iter().enumerate() {
        let (rest, column) = (index / g.out_w, index % g.out_w);
        let (rest, row) = (rest / g.out_h, rest % g.out_h);
        let (image, o) = (rest / g.out_channels, rest % g.out_channels);
        let mut sum = b[o] + residual;
        for c in 0..inputs {
            for (ky, kx) in (0..g.kernel_h).flat_map(|y| (0..g.kernel_w).map(move |x| (y, x))) {
                let weight = w[((o * inputs + c) * g.kernel_h + ky) * g.kernel_w + kx];
                let channel = o / outputs * inputs + c;
                sum += weight * pixel(image, channel, row * g.stride + ky, column * g.stride + kx);
            }
        }
        out.push(sum);
    }
    out
}

#[test]
fn grouped_convolutions_match_f64() {
    for &case in CASES {
        let (all, geometry) = operands(case);
        let (_, groups, _, _, stride, padding) = case;
        let [x, w, b, residual] = &all;
        let conv = PreparedConv::grouped(w, Some(b), stride, padding, groups).unwrap();
        let expected = reference(&all, &geometry, groups);
        let linear = conv.forward(x, Some(residual), false).unwrap();
        assert_eq!(linear.dims4().unwrap(), geometry.out_shape(), "{case:?}");
        assert_close(&format!("{case:?}"), &linear, &expected);
        let rectified: Vec<f64> = expected.iter().map(|v| v.max(0.0)).collect();
        let relu = conv.forward(x, Some(residual), true).unwrap();
        assert_close(&format!("{case:?} relu"), &relu, &rectified);
        let bare = PreparedConv::grouped(w, None, stride, padding, groups).unwrap();
        let added = bare.forward(x, None, false).unwrap();
        let added = added.broadcast_add(&b.reshape((1, (), 1, 1)).unwrap());
        assert_close("bare", &(added.unwrap() + residual).unwrap(), &expected);
    }
}

#[test]
fn threads_and_batch_do_not_change_a_bit_of_a_group() {
    for &case in CASES {
        let ([x, w, b, _], geometry) = operands(case);
        let (_, groups, _, _, stride, padding) = case;
        let conv = PreparedConv::grouped(&w, Some(&b), stride, padding, groups).unwrap();
        let run = |x: &Tensor| values(&conv.forward(x, None, true).unwrap());
        let all = run(&x);
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        assert_eq!(alone.unwrap().install(|| run(&x)), all, "{case:?}");
        let last = x.narrow(0, geometry.batch - 1, 1).unwrap();
        let image = geometry.out_image();
        assert_eq!(run(&last), all[(geometry.batch - 1) * image..], "{case:?}");
    }
}

#[test]
fn one_group_is_the_plain_convolution() {
    let (x, w) = (noise(&[2, 8, 9, 9], 1), noise(&[8, 8, 3, 3], 2));
    let grouped = PreparedConv::grouped(&w, None, 1, 1, 1).unwrap();
    let plain = PreparedConv::new(&w, None, 1, 1).unwrap();
    let run = |conv: &PreparedConv| values(&conv.forward(&x, None, false).unwrap());
    assert_eq!(run(&grouped), run(&plain));
}

#[test]
fn groups_that_do_not_fit_are_refused() {
    let w = noise(&[6, 1, 3, 3], 1);
    for groups in [0, 4] {
        let error = PreparedConv::grouped(&w, None, 1, 1, groups).unwrap_err();
        assert!(error.to_string().contains("groups divide"), "{error}");
    }
    assert!(PreparedConv::grouped(&w, None, 0, 1, 6).is_err());
    assert!(PreparedConv::grouped(&w, Some(&noise(&[5], 1)), 1, 1, 6).is_err());
    for (w, groups) in [(w, 6), (noise(&[6, 2, 3, 3], 1), 3)] {
        let conv = PreparedConv::grouped(&w, None, 1, 1, groups).unwrap();
        assert!(conv.forward(&noise(&[1, 5, 4, 4], 1), None, false).is_err());
        let x = noise(&[1, 6, 4, 4], 1);
        assert!(
            conv.forward(&x, Some(&noise(&[1, 6, 4, 5], 1)), false)
                .is_err()
        );
        assert!(conv.forward(&x, Some(&x), false).is_ok());
    }
}

#[test]
fn a_nan_stays_one_in_its_channel() {
    let w = noise(&[3, 1, 3, 3], 1);
    let bias = Tensor::new(&[0f32, f32::NAN, 0.0], &candle_core::Device::Cpu).unwrap();
    let conv = PreparedConv::grouped(&w, Some(&bias), 1, 1, 3).unwrap();
    let y = conv.forward(&noise(&[1, 3, 4, 4], 2), None, true).unwrap();
    let nans: Vec<bool> = values(&y).iter().map(|v| v.is_nan()).collect();
    assert!(nans[16..32].iter().all(|nan| *nan) && !nans[..16].contains(&true));
}
