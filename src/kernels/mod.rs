//! What candle does slowly or not at all: products, convolutions, attention, coupling layers, norms, anomaly maps and
//! the optimiser's step, on the CPU and (feature `cuda`) on a GPU, with a backward where training needs one; and the
//! choice of the device.

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
mod tf32;
mod view;

pub use shape::{Family, FeatureShape};
