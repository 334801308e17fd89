//! The coupling on a GPU; arithmetic and launch shapes are in ../cuda/coupling.h.

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Storage, Tensor};

use super::{Permutation, Sizes};
use crate::kernels::cuda::{Grid, LANES, WIDE, address, launch, values};

/// A storage with its layout.
pub(super) type Input<'a> = (&'a CudaStorage, &'a Layout);

/// `CouplingSizes` of coupling.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct CouplingSizes {
    batch: i32,
    channels: i32,
    positions: i32,
    clamp: f32,
    x_image: i64,
    a_image: i64,
    dy_image: i64,
}

// SAFETY: plain numbers in C's layout, as coupling.h declares them.
unsafe impl DeviceRepr for CouplingSizes {}

impl CouplingSizes {
    fn new(sizes: &Sizes, clamp: f32, images: [i64; 3]) -> Self {
        Self {
            batch: sizes.batch as i32,
            channels: sizes.channels as i32,
            positions: sizes.positions() as i32,
            clamp,
            x_image: images[0],
            a_image: images[1],
            dy_image: images[2],
        }
    }
}

impl Sizes {
    /// 16-byte pieces of one channel.
    fn vectors(&self) -> usize {
        self.positions().div_ceil(WIDE)
    }
}

/// y and the log-determinant, packed.
pub(super) fn forward(
    sizes: &Sizes,
    clamp: f32,
    permutation: &Permutation,
    (x, x_layout): Input,
    (a, a_layout): Input,
    (affine, affine_layout): Input,
) -> Result<CudaStorage> {
    let device = &x.device;
    let stream = device.cuda_stream();
    let values_len = sizes.batch * sizes.image();
    // SAFETY: the kernel writes all of it.
    let packed = unsafe { device.alloc::<f32>(values_len + sizes.batch * sizes.positions())? };
    let permutation = permutation.on_device(device)?;
    {
        let (x, a) = (
            address::<f32>(x, x_layout, &stream)?,
            address::<f32>(a, a_layout, &stream)?,
        );
        let affine = values::<f32>(affine, affine_layout, &stream)?;
        let (permutation, _order) = permutation.device_ptr(&stream);
        let (y, _written) = packed.device_ptr(&stream);
        let log_det = y + (values_len * size_of::<f32>()) as u64;
        let tiles = sizes.batch * sizes.positions().div_ceil(LANES * WIDE);
        let grid = Grid::tiles(tiles, WIDE * size_of::<f32>());
        let numbers = CouplingSizes::new(sizes, clamp, [x.image, a.image, 0]);
        launch!(device, Coupling::"coupling_forward_f32", grid, numbers, x.at, a.at, affine, permutation, y, log_det);
    }
    Ok(CudaStorage::wrap_cuda_slice(packed, device.clone()))
}

/// The log-determinant's gradient.
pub(super) enum LogDet<'a> {
    Constant(f32),
    Map(&'a Tensor),
}

/// Gradients of x, a and the affine, packed.
#[allow(clippy::too_many_arguments)] // the forward's own six, and two gradients
pub(super) fn backward(
    sizes: &Sizes,
    clamp: f32,
    permutation: &Permutation,
    affine: &Tensor,
    dlog_det: LogDet,
    (x, x_layout): Input,
    (a, a_layout): Input,
    (dy, dy_layout): Input,
) -> Result<CudaStorage> {
    let device = &x.device;
    let stream = device.cuda_stream();
    let x_len = sizes.batch * sizes.image();
    let a_len = sizes.batch * 2 * sizes.active() * sizes.positions();
    let columns = 2 * sizes.channels;
    let vectors = sizes.batch * sizes.vectors();
    let span = span(vectors, sizes.channels);
    let chunks = vectors.div_ceil(span);
    // SAFETY: the kernels write all of both.
    let packed = unsafe { device.alloc::<f32>(x_len + a_len + columns)? };
    // SAFETY: as above.
    let partial = unsafe { device.alloc::<f32>(chunks * columns)? };
    let permutation = permutation.on_device(device)?;
    with_values(affine, |affine| {
        let map = match dlog_det {
            LogDet::Constant(constant) => (0, constant),
            LogDet::Map(map) => (with_values(map, Ok)?, 0.0),
        };
        let (x, a) = (
            address::<f32>(x, x_layout, &stream)?,
            address::<f32>(a, a_layout, &stream)?,
        );
        let dy = address::<f32>(dy, dy_layout, &stream)?;
        let (permutation, _order) = permutation.device_ptr(&stream);
        let (dx, _written) = packed.device_ptr(&stream);
        let (partial, _partial) = partial.device_ptr(&stream);
        let da = dx + (x_len * size_of::<f32>()) as u64;
        let total = da + (a_len * size_of::<f32>()) as u64;
        let numbers = CouplingSizes::new(sizes, clamp, [x.image, a.image, dy.image]);
        let grid = Grid::reducing(chunks * sizes.channels, size_of::<f32>());
        launch!(
            device, Coupling::"coupling_backward_f32", grid,
            numbers, span as i32, x.at, a.at, affine, permutation, dy.at, map.0, map.1, dx, da, partial
        );
        sum_rows(device, chunks, columns, partial, total)
    })?;
    Ok(CudaStorage::wrap_cuda_slice(packed, device.clone()))
}

