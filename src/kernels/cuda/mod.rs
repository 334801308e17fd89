//! How kernels of `*.cu` are found and launched. Each op's CUDA side stands beside its CPU side (`cuda.rs`); the
//! arithmetic is in the headers here, which tests/cuda.rs also runs as host C++.

mod launch;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod libraries;

pub(crate) use launch::{Grid, LANES, Module, WIDE, address, function, launch, values};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use libraries::missing;

/// Nothing: on other systems a program whose libraries are not all there does not start.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn missing() -> Option<String> {
    None
}
