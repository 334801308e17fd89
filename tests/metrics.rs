//! Metrics against scikit-learn's and anomalib's numbers (tests/fixtures/metrics/make.py).
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use candle_fastflow::metrics::{
    BinnedPixels, DefectivePixels, Interval, Ranking, Resampling, bootstrap, bootstrap_pixels,
    regions,
};
use candle_fastflow::{Error, Result};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/metrics")
        .join(name)
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("expected.json")).unwrap()).unwrap()
}

struct Map {
    scores: Vec<f32>,
    mask: Vec<bool>,
}

const WIDTH: usize = 31;

fn maps() -> Vec<Map> {
    let read = |name: &str| {
        Tensor::read_npy(fixture(name))
            .unwrap()
            .flatten_from(1)
            .unwrap()
    };
    let scores: Vec<Vec<f32>> = read("maps.npy").to_vec2().unwrap();
    let masks: Vec<Vec<u8>> = read("masks.npy")
        .to_dtype(DType::U8)
        .unwrap()
        .to_vec2()
        .unwrap();
    let pairs = scores.into_iter().zip(masks);
    pairs
        .map(|(scores, mask)| Map {
            scores,
            mask: mask.iter().map(|&m| m == 1).collect(),
        })
        .collect()
}

fn rank(maps: &[Map]) -> Result<Ranking> {
    let mut first = DefectivePixels::new();
    for map in maps {
        first.add(&map.scores, &map.mask, WIDTH)?;
    }
    let second = first.finish();
    for map in maps {
        second.add(&map.scores, &map.mask)?;
    }
    second.finish()
}

fn agrees(ranking: &Ranking, expected: &Value) {
    let f1 = ranking.f1_max();
    for (name, found) in [
        ("auroc", ranking.auroc()),
        ("average_precision", ranking.average_precision()),
        ("f1_max", f1.value),
        ("f1_threshold", f1.threshold),
        ("recall_at_0", ranking.recall_at_fpr(0.0)),
        ("recall_at_1", ranking.recall_at_fpr(0.01)),
        ("recall_at_5", ranking.recall_at_fpr(0.05)),
    ] {
        let reference = expected[name].as_f64().unwrap();
        assert!(
            (found - reference).abs() < 1e-12,
            "{name}: {found}, scikit-learn {reference}"
        );
    }
}

#[test]
fn image_metrics_are_scikit_learns() {
    let images = &expected()["images"];
    let scores: Vec<f64> = serde_json::from_value(images["scores"].clone()).unwrap();
    let defective: Vec<bool> = serde_json::from_value(images["defective"].clone()).unwrap();
    let ranking = Ranking::new(&scores, &defective).unwrap();
    assert_eq!((ranking.defective(), ranking.normal()), (30, 60));
    agrees(&ranking, &images["expected"]);
}

#[test]
fn pixel_metrics_are_scikit_learns() {
    agrees(&rank(&maps()).unwrap(), &expected()["pixels"]);
}

#[test]
fn aupro_is_the_papers() {
    let pixels = &expected()["pixels"];
    for (map, count) in maps().iter().zip(pixels["regions"].as_array().unwrap()) {
        assert_eq!(
            regions(&map.mask, WIDTH).unwrap().len() as u64,
            count.as_u64().unwrap()
        );
    }
    let ranking = rank(&maps()).unwrap();
    for limit in [0.05, 0.3, 1.0] {
        let reference = pixels[format!("aupro_{limit:?}")].as_f64().unwrap();
        let found = ranking.aupro(limit);
        assert!(
            (found - reference).abs() < 1e-12,
            "to {limit}: {found}, NumPy {reference}"
        );
    }
}

#[test]
fn curves_enclose_the_areas() {
    let ranking = rank(&maps()).unwrap();
    let area = |curve: &[[f64; 2]]| -> f64 {
        curve
            .windows(2)
            .map(|w| (w[1][0] - w[0][0]) * (w[1][1] + w[0][1]) / 2.0)
            .sum()
    };
    assert!((area(&ranking.roc(usize::MAX)) - ranking.auroc()).abs() < 1e-12);
    assert!((area(&ranking.pro(usize::MAX)) - ranking.aupro(1.0)).abs() < 1e-12);
    let thinned = ranking.roc(50);
    assert!(thinned.len() <= 102 && (area(&thinned) - ranking.auroc()).abs() < 0.02);
    assert_eq!(
        (thinned[0], *thinned.last().unwrap()),
        ([0.0, 0.0], [1.0, 1.0])
    );
}

#[test]
fn regions_touch_at_corners_but_not_around_the_edge() {
    #[rustfmt::skip]
    let mask = [
        1, 0, 0, 0, 1,
        0, 1, 0, 0, 1,
        0, 0, 0, 0, 0,
        1, 0, 0, 0, 1,
    ];
    let mask: Vec<bool> = mask.iter().map(|&m| m == 1).collect();
    assert_eq!(
        regions(&mask, 5).unwrap(),
        [vec![0, 6], vec![4, 9], vec![15], vec![19]]
    );
    assert!(regions(&[], 5).unwrap().is_empty());
}

