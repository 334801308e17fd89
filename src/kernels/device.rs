//! Which processor computes, chosen by name, and what to do where it cannot be had.

use std::str::FromStr;

use candle_core::Device;

pub use super::tf32::set_tf32;
#[cfg(not(feature = "cuda"))]
use crate::Advice;
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
        choice
            .ok_or_else(|| Error::Invalid(format!("{text}: not a device; use auto, cpu or cuda:N")))
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
                Err(why) => {
                    let why = format!("computing on the CPU: {}", why.problem());
                    Ok((Device::Cpu, Some(why)))
                }
            },
        }
    }
}

/// Bytes that a GPU has free, what is kept for the next tensors included; none for the CPU. Waits for the GPU.
///
/// # Errors
/// When the GPU failed.
pub fn free_memory(device: &Device) -> Result<Option<u64>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return Ok(Some(gpu::free_memory(device)?));
    }
    let _ = device;
    Ok(None)
}

#[cfg(not(feature = "cuda"))]
fn gpu(number: usize) -> Result<Device> {
    Err(Error::Invalid(format!(
        "cuda:{number}: this program was built without CUDA"
    ))
    .advise(Advice::BuildWith("cuda"))
    .advise(Advice::UseCpu))
}

#[cfg(feature = "cuda")]
use gpu::open as gpu;

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::cuda_backend::cudarc::driver::{
        CudaContext, DriverError, result::device::get_mem_pool, sys,
    };
    use candle_core::{CudaDevice, Device};

    use crate::{Advice, Error, Result};

    /// 10 * major + minor of the oldest GPU that candle's kernels in this build run on.
    const OLDEST: &str = env!("FASTFLOW_COMPUTE_CAPABILITY");

    fn unusable(number: usize, why: impl std::fmt::Display) -> Error {
        Error::Invalid(format!(
            "cuda:{number}: {why}; install NVIDIA's driver and CUDA's libraries"
        ))
        .advise(Advice::UseCpu)
    }

    /// GPU `number`, with one stream for all threads.
    pub(super) fn open(number: usize) -> Result<Device> {
        if let Some(why) = crate::kernels::cuda::missing() {
            return Err(unusable(number, why));
        }
        let count = CudaContext::device_count().map_err(|why| unusable(number, why))?;
        if number >= count as usize {
            let has =
                |what: &str| Error::Invalid(format!("cuda:{number}: this machine has {what}"));
            return Err(match count {
                0 => has("no GPU that CUDA can use").advise(Advice::UseCpu),
                1 => has("only cuda:0"),
                _ => has(&format!("cuda:0 to cuda:{}", count - 1)),
            });
        }
        let context = CudaContext::new(number).map_err(|why| unusable(number, why))?;
        let (major, minor) = context
            .compute_capability()
            .map_err(|why| unusable(number, why))?;
        covered(number, major * 10 + minor, OLDEST.parse().unwrap_or(0))?;
        let device = Device::new_cuda_with_stream(number).map_err(|why| unusable(number, why))?;
        // SAFETY: all tensors of this device are made, used and freed on its one stream.
        unsafe { device.as_cuda_device()?.disable_event_tracking() };
        keep_freed_memory(&context).map_err(|why| unusable(number, why))?;
        #[cfg(feature = "cudnn")]
        crate::kernels::conv::open_cudnn(device.as_cuda_device()?)
            .map_err(|why| unusable(number, format!("cuDNN does not start ({why})")))?;
        Ok(device)
    }

    /// Keeps what tensors free for the next ones; unasked, CUDA gives it all back whenever the GPU is waited for.
    fn keep_freed_memory(context: &CudaContext) -> std::result::Result<(), DriverError> {
        if !context.has_async_alloc() {
            return Ok(());
        }
        const THRESHOLD: sys::CUmemPool_attribute =
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let mut bytes = u64::MAX;
        // SAFETY: the pool that this device takes memory from, and a value of the attribute's type.
        unsafe {
            let pool = get_mem_pool(context.cu_device())?;
            sys::cuMemPoolSetAttribute(pool, THRESHOLD, (&raw mut bytes).cast()).result()
        }
    }

    pub(super) fn free_memory(device: &CudaDevice) -> Result<u64> {
        let stream = device.cuda_stream();
        let ask = || {
            stream.synchronize()?;
            let context = stream.context();
            if context.has_async_alloc() {
                // SAFETY: the pool that this device takes memory from; only what no tensor uses is given back.
                unsafe { sys::cuMemPoolTrimTo(get_mem_pool(context.cu_device())?, 0).result()? };
            }
            Ok::<_, DriverError>(context.mem_get_info()?.0 as u64)
        };
        Ok(ask().map_err(candle_core::Error::wrap)?)
    }

    /// Fails unless a GPU of capability `found` runs code made for `oldest`.
    fn covered(number: usize, found: i32, oldest: i32) -> Result<()> {
        if found >= oldest {
            return Ok(());
        }
        let dotted = |capability: i32| format!("{}.{}", capability / 10, capability % 10);
        Err(Error::Invalid(format!(
            "cuda:{number}: this GPU has compute capability {}, this program was built for {} and later; \
             build it with CUDA_COMPUTE_CAP={found}",
            dotted(found),
            dotted(oldest)
        ))
        .advise(Advice::UseCpu))
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
