//! What candle does slowly or not at all on the CPU, each a candle CustomOp with a backward.

#![allow(unsafe_code)] // SIMD and buffers shared by threads; every block says why it is sound

pub mod adam;
pub mod attention;
pub mod conv;
pub mod coreset;
pub mod coupling;
#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
mod elementary;
pub mod gaussian;
mod gemm;
mod grid;
mod lanes;
pub mod linear;
pub mod map;
pub mod nearest;
pub mod norm;
mod parallel;
mod shape;
mod simd;
pub(crate) mod taps;
#[cfg(test)]
mod tests;
mod view;

pub use shape::{Family, FeatureShape};