#[test]
fn extreme_orders_have_the_obvious_values() {
    let labels = [false, false, true, true];
    let rank = |scores: [f64; 4]| Ranking::new(&scores, &labels).unwrap();
    assert_eq!(rank([0.0, 1.0, 2.0, f64::INFINITY]).auroc(), 1.0);
    assert_eq!(rank([2.0, 3.0, 0.0, 1.0]).auroc(), 0.0);
    let equal = rank([5.0; 4]);
    assert_eq!((equal.auroc(), equal.average_precision()), (0.5, 0.5));
    assert_eq!(
        (equal.recall_at_fpr(0.0), equal.recall_at_fpr(1.0)),
        (0.0, 1.0)
    );
    // Zero and minus zero are the same score.
    assert_eq!(rank([0.0, 0.0, -0.0, -0.0]).auroc(), 0.5);
    // Scores far apart in size keep their order: nothing is rounded or clamped.
    assert_eq!(rank([1e300, 1e-300, 2e300, 2e-300]).auroc(), 0.75);
}

#[test]
fn scores_that_cannot_be_ranked_are_refused() {
    let fails = |result: Result<Ranking>, says: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Metric { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    };
    fails(
        Ranking::new(&[1.0, f64::NAN], &[true, false]),
        "image metrics: score 1 of 2 is not a number",
    );
    fails(
        Ranking::new(&[1.0, 2.0], &[true, true]),
        "nothing is normal",
    );
    fails(
        Ranking::new(&[1.0, 2.0], &[false, false]),
        "nothing is defective",
    );
    fails(Ranking::new(&[], &[]), "nothing is defective");
    fails(Ranking::new(&[1.0], &[]), "1 scores but 0 labels");

    let map = |mask: bool, at: usize, score: f32| {
        let mut scores = vec![0.5; WIDTH];
        scores[at] = score;
        let mut marked = vec![mask; WIDTH];
        marked[0] = true;
        vec![Map {
            scores,
            mask: marked,
        }]
    };
    fails(
        rank(&map(false, 0, f32::NAN)),
        "pixel metrics: a score is not a number",
    );
    fails(
        rank(&map(false, 9, f32::NAN)),
        "pixel metrics: a score is not a number",
    );
    fails(rank(&map(true, 0, 1.0)), "pixel metrics: nothing is normal");
    fails(rank(&[]), "pixel metrics: nothing is defective");
    assert!(
        DefectivePixels::new()
            .add(&[0.0; 4], &[false; 3], 3)
            .is_err()
    );
    assert!(
        DefectivePixels::new()
            .add(&[0.0; 4], &[false; 4], 3)
            .is_err()
    );
    assert!(
        DefectivePixels::new()
            .finish()
            .add(&[0.0; 4], &[false; 3])
            .is_err()
    );
}

#[test]
fn the_bootstrap_interval_covers_and_narrows() {
    let draw = |count: usize| -> (Vec<f64>, Vec<bool>) {
        (0..count)
            .map(|i| {
                (
                    ((i * 7919) % 1000) as f64 / 1000.0 + 0.3 * f64::from(i % 3 == 0),
                    i % 3 == 0,
                )
            })
            .unzip()
    };
    let interval = |count: usize, seed: u64| {
        let (scores, labels) = draw(count);
        let [found] = bootstrap(&scores, &labels, [Ranking::auroc], draws(400, seed)).unwrap();
        let auroc = Ranking::new(&scores, &labels).unwrap().auroc();
        assert!(found.low < auroc && auroc < found.high, "{found:?} {auroc}");
        found
    };
    let (few, many) = (interval(60, 1), interval(900, 1));
    // Fifteen times the images: about a quarter of the width.
    let ratio = (many.high - many.low) / (few.high - few.low);
    assert!((0.15..0.4).contains(&ratio), "{ratio}");
    assert_eq!(few, interval(60, 1));
    assert_ne!(few, interval(60, 2));
    let of = |labels: [bool; 2], count| {
        bootstrap(&[0.0, 1.0], &labels, [Ranking::auroc], draws(count, 0))
    };
    assert!(of([false, true], 9).is_ok());
    assert!(of([false, true], 0).is_err() && of([true, true], 9).is_err());
}

fn draws(draws: usize, seed: u64) -> Resampling {
    Resampling {
        draws,
        level: 0.95,
        seed,
    }
}

