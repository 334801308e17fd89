//! Convolution products on a GPU without cuDNN: patches and cuBLAS.

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr};
use candle_core::{
    CudaDevice, CudaStorage, Device, Result as CandleResult, Storage, Tensor, op::BackpropOp,
};

use super::geometry::Geometry;
use crate::Result;
use crate::kernels::coupling::cuda::with_values;
use crate::kernels::cuda::{Grid, address, launch};

/// `ConvSizes` of conv.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct ConvSizes {
    sizes: [i32; 10],
    x_image: i64,
}

// SAFETY: plain numbers in C's layout: ten ints, then a 64-bit one, as conv.h declares them.
unsafe impl DeviceRepr for ConvSizes {}

impl ConvSizes {
    fn new(g: &Geometry, x_image: i64) -> Self {
        let sizes = [
            g.batch,
            g.in_channels,
            g.in_h,
            g.in_w,
            g.kernel_h,
            g.kernel_w,
            g.stride,
            g.padding,
            g.out_h,
            g.out_w,
        ];
        Self {
            sizes: sizes.map(|size| size as i32),
            x_image,
        }
    }
}

/// The convolution, without bias.
pub(super) fn forward(g: &Geometry, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let w = w.reshape((g.out_channels, g.patch()))?;
    let w = w.broadcast_as((g.batch, g.out_channels, g.patch()))?;
    Ok(w.matmul(&columns(g, x)?)?.reshape(g.out_shape())?)
}

/// The gradient of the input.
pub(super) fn input_gradient(g: &Geometry, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let w = w.contiguous()?.reshape((g.out_channels, g.patch()))?.t()?;
    let w = w.broadcast_as((g.batch, g.patch(), g.out_channels))?;
    let columns = w.matmul(&dy.reshape((g.batch, g.out_channels, g.out_plane()))?)?;
    let shape = (g.batch, g.in_channels, g.in_h, g.in_w);
    if g.is_pointwise() {
        return Ok(columns.reshape(shape)?);
    }
    let len = g.batch * g.in_channels * g.in_plane();
    let dx = filled(dy.device(), len, |device, dx| {
        with_values(&columns, |columns| {
            let sizes = ConvSizes::new(g, (g.in_channels * g.in_plane()) as i64);
            launch!(device, Conv::"patches_backward_f32", Grid::over(len), sizes, columns, dx);
            Ok(())
        })
    })?;
    Ok(dx.reshape(shape)?)
}

/// The gradient of the weight.
pub(super) fn weight_gradient(g: &Geometry, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let dy = dy.reshape((g.batch, g.out_channels, g.out_plane()))?;
    let each = dy.matmul(&columns(g, x)?.transpose(1, 2)?)?;
    let shape = (g.out_channels, g.in_channels, g.kernel_h, g.kernel_w);
    Ok(each.sum(0)?.reshape(shape)?)
}

/// `[B, C kh kw, positions]`: the input under every element of the kernel.
fn columns(g: &Geometry, x: &Tensor) -> Result<Tensor> {
    let shape = (g.batch, g.patch(), g.out_plane());
    if g.is_pointwise() {
        return Ok(x.contiguous()?.reshape(shape)?);
    }
    let len = g.batch * g.patch() * g.out_plane();
    let columns = filled(x.device(), len, |device, columns| {
        with_images(x, |x, image| {
            launch!(device, Conv::"patches_f32", Grid::over(len), ConvSizes::new(g, image), x, columns);
            Ok(())
        })
    })?;
    Ok(columns.reshape(shape)?)
}

/// A tensor of `len` values, all of which `fill` writes.
fn filled(
    device: &Device,
    len: usize,
    fill: impl FnOnce(&CudaDevice, u64) -> CandleResult<()>,
) -> Result<Tensor> {
    let device = device.as_cuda_device()?;
    let stream = device.cuda_stream();
    // SAFETY: written before it is read, as above.
    let values = unsafe { device.alloc::<f32>(len)? };
    {
        let (address, _written) = values.device_ptr(&stream);
        fill(device, address)?;
    }
    let storage = CudaStorage::wrap_cuda_slice(values, device.clone());
    Ok(Tensor::from_storage(
        Storage::Cuda(storage),
        len,
        BackpropOp::none(),
        false,
    ))
}

/// Calls `f` with the address of a tensor whose images are contiguous, and their distance.
fn with_images<R>(tensor: &Tensor, f: impl FnOnce(u64, i64) -> CandleResult<R>) -> CandleResult<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("a CUDA kernel was given a tensor of another device");
    };
    let stream = storage.device.cuda_stream();
    let address = address::<f32>(storage, layout, &stream)?;
    f(address.at, address.image)
}
