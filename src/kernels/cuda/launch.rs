//! Compiled kernels, loaded once a device, and their launch.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr,
    LaunchConfig, SyncOnDrop,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDType, DeviceId};
use candle_core::{CudaDevice, CudaStorage, Layout, Result};

/// One `.cu` file's fat binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Module {
    Adam,
    Conv,
    Coupling,
    Map,
    Norm,
}

impl Module {
    fn binary(self) -> &'static [u8] {
        match self {
            Module::Adam => include_bytes!(concat!(env!("OUT_DIR"), "/adam.fatbin")),
            Module::Conv => include_bytes!(concat!(env!("OUT_DIR"), "/conv.fatbin")),
            Module::Coupling => include_bytes!(concat!(env!("OUT_DIR"), "/coupling.fatbin")),
            Module::Map => include_bytes!(concat!(env!("OUT_DIR"), "/map.fatbin")),
            Module::Norm => include_bytes!(concat!(env!("OUT_DIR"), "/norm.fatbin")),
        }
    }
}

/// The kernel called `name`.
pub(crate) fn function(
    device: &CudaDevice,
    module: Module,
    name: &'static str,
) -> Result<CudaFunction> {
    type Loaded<K, V> = Mutex<Option<HashMap<(DeviceId, K), V>>>;
    static FUNCTIONS: Loaded<&str, CudaFunction> = Mutex::new(None);
    static MODULES: Loaded<Module, Arc<CudaModule>> = Mutex::new(None);
    let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let functions = functions.get_or_insert_default();
    if let Some(function) = functions.get(&(device.id(), name)) {
        return Ok(function.clone());
    }
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let modules = modules.get_or_insert_default();
    let module = match modules.entry((device.id(), module)) {
        Entry::Occupied(loaded) => loaded.into_mut(),
        Entry::Vacant(place) => {
            let stream = device.cuda_stream();
            let context: &Arc<CudaContext> = stream.context();
            let binary = Ptx::from_binary(module.binary().to_vec());
            let loaded = context.load_module(binary);
            place.insert(loaded.map_err(candle_core::Error::wrap)?)
        }
    };
    let function = module.load_function(name);
    let function = function.map_err(candle_core::Error::wrap)?;
    functions.insert((device.id(), name), function.clone());
    Ok(function)
}

/// f32 values of one 16-byte access.
pub(crate) const WIDE: usize = 4;
/// Threads side by side along positions, as in grid.h.
pub(crate) const LANES: usize = 32;

/// A launch's shape: one-dimensional blocks of at most 512 threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    blocks: usize,
    threads: usize,
    /// Shared memory in bytes a block.
    shared: usize,
}

impl Grid {
    /// Threads of most kernels' blocks.
    pub(crate) const THREADS: usize = 256;

    /// Enough threads for `items` of independent work; kernels loop over what is more.
    pub(crate) fn over(items: usize) -> Self {
        Self {
            blocks: items.div_ceil(Self::THREADS).clamp(1, 1 << 16),
            threads: Self::THREADS,
            shared: 0,
        }
    }

    /// `blocks` that each reduce one `bytes`-sized value a thread.
    pub(crate) fn reducing(blocks: usize, bytes: usize) -> Self {
        Self {
            blocks,
            threads: Self::THREADS,
            shared: Self::THREADS * bytes,
        }
    }

    /// `blocks` whose warps share the channels: more of them where blocks are few.
    pub(crate) fn tiles(blocks: usize, bytes: usize) -> Self {
        let threads = if blocks < 256 { 512 } else { 256 };
        Self {
            blocks,
            threads,
            shared: threads * bytes,
        }
    }

    /// With another amount of shared memory.
    pub(crate) fn with_shared(self, shared: usize) -> Self {
        Self { shared, ..self }
    }

    /// For cudarc.
    pub(crate) fn config(self) -> LaunchConfig {
        LaunchConfig {
            grid_dim: (self.blocks as u32, 1, 1),
            block_dim: (self.threads as u32, 1, 1),
            shared_mem_bytes: self.shared as u32,
        }
    }
}

/// Launches a kernel of a module on the device's stream, with its arguments in order.
macro_rules! launch {
    ($device:expr, $module:ident :: $name:literal, $grid:expr, $($argument:expr),+ $(,)?) => {{
        use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
        let function = $crate::kernels::cuda::function($device, $crate::kernels::cuda::Module::$module, $name)?;
        let stream = $device.cuda_stream();
        let mut builder = stream.launch_builder(&function);
        $(
            let argument = $argument;
            builder.arg(&argument);
        )+
        // SAFETY: the arguments are those of the entry in the module's .cu file, and the memory behind each address
        // is as large as the sizes among them say; the callers check both beside the CPU side.
        unsafe { builder.launch($grid.config()) }.map_err(candle_core::Error::wrap)?;
    }};
}
pub(crate) use launch;

/// An address on the device, as kernels take it; 0 is null.
pub(crate) struct Address<'a> {
    /// The address.
    pub(crate) at: u64,
    /// Distance of images in values.
    pub(crate) image: i64,
    /// Keeps the stream's order until the launch is queued.
    _order: SyncOnDrop<'a>,
}

/// Where a batch of contiguous images starts, and how far they are apart.
pub(crate) fn address<'a, T: CudaDType + DeviceRepr + 'a>(
    storage: &'a CudaStorage,
    layout: &Layout,
    stream: &'a CudaStream,
) -> Result<Address<'a>> {
    if !crate::kernels::view::is_batch_strided(layout) {
        candle_core::bail!("a CUDA kernel was given scattered images");
    }
    let dims = layout.dims();
    let image = match dims.first() {
        Some(1) | None => dims.iter().skip(1).product(),
        Some(_) => layout.stride()[0],
    };
    let slice: &CudaSlice<T> = storage.as_cuda_slice()?;
    let (base, order) = slice.device_ptr(stream);
    Ok(Address {
        at: base + (layout.start_offset() * size_of::<T>()) as u64,
        image: image as i64,
        _order: order,
    })
}

/// Where the values of a contiguous tensor start.
pub(crate) fn values<'a, T: CudaDType + DeviceRepr + 'a>(
    storage: &'a CudaStorage,
    layout: &Layout,
    stream: &'a CudaStream,
) -> Result<u64> {
    if !layout.is_contiguous() {
        candle_core::bail!("a CUDA kernel was given a scattered tensor");
    }
    Ok(address::<T>(storage, layout, stream)?.at)
}
