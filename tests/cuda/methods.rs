//! Nearest neighbours, and what each method that is fitted in closed form, or learns by candle's gradients, makes of
//! features.

use candle_core::{Device, Tensor};
use candle_fastflow::estimators::{
    EstimatorConfig, FitWith, Fitting,
    differnet::DifferNetConfig,
    gaussian::PaDiMConfig,
    memory::{Grid, Metric, PatchCoreConfig, Precision, SpadeConfig},
};
use candle_fastflow::features::{FeatureStore, FeatureWriter};
use candle_fastflow::kernels::{FeatureShape, nearest::Memory};

use super::{Input, MANY, ONE, on_both};

#[test]
fn nearest_neighbours() {
    for (rows, queries, channels, k) in [(1, 1, 1, 1), (300, 70, 33, 1), (257, 19, 64, 9)] {
        let name = format!("{k} nearest of {rows}");
        on_both(&name, ONE, |input| {
            let memory = Memory::new(&input(&[rows, channels], 1.0)).unwrap();
            let found = memory.k_nearest(&input(&[queries, channels], 2.0), k);
            let (squares, nearest) = found.unwrap();
            let nearest: Vec<f32> = nearest.iter().map(|&row| 1.0 + row as f32).collect();
            let tensor = |values: Vec<f32>| {
                let count = values.len();
                Tensor::from_vec(values, count, &Device::Cpu).unwrap()
            };
            vec![tensor(squares), tensor(nearest)]
        });
    }
}

fn store(shapes: &[FeatureShape], images: usize, seed: f64) -> FeatureStore {
    let folder = std::env::temp_dir();
    let mut writer = FeatureWriter::new(shapes.to_vec(), images, u64::MAX, &folder).unwrap();
    for image in 0..images {
        let map = |(scale, s): (usize, &FeatureShape)| {
            let seed = seed + (100 * image + scale) as f64;
            super::wave(&[1, s.channels, s.height, s.width], seed, &Device::Cpu)
        };
        let maps: Vec<Tensor> = shapes.iter().enumerate().map(map).collect();
        writer.push(&maps).unwrap();
    }
    writer.finish().unwrap()
}

/// Fitted on the CPU's features, where the features of every run lie, to inspect where the input is.
fn inspected(config: &EstimatorConfig, shapes: &[FeatureShape], input: Input) -> Vec<Tensor> {
    use candle_fastflow::estimators::FeatureSource as _;
    let device = input(&[1], 0.0).device().clone();
    let normal = store(shapes, 6, 1.0);
    let estimator = match config.fitting() {
        Fitting::Closed(method) => {
            let mut with = FitWith {
                seed: 3,
                device: &device,
                parent: None,
                progress: &mut |_, _| true,
            };
            method.fit(&normal, &mut with).unwrap()
        }
        Fitting::Gradient(method) => {
            let mut model = method.init(shapes, 3, &device).unwrap();
            model.prepare(&normal).unwrap();
            model
        }
        Fitting::Members(_) => panic!("ensembles are their members"),
    };
    let photos = store(shapes, 2, 7.5).batch(&[0, 1], &device).unwrap();
    let maps = estimator.native_maps(&photos, &config.scoring()).unwrap();
    let on_cpu = |map: &Tensor| map.to_device(&Device::Cpu).unwrap();
    maps.pixel.iter().chain(&maps.scores).map(on_cpu).collect()
}

#[test]
fn methods() {
    let shape = |channels, height, width| FeatureShape {
        channels,
        height,
        width,
    };
    let pyramid = [shape(6, 8, 6), shape(9, 4, 3)];
    let turned = [[shape(5, 6, 6); 4], [shape(5, 3, 3); 4]].concat();
    let patchcore = PatchCoreConfig {
        memory: 100,
        ..PatchCoreConfig::default()
    };
    let cosine = PatchCoreConfig {
        metric: Metric::Cosine,
        density: 3,
        normalised: true,
        ..patchcore.clone()
    };
    let coarse = PatchCoreConfig {
        grid: Grid::Coarsest,
        ..patchcore.clone()
    };
    let spade = SpadeConfig {
        photos: 3,
        precision: Precision::F16,
    };
    let differnet = DifferNetConfig {
        hidden: 16,
        inputs: 2,
        ..DifferNetConfig::default()
    };
    for (config, shapes) in [
        (EstimatorConfig::PatchCore(patchcore), &pyramid[..]),
        (EstimatorConfig::PatchCore(cosine), &pyramid),
        (EstimatorConfig::PatchCore(coarse), &pyramid),
        (EstimatorConfig::PaDiM(PaDiMConfig::new(7)), &pyramid),
        (EstimatorConfig::Spade(spade), &pyramid),
        (EstimatorConfig::Mahalanobis(Default::default()), &pyramid),
        (EstimatorConfig::DifferNet(differnet), &turned),
    ] {
        on_both(config.title(), MANY, |input| {
            inspected(&config, shapes, input)
        });
    }
}
