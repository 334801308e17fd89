//! Pixel metrics over 10 million pixels, 1 % of them defective: ten maps of 1000 x 1000, both passes and all figures.

use candle_fastflow::metrics::{AUPRO_LIMIT, DefectivePixels};
use criterion::{Criterion, criterion_group, criterion_main};

const SIDE: usize = 1000;

/// Scores without ties, higher where defective, and a square defect of 100 x 100.
fn map(index: usize) -> (Vec<f32>, Vec<bool>) {
    let mut state = index as u32 + 1;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / u32::MAX as f32
    };
    let pixel = |i: usize| (i % SIDE < 100) && (i / SIDE < 100);
    let mask: Vec<bool> = (0..SIDE * SIDE).map(pixel).collect();
    let score = |defective: &bool| uniform() + if *defective { 0.5 } else { 0.0 };
    (mask.iter().map(score).collect(), mask)
}

fn pixels(criterion: &mut Criterion) {
    let maps: Vec<_> = (0..10).map(map).collect();
    criterion.bench_function("metrics/10-megapixels", |bencher| {
        bencher.iter(|| {
            let mut first = DefectivePixels::new();
            for (scores, mask) in &maps {
                first.add(scores, mask, SIDE).expect("sizes fit");
            }
            let second = first.finish();
            for (scores, mask) in &maps {
                second.add(scores, mask).expect("sizes fit");
            }
            let ranking = second.finish().expect("both classes");
            (
                ranking.auroc(),
                ranking.average_precision(),
                ranking.f1_max(),
                ranking.aupro(AUPRO_LIMIT),
            )
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = pixels
}
criterion_main!(benches);
