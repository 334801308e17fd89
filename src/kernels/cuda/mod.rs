//! How kernels of `*.cu` are found and launched. Each op's CUDA side stands beside its CPU side (`cuda.rs`); the
//! arithmetic is in the headers here, which tests/cuda.rs also runs as host C++.

mod launch;

pub(crate) use launch::{Grid, LANES, Module, WIDE, address, function, launch, values};
