//! The norms on a GPU; arithmetic and launch shapes are in ../cuda/norm.h.

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr};
use candle_core::{CudaStorage, Layout, Result};

use super::batch_and_size;
use crate::kernels::cuda::{Grid, WIDE, address, launch, values};

/// Values that one block reduces.
const CHUNK: usize = 4096;

/// `NormSizes` of norm.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct NormSizes {
    batch: i32,
    size: i32,
    chunk: i32,
    eps: f32,
    x_image: i64,
    dy_image: i64,
}

// SAFETY: plain numbers in C's layout, as norm.h declares them.
unsafe impl DeviceRepr for NormSizes {}

/// y of [`super::layer_norm`].
pub(super) fn layer_norm(x: &CudaStorage, layout: &Layout, eps: f32) -> Result<CudaStorage> {
    let device = &x.device;
    let stream = device.cuda_stream();
    let (batch, size) = batch_and_size(layout);
    let blocks = batch * size.div_ceil(CHUNK);
    // SAFETY: the kernels write all of both.
    let (y, partial) = unsafe {
        (
            device.alloc::<f32>(batch * size)?,
            device.alloc::<f32>(blocks * 2)?,
        )
    };
    {
        let x = address::<f32>(x, layout, &stream)?;
        let (out, _written) = y.device_ptr(&stream);
        let (partial, _partial) = partial.device_ptr(&stream);
        let numbers = sizes(batch, size, eps, [x.image, 0]);
        let grid = Grid::reducing(blocks, size_of::<f64>());
        launch!(device, Norm::"moments_f32", grid, numbers, x.at, partial);
        launch!(device, Norm::"layer_norm_f32", grid, numbers, x.at, partial, out);
    }
    Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
}

/// dx of [`super::layer_norm_backward`].
pub(super) fn layer_norm_backward(
    x: &CudaStorage,
    layout: &Layout,
    dy: &CudaStorage,
    dy_layout: &Layout,
    eps: f32,
) -> Result<CudaStorage> {
    let device = &x.device;
    let stream = device.cuda_stream();
    let (batch, size) = batch_and_size(layout);
    let blocks = batch * size.div_ceil(CHUNK);
    // SAFETY: the kernels write all of both.
    let (dx, partial) = unsafe {
        (
            device.alloc::<f32>(batch * size)?,
            device.alloc::<f32>(blocks * 4)?,
        )
    };
    {
        let (x, dy) = (
            address::<f32>(x, layout, &stream)?,
            address::<f32>(dy, dy_layout, &stream)?,
        );
        let (out, _written) = dx.device_ptr(&stream);
        let (partial, _partial) = partial.device_ptr(&stream);
        let sums = partial + (blocks * 2 * size_of::<f32>()) as u64;
        let numbers = sizes(batch, size, eps, [x.image, dy.image]);
        let grid = Grid::reducing(blocks, size_of::<f64>());
        launch!(device, Norm::"moments_f32", grid, numbers, x.at, partial);
        launch!(device, Norm::"layer_norm_sums_f32", grid, numbers, x.at, dy.at, partial, sums);
        launch!(device, Norm::"layer_norm_backward_f32", grid, numbers, x.at, dy.at, partial, sums, out);
    }
    Ok(CudaStorage::wrap_cuda_slice(dx, device.clone()))
}

/// y of [`super::standardise`].
pub(super) fn standardise(
    x: &CudaStorage,
    layout: &Layout,
    statistics: &CudaStorage,
    statistics_layout: &Layout,
) -> Result<CudaStorage> {
    let device = &x.device;
    let stream = device.cuda_stream();
    let (batch, channels, height, width) = layout.shape().dims4()?;
    let positions = height * width;
    // SAFETY: the kernel writes all of it.
    let y = unsafe { device.alloc::<f32>(batch * channels * positions)? };
    {
        let x = address::<f32>(x, layout, &stream)?;
        let statistics = values::<f32>(statistics, statistics_layout, &stream)?;
        let (out, _written) = y.device_ptr(&stream);
        let grid = Grid::over(batch * channels * positions.div_ceil(WIDE));
        launch!(
            device, Norm::"standardise_f32", grid,
            batch as i32, channels as i32, positions as i32, x.image, x.at, statistics, out
        );
    }
    Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
}

fn sizes(batch: usize, size: usize, eps: f32, images: [i64; 2]) -> NormSizes {
    NormSizes {
        batch: batch as i32,
        size: size as i32,
        chunk: CHUNK as i32,
        eps,
        x_image: images[0],
        dy_image: images[1],
    }
}