/// Vectors of a chunk: long enough to be worth a reduction, short enough that all multiprocessors have blocks.
pub(crate) fn span(vectors: usize, channels: usize) -> usize {
    const BLOCKS: usize = 1024;
    let chunks = BLOCKS.div_ceil(channels.max(1));
    vectors.div_ceil(chunks).max(Grid::THREADS)
}

/// Column sums of `partial [rows, columns]` into `total [columns]`.
pub(crate) fn sum_rows(
    device: &CudaDevice,
    rows: usize,
    columns: usize,
    partial: u64,
    total: u64,
) -> Result<()> {
    launch!(device, Coupling::"sum_rows_f32", Grid::over(columns), rows as i32, columns as i32, partial, total);
    Ok(())
}

/// Calls `f` with the address of a contiguous f32 tensor on a GPU.
pub(crate) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(u64) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("a CUDA kernel was given a tensor of another device");
    };
    let stream = storage.device.cuda_stream();
    f(values::<f32>(storage, layout, &stream)?)
}

/// u of [`super::undo_affine`].
pub(super) fn undo_affine(
    sizes: &Sizes,
    permutation: &Permutation,
    (y, layout): Input,
    (affine, affine_layout): Input,
) -> Result<CudaStorage> {
    let device = &y.device;
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes all of it.
    let u = unsafe { device.alloc::<f32>(sizes.batch * sizes.image())? };
    let permutation = permutation.on_device(device)?;
    {
        let y = address::<f32>(y, layout, &stream)?;
        let affine = values::<f32>(affine, affine_layout, &stream)?;
        let (permutation, _order) = permutation.device_ptr(&stream);
        let (u, _written) = u.device_ptr(&stream);
        let grid = Grid::over(sizes.batch * sizes.channels * sizes.vectors());
        let numbers = CouplingSizes::new(sizes, 0.0, [y.image, 0, 0]);
        launch!(device, Coupling::"undo_affine_f32", grid, numbers, y.at, affine, permutation, u);
    }
    Ok(CudaStorage::wrap_cuda_slice(u, device.clone()))
}

/// x of [`super::uncouple`].
pub(super) fn uncouple(
    sizes: &Sizes,
    clamp: f32,
    (u, layout): Input,
    (a, a_layout): Input,
) -> Result<CudaStorage> {
    let device = &u.device;
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes all of it.
    let x = unsafe { device.alloc::<f32>(sizes.batch * sizes.image())? };
    {
        let (u, a) = (
            address::<f32>(u, layout, &stream)?,
            address::<f32>(a, a_layout, &stream)?,
        );
        let (x, _written) = x.device_ptr(&stream);
        let grid = Grid::over(sizes.batch * sizes.channels * sizes.vectors());
        let numbers = CouplingSizes::new(sizes, clamp, [u.image, a.image, 0]);
        launch!(device, Coupling::"uncouple_f32", grid, numbers, u.at, a.at, x);
    }
    Ok(CudaStorage::wrap_cuda_slice(x, device.clone()))
}

/// sum += term.
pub(super) fn accumulate(
    sum: &mut CudaStorage,
    layout: &Layout,
    (term, term_layout): Input,
) -> Result<()> {
    if !matches!(sum.slice, CudaStorageSlice::F32(_)) {
        candle_core::bail!("accumulate needs f32");
    }
    let device = &sum.device;
    let stream = device.cuda_stream();
    let size: usize = layout.dims()[1..].iter().product();
    let batch = layout.dims()[0];
    let (sum, term) = (
        address::<f32>(sum, layout, &stream)?,
        address::<f32>(term, term_layout, &stream)?,
    );
    let grid = Grid::over(batch * size.div_ceil(WIDE));
    launch!(
        device, Coupling::"accumulate_f32", grid,
        batch as i32, size as i32, sum.image, term.image, sum.at, term.at
    );
    Ok(())
}
