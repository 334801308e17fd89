//! Numbers that the fixtures' scripts make too, so that fixtures hold results only (tests/fixtures/weyl.py).
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};

/// A Weyl sequence in -1..1 that starts at the FNV-1a hash of the name.
pub fn values(name: &str, count: usize) -> Vec<f64> {
    let hash = |state: u32, byte: u8| (state ^ u32::from(byte)).wrapping_mul(16_777_619);
    let state = name.bytes().fold(2_166_136_261, hash);
    let value = |i: u32| state.wrapping_add(i.wrapping_mul(2_654_435_761)) >> 8;
    (1..=count as u32)
        .map(|i| f64::from(value(i)) / f64::from(1 << 23) - 1.0)
        .collect()
}

pub fn tensor(values: Vec<f64>, dims: &[usize]) -> Tensor {
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Fails unless every value is within 1e-4 of the reference's, relative to the largest of them.
pub fn close(what: &str, found: &Tensor, expected: &Tensor) {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (flat(found), flat(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().map(|v| v.abs()).fold(0.0, f32::max);
    let error = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(largest > 1e-3, "{what}: the reference is all zero");
    assert!(error < 1e-4 * largest, "{what}: {error} beside {largest}");
}
