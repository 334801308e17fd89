#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};

use super::{Memory, plain};

fn wave(rows: usize, channels: usize, step: f32) -> Tensor {
    let value = |i: usize| ((i * i % 1013) as f32 * step).sin() + 0.3 * (i as f32 * step).cos();
    let values: Vec<f32> = (0..rows * channels).map(value).collect();
    Tensor::from_vec(values, (rows, channels), &Device::Cpu).unwrap()
}

/// Every pair by differences in f64: `[Q, k]` squared distances and rows.
fn by_formula(rows: &Tensor, queries: &Tensor, k: usize) -> (Vec<f64>, Vec<u32>) {
    let (rows, queries) = (
        rows.to_vec2::<f32>().unwrap(),
        queries.to_vec2::<f32>().unwrap(),
    );
    let mut found = Vec::new();
    for query in queries {
        let square = |row: &Vec<f32>| -> f64 {
            let gaps = row
                .iter()
                .zip(&query)
                .map(|(a, b)| f64::from(*a) - f64::from(*b));
            gaps.map(|gap| gap * gap).sum()
        };
        let mut all: Vec<(f64, u32)> = rows.iter().map(square).zip(0..).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.extend_from_slice(&all[..k]);
    }
    found.into_iter().unzip()
}

#[test]
fn neighbours_are_those_of_the_formula() {
    for (len, channels, count, k) in [
        (1, 1, 1, 1),
        (17, 5, 3, 4),
        (300, 29, 110, 1),
        (777, 384, 1, 1),
        (1030, 16, 20, 50),
        (40, 300, 4, 40),
    ] {
        let (rows, queries) = (wave(len, channels, 0.7), wave(count, channels, 1.3));
        let memory = Memory::new(&rows).unwrap();
        assert_eq!((memory.len(), memory.channels()), (len, channels));
        let (squares, indices) = memory.k_nearest(&queries, k).unwrap();
        let (expected, order) = by_formula(&rows, &queries, k);
        assert_eq!(squares.len(), count * k);
        for (found, expected) in squares.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() <= 1e-5 * expected);
        }
        let apart = |i: usize| {
            let near = |j: usize| {
                expected
                    .get(j)
                    .is_none_or(|other| (other - expected[i]).abs() > 1e-4)
            };
            near(i.wrapping_sub(1)) && near(i + 1)
        };
        let compared: Vec<usize> = (0..order.len()).filter(|i| k > 1 && apart(*i)).collect();
        for i in if k == 1 {
            (0..order.len()).collect()
        } else {
            compared
        } {
            assert_eq!(indices[i], order[i], "{len} {channels} {count} {k}: {i}");
        }
    }
}

#[test]
fn a_row_is_nothing_away_from_itself_even_far_from_zero() {
    let rows = (wave(600, 64, 0.9) + 100.0).unwrap();
    let (squares, indices) = Memory::new(&rows).unwrap().nearest(&rows).unwrap();
    assert!(squares.iter().all(|square| *square == 0.0));
    assert!(indices.iter().zip(0..).all(|(found, row)| *found == row));
}

#[test]
fn of_equal_rows_the_first_are_found() {
    let rows = wave(90, 24, 0.9);
    let rows = Tensor::cat(&[&rows, &rows, &rows, &rows], 0).unwrap();
    let queries = rows.narrow(0, 90, 90).unwrap();
    let memory = Memory::new(&rows).unwrap();
    let (_, indices) = memory.nearest(&queries).unwrap();
    assert!(indices.iter().zip(0..).all(|(found, row)| *found == row));
    let (squares, indices) = memory.k_nearest(&queries, 3).unwrap();
    assert!(squares.iter().all(|square| *square == 0.0));
    let expected = (0..90).flat_map(|row| [row, row + 90, row + 180]);
    assert_eq!(indices, expected.collect::<Vec<u32>>());
}

#[test]
fn neither_threads_nor_other_queries_change_a_result() {
    let (rows, queries) = (wave(900, 40, 0.7), wave(130, 40, 1.3));
    let memory = Memory::new(&rows).unwrap();
    let all = memory.k_nearest(&queries, 5).unwrap();
    assert_eq!(
        rayon::scope(|_| memory.k_nearest(&queries, 5).unwrap()),
        all
    );
    for query in [0, 77, 129] {
        let one = memory
            .k_nearest(&queries.narrow(0, query, 1).unwrap(), 5)
            .unwrap();
        assert_eq!(one.0, all.0[query * 5..][..5]);
        assert_eq!(one.1, all.1[query * 5..][..5]);
    }
}

#[test]
fn what_is_not_finite_does_not_pass_silently() {
    let memory = Memory::new(&wave(50, 8, 0.7)).unwrap();
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        let mut queries = wave(3, 8, 1.3).to_vec2::<f32>().unwrap();
        queries[1][5] = bad;
        let queries = Tensor::new(queries, &Device::Cpu).unwrap();
        let (squares, _) = memory.nearest(&queries).unwrap();
        assert!(squares[0].is_finite() && squares[1].is_nan() && squares[2].is_finite());
    }
    let mut rows = wave(4, 8, 0.7).to_vec2::<f32>().unwrap();
    rows[2][0] = f32::NAN;
    let error = Memory::new(&Tensor::new(rows, &Device::Cpu).unwrap()).unwrap_err();
    assert!(error.to_string().contains("row 2"), "{error}");
}

#[test]
fn candles_operations_find_the_same() {
    let (rows, queries) = (wave(333, 40, 0.7), wave(21, 40, 1.3));
    let norms = rows.sqr().unwrap().sum(1).unwrap();
    let memory = Memory::new(&rows).unwrap();
    for k in [1, 7] {
        let (ours, our_rows) = memory.k_nearest(&queries, k).unwrap();
        let (theirs, their_rows) = plain::k_nearest(&rows, &norms, &queries, k).unwrap();
        assert_eq!(our_rows, their_rows);
        assert!(
            ours.iter()
                .zip(theirs)
                .all(|(a, b)| (a - b).abs() < 1e-5 * b)
        );
    }
    let spoilt = (queries.narrow(0, 0, 1).unwrap() * f64::INFINITY).unwrap();
    assert!(plain::k_nearest(&rows, &norms, &spoilt, 1).unwrap().0[0].is_nan());
}

#[test]
fn empty_or_unfitting_inputs_are_refused() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    assert!(Memory::new(&zeros(&[0, 4])).is_err());
    assert!(Memory::new(&zeros(&[4, 0])).is_err());
    assert!(Memory::new(&zeros(&[4])).is_err());
    let memory = Memory::new(&zeros(&[3, 4])).unwrap();
    assert!(memory.nearest(&zeros(&[0, 4])).is_err());
    assert!(memory.nearest(&zeros(&[2, 5])).is_err());
    assert!(memory.k_nearest(&zeros(&[2, 4]), 4).is_err());
    assert!(memory.k_nearest(&zeros(&[2, 4]), 0).is_err());
    assert!(memory.k_nearest(&zeros(&[2, 4]), 3).is_ok());
}
