//! The CUDA side: its arithmetic in host C++ against the CPU side, everywhere, and the same ops on a GPU where
//! the build has CUDA and the machine a GPU.
#![allow(clippy::unwrap_used)]

#[path = "cuda/device.rs"]
mod device;
#[allow(dead_code)] // some are only for the CPU's tests
#[path = "../src/kernels/tests/formulas.rs"]
mod formulas;
#[path = "cuda/host.rs"]
mod host;
#[path = "cuda/kernels.rs"]
mod kernels;
