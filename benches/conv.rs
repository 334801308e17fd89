//! Single convolutions of FastFlow on ResNet18: inference of prepared weights, and a training step's
//! forward and backward. `benches/peers.py` runs this beside PyTorch, ONNX Runtime and OpenVINO.

use candle_core::{Device, Tensor};
use candle_fastflow::kernels::conv::{PreparedConv, conv2d_backward, conv2d_fused};
use criterion::{Criterion, criterion_group, criterion_main};

/// Input channels, output channels, map side, kernel, stride, padding; peers.py has the same list.
const LAYERS: &[(usize, usize, usize, usize, usize, usize)] = &[
    (64, 64, 64, 3, 1, 1),
    (128, 128, 32, 3, 1, 1),
    (256, 256, 16, 3, 1, 1),
    (32, 64, 64, 3, 1, 1),
    (64, 128, 32, 3, 1, 1),
    (128, 256, 16, 3, 1, 1),
    (64, 64, 64, 1, 1, 0),
    (64, 128, 64, 3, 2, 1),
    (3, 64, 256, 7, 2, 3),
];

fn random(shape: &[usize]) -> Tensor {
    Tensor::rand(-1f32, 1f32, shape, &Device::Cpu).expect("a small tensor")
}

fn inference(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("infer");
    for &(input, output, side, kernel, stride, padding) in LAYERS {
        let x = random(&[1, input, side, side]);
        let (w, b) = (random(&[output, input, kernel, kernel]), random(&[output]));
        let conv = PreparedConv::new(&w, Some(&b), stride, padding).expect("shapes that fit");
        group.bench_function(
            format!("{input}-{output}-{side}-k{kernel}-s{stride}"),
            |bencher| {
                bencher.iter(|| conv.forward(&x, None, true).expect("shapes that fit"));
            },
        );
    }
}

fn training(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train");
    group.sample_size(10);
    for &(input, output, side, kernel, stride, padding) in LAYERS {
        if stride > 1 {
            continue;
        }
        let x = random(&[8, input, side, side]);
        let (w, b) = (random(&[output, input, kernel, kernel]), random(&[output]));
        let dy = random(&[8, output, side, side]);
        group.bench_function(
            format!("{input}-{output}-{side}-k{kernel}-s{stride}"),
            |bencher| {
                bencher.iter(|| {
                    let y = conv2d_fused(&x, &w, Some(&b), stride, padding, None, true);
                    let y = y.expect("shapes that fit");
                    conv2d_backward(&x, &w, &dy, stride, padding, Some(&y), true)
                        .expect("shapes that fit")
                });
            },
        );
    }
}

criterion_group!(benches, inference, training);
criterion_main!(benches);