/// Area under the ROC curve, AUPRO and average precision, each exact and with its interval.
fn pixels_with_intervals(maps: &[Map], bins: usize, seed: u64) -> [(f64, Interval); 3] {
    let of = |map: &Map| {
        let mut first = DefectivePixels::new();
        first.add(&map.scores, &map.mask, WIDTH).unwrap();
        first
    };
    let each: Vec<DefectivePixels> = maps.iter().map(of).collect();
    let mut all = DefectivePixels::new();
    each.iter().for_each(|one| all.append(one));
    let second = all.finish();
    let bins = second.bins(bins);
    let binned: Vec<BinnedPixels> = maps
        .iter()
        .zip(&each)
        .map(|(map, marked)| {
            let found = second.add_binned(&map.scores, &map.mask, Some(marked), &bins);
            found.unwrap()
        })
        .collect();
    let figures: [fn(&Ranking) -> f64; 3] =
        [Ranking::auroc, |r| r.aupro(0.3), Ranking::average_precision];
    let all: Vec<&BinnedPixels> = binned.iter().collect();
    let intervals = bootstrap_pixels(&all, figures, draws(200, seed)).unwrap();
    let exact = second.finish().unwrap();
    std::array::from_fn(|i| (figures[i](&exact), intervals[i]))
}

#[test]
fn pixel_intervals_lie_around_the_exact_figures() {
    let maps = maps();
    let found = pixels_with_intervals(&maps, 512, 3);
    for (exact, interval) in found {
        assert!(
            interval.low < exact && exact < interval.high,
            "{interval:?} {exact}"
        );
    }
    assert_eq!(found, pixels_with_intervals(&maps, 512, 3));
    assert_ne!(found, pixels_with_intervals(&maps, 512, 4));
}

/// Where all good images are one and the same and all defective ones too, every draw is the test set.
#[test]
fn pixel_intervals_of_copies_are_the_figure() {
    let maps = maps();
    let of_kind = |defective: bool| {
        let is = |map: &&Map| map.mask.contains(&true) == defective;
        let Map { scores, mask } = maps.iter().find(is).unwrap();
        let copy = || Map {
            scores: scores.clone(),
            mask: mask.clone(),
        };
        std::iter::repeat_with(copy).take(4)
    };
    let copies: Vec<Map> = of_kind(false).chain(of_kind(true)).collect();
    for (exact, interval) in pixels_with_intervals(&copies, 512, 0) {
        assert_eq!(interval.low, interval.high);
        // What binning moves.
        assert!((interval.low - exact).abs() < 0.005, "{interval:?} {exact}");
    }
}

#[test]
#[ignore = "prints timings; run alone, with --nocapture"]
fn ten_million_pixels() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let maps: Vec<Map> = (0..10)
        .map(|_| Map {
            scores: (0..1_000_000)
                .map(|_| -(0.5 + 0.1 * rng.random::<f32>()))
                .collect(),
            mask: (0..1_000_000).map(|i| i % 1000 < 100).collect(),
        })
        .collect();
    let start = std::time::Instant::now();
    let mut first = DefectivePixels::new();
    maps.iter()
        .for_each(|m| first.add(&m.scores, &m.mask, 1000).unwrap());
    let second = first.finish();
    println!("first pass {:?}", start.elapsed());
    maps.iter()
        .for_each(|m| second.add(&m.scores, &m.mask).unwrap());
    let ranking = second.finish().unwrap();
    println!("both passes {:?}", start.elapsed());
    println!(
        "auroc {} aupro {} f1 {:?}",
        ranking.auroc(),
        ranking.aupro(0.3),
        ranking.f1_max()
    );
    println!("all {:?}", start.elapsed());
}

/// Counting the normal images once, for all classes, is the same as evaluating each class alone.
#[test]
fn classes_take_over_the_counts_of_normal_images() {
    let maps = maps();
    let (good, defective): (Vec<&Map>, Vec<&Map>) =
        maps.iter().partition(|map| !map.mask.contains(&true));
    assert!(good.len() > 1 && defective.len() > 3);
    let seen = |maps: &[&Map]| {
        let mut first = DefectivePixels::new();
        for map in maps {
            first.add(&map.scores, &map.mask, WIDTH).unwrap();
        }
        first
    };
    let all = seen(&defective).finish();
    for map in &good {
        all.add(&map.scores, &map.mask).unwrap();
    }
    for class in [&defective[..2], &defective[2..], &defective[..1]] {
        let shared = seen(class).finish();
        shared.add_counts_of(&all).unwrap();
        let alone = seen(class).finish();
        for map in &good {
            alone.add(&map.scores, &map.mask).unwrap();
        }
        for map in class {
            shared.add(&map.scores, &map.mask).unwrap();
            alone.add(&map.scores, &map.mask).unwrap();
        }
        assert_eq!(shared.finish().unwrap(), alone.finish().unwrap());
    }
    // A pixel that the finer ranking has not seen has no place in it.
    let mut foreign = DefectivePixels::new();
    foreign.add(&[1e9], &[true], 1).unwrap();
    assert!(foreign.finish().add_counts_of(&all).is_err());
}
