#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};

use super::rounds::square_distance;
use super::{greedy_k_centre, greedy_k_centre_with};

/// The rule itself: all rows against the newest centre, round by round.
fn naive(rows: &Tensor, count: usize, start: usize) -> Vec<u32> {
    let rows = rows.to_vec2::<f32>().unwrap();
    let mut least = vec![f32::INFINITY; rows.len()];
    let mut taken = vec![start];
    while taken.len() < count {
        let newest = &rows[taken[taken.len() - 1]];
        for (least, row) in least.iter_mut().zip(&rows) {
            *least = least.min(square_distance(row, newest));
        }
        let open = (0..rows.len()).filter(|row| !taken.contains(row));
        let farther = |a: usize, b: usize| if least[b] > least[a] { b } else { a };
        taken.push(open.reduce(farther).unwrap());
    }
    taken.into_iter().map(|row| row as u32).collect()
}

/// Rows around some places, most of their variance in a few directions.
fn clusters(len: usize, dims: usize, spread: f32) -> Tensor {
    let value = |row: usize, dim: usize| {
        let place = ((row % 37 * 31 + dim * 7) as f32 * 0.61).sin() * 8.0 / (1.0 + dim as f32);
        place + spread * ((row * row % 1009 * (dim + 3)) as f32 * 0.37).sin()
    };
    let values: Vec<f32> = (0..len * dims).map(|i| value(i / dims, i % dims)).collect();
    Tensor::from_vec(values, (len, dims), &Device::Cpu).unwrap()
}

#[test]
fn a_choice_can_be_ended() {
    let rows = Tensor::rand(0f32, 1.0, (300, 4), &Device::Cpu).unwrap();
    let mut heard = Vec::new();
    let ended = greedy_k_centre_with(&rows, 200, 0, &mut |done| {
        heard.push(done);
        done < 128
    });
    assert_eq!(ended.unwrap(), None);
    assert_eq!(heard, [64, 128]);
}

#[test]
fn the_bounds_change_no_choice() {
    for (len, dims, spread, count) in [
        (1, 1, 0.1, 1),
        (50, 3, 0.1, 50),
        (1500, 40, 0.05, 300),
        (2501, 70, 0.3, 200),
        (1100, 40, 3.0, 100),
    ] {
        let rows = clusters(len, dims, spread);
        for start in [0, len / 3] {
            let found = greedy_k_centre(&rows, count, start).unwrap();
            assert_eq!(found, naive(&rows, count, start), "{len} x {dims}");
        }
    }
}

#[test]
fn the_leading_directions_are_used_where_they_help() {
    let of = |rows: &Tensor, dims| {
        let rows = rows.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        super::leads::Leads::of(&rows, dims, 100.0).is_some()
    };
    assert!(of(&clusters(1500, 40, 0.05), 40));
    assert!(!of(&clusters(1500, 8, 0.05), 8));
}

#[test]
fn copies_and_ties_go_to_the_first_and_none_is_taken_twice() {
    let rows = clusters(400, 40, 0.2);
    let rows = Tensor::cat(&[&rows, &rows, &rows], 0).unwrap();
    let found = greedy_k_centre(&rows, 1200, 5).unwrap();
    assert_eq!(found, naive(&rows, 1200, 5));
    let mut all = found.clone();
    all.sort_unstable();
    assert!(all.iter().zip(0..).all(|(row, i)| *row == i));
    // A lattice: many equal distances.
    let lattice: Vec<f32> = (0..40 * 40)
        .flat_map(|i| [(i % 40) as f32, (i / 40) as f32])
        .collect();
    let lattice = Tensor::from_vec(lattice, (1600, 2), &Device::Cpu).unwrap();
    let found = greedy_k_centre(&lattice, 400, 820).unwrap();
    assert_eq!(found, naive(&lattice, 400, 820));
}

#[test]
fn threads_change_nothing() {
    let rows = clusters(5000, 64, 0.3);
    let found = greedy_k_centre(&rows, 100, 0).unwrap();
    let alone = rayon::scope(|_| greedy_k_centre(&rows, 100, 0).unwrap());
    assert_eq!(alone, found);
}

#[test]
fn what_cannot_be_chosen_is_refused() {
    let rows = clusters(10, 4, 0.1);
    for (count, start) in [(0, 0), (11, 0), (3, 10)] {
        assert!(greedy_k_centre(&rows, count, start).is_err());
    }
    let none = Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap();
    assert!(greedy_k_centre(&none, 1, 0).is_err());
    let mut bad = rows.to_vec2::<f32>().unwrap();
    bad[6][1] = f32::NAN;
    let error = greedy_k_centre(&Tensor::new(bad, &Device::Cpu).unwrap(), 2, 0).unwrap_err();
    assert!(error.to_string().contains("vector 6"), "{error}");
}
