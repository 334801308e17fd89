//! Features of the paper's transformers, one image; benches/vit.py runs PyTorch beside it.

use candle_core::{Device, Tensor};
use candle_fastflow::backbones;
use criterion::{Criterion, criterion_group, criterion_main};

/// The backbones to time, by default the paper's two.
fn ids() -> Vec<String> {
    let ids = std::env::var("FASTFLOW_BENCH_BACKBONES").unwrap_or_default();
    if ids.is_empty() {
        return vec![
            "deit_base_distilled_patch16_384".into(),
            "cait_m48_448".into(),
        ];
    }
    ids.split(',').map(str::to_owned).collect()
}

fn features(criterion: &mut Criterion) {
    for id in ids() {
        let backbone = backbones::load_random(&id, 0, &Device::Cpu).expect("a known backbone");
        let input = &backbone.info().preprocessing;
        let shape = (1, 3, input.height, input.width);
        let image = Tensor::rand(-1f32, 1., shape, &Device::Cpu).expect("random pixels");
        criterion.bench_function(&id, |bencher| {
            bencher.iter(|| backbone.features(&image).expect("features"));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = features
}
criterion_main!(benches);
