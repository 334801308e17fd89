//! Which processor computes, chosen by name, and what to do where it cannot be had.

use std::str::FromStr;

use candle_core::Device;

use crate::{Error, Result};

/// `auto`, `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if there is a usable one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse().ok().map(Self::Cuda);
        let choice = match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            other => other.strip_prefix("cuda:").and_then(number),
        };
        choice.ok_or_else(|| Error::Invalid(format!("--device {text}: use auto, cpu or cuda:N")))
    }
}

impl DeviceChoice {
    /// The device, and for `auto` why it is not a GPU in a build that could use one.
    ///
    /// # Errors
    /// When a GPU was asked for and cannot be used; says what helps.
    pub fn open(self) -> Result<(Device, Option<String>)> {
        match self {
            Self::Cpu => Ok((Device::Cpu, None)),
            Self::Cuda(number) => Ok((gpu(number)?, None)),
            Self::Auto if !cfg!(feature = "cuda") => Ok((Device::Cpu, None)),
            Self::Auto => match gpu(0) {
                Ok(device) => Ok((device, None)),
                Err(why) => Ok((Device::Cpu, Some(format!("computing on the CPU: {why}")))),
            },
        }
    }
}

/// Lets products of f32 on a GPU go through TF32 tensor cores (10 bits of mantissa) from now on, or not.
pub fn set_tf32(allowed: bool) {
    #[cfg(feature = "cuda")]
    gpu::set_tf32(allowed);
    #[cfg(not(feature = "cuda"))]
    let _ = allowed;
}

#[cfg(not(feature = "cuda"))]
fn gpu(number: usize) -> Result<Device> {
    Err(Error::Invalid(format!(
        "--device cuda:{number}: this program was built without CUDA; build it with --features cuda (or cudnn), \
         or use --device cpu"
    )))
}

#[cfg(feature = "cuda")]
use gpu::open as gpu;
#[cfg(feature = "cudnn")]
pub(crate) use gpu::tf32;

#[cfg(feature = "cuda")]
mod gpu {
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::atomic::{AtomicBool, Ordering};

    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    use crate::{Error, Result};

    static TF32: AtomicBool = AtomicBool::new(false);

    pub(super) fn set_tf32(allowed: bool) {
        TF32.store(allowed, Ordering::Relaxed);
        candle_core::cuda::set_gemm_reduced_precision_f32(allowed);
    }

    #[cfg(feature = "cudnn")]
    pub(crate) fn tf32() -> bool {
        TF32.load(Ordering::Relaxed)
    }

    /// 10 * major + minor of the oldest GPU that candle's kernels in this build run on.
    const OLDEST: &str = env!("FASTFLOW_COMPUTE_CAPABILITY");

    /// GPU `number`, with one stream for all threads.
    pub(super) fn open(number: usize) -> Result<Device> {
        let hook = take_hook();
        // A library that panics for want of another must not speak to the user: its error is told below.
        set_hook(Box::new(|_| {}));
        let opened = catch_unwind(|| try_open(number));
        set_hook(hook);
        opened.unwrap_or_else(|_| {
            Err(unusable(
                number,
                "a CUDA library is missing or does not fit the driver",
            ))
        })
    }

    fn unusable(number: usize, why: impl std::fmt::Display) -> Error {
        Error::Invalid(format!(
            "--device cuda:{number}: {why}; install NVIDIA's driver and CUDA's libraries, or use --device cpu"
        ))
    }

    fn try_open(number: usize) -> Result<Device> {
        let count = CudaContext::device_count().map_err(|why| unusable(number, why))?;
        if number >= count as usize {
            return Err(Error::Invalid(match count {
                0 => format!(
                    "--device cuda:{number}: this machine has no GPU that CUDA can use; use --device cpu"
                ),
                _ => format!(
                    "--device cuda:{number}: this machine has cuda:0 to cuda:{}",
                    count - 1
                ),
            }));
        }
        let context = CudaContext::new(number).map_err(|why| unusable(number, why))?;
        let (major, minor) = context
            .compute_capability()
            .map_err(|why| unusable(number, why))?;
        covered(number, major * 10 + minor, OLDEST.parse().unwrap_or(0))?;
        let device = Device::new_cuda_with_stream(number).map_err(|why| unusable(number, why))?;
        // SAFETY: all tensors of this device are made, used and freed on its one stream.
        unsafe { device.as_cuda_device()?.disable_event_tracking() };
        Ok(device)
    }

    /// Fails unless a GPU of capability `found` runs code made for `oldest`.
    fn covered(number: usize, found: i32, oldest: i32) -> Result<()> {
        if found >= oldest {
            return Ok(());
        }
        let dotted = |capability: i32| format!("{}.{}", capability / 10, capability % 10);
        Err(Error::Invalid(format!(
            "--device cuda:{number}: this GPU has compute capability {}, this program was built for {} and later; \
             build it with CUDA_COMPUTE_CAP={found}, or use --device cpu",
            dotted(found),
            dotted(oldest)
        )))
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::covered;

        #[test]
        fn an_older_gpu_is_told_how_to_build() {
            covered(0, 90, 80).unwrap();
            let error = covered(0, 75, 80).unwrap_err().to_string();
            assert!(
                error.contains("7.5")
                    && error.contains("8.0")
                    && error.contains("CUDA_COMPUTE_CAP=75")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::DeviceChoice;

    #[test]
    fn names_are_devices() {
        let parse = |text: &str| text.parse::<DeviceChoice>().unwrap();
        assert_eq!(parse("auto"), DeviceChoice::Auto);
        assert_eq!(parse("cpu"), DeviceChoice::Cpu);
        assert_eq!(parse("cuda"), DeviceChoice::Cuda(0));
        assert_eq!(parse("cuda:3"), DeviceChoice::Cuda(3));
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda3", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn auto_always_finds_a_device() {
        let (device, why) = DeviceChoice::Auto.open().unwrap();
        assert!(device.is_cuda() || why.is_some() == cfg!(feature = "cuda"));
    }
}
