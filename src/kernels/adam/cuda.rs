//! The optimizer on a GPU; arithmetic and launch shapes are in ../cuda/adam.h.

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CudaStorage, Layout, Result, Storage, Tensor};

use super::{AdamStep, Decide, PARTS, Update};
use crate::kernels::cuda::{Grid, launch, values};

/// A storage with its layout.
type Input<'a> = (&'a CudaStorage, &'a Layout);
type Output<'a> = (&'a mut CudaStorage, &'a Layout);

/// `AdamStep` of adam.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sized {
    size: i32,
    step: AdamStep,
}

// SAFETY: plain numbers in C's layout, as adam.h declares them.
unsafe impl DeviceRepr for Sized {}

pub(super) fn sum_squares(
    parts: &mut CudaStorage,
    parts_layout: &Layout,
    gradient: &CudaStorage,
    layout: &Layout,
) -> Result<()> {
    let device = &gradient.device;
    let stream = device.cuda_stream();
    let size = layout.shape().elem_count() as i32;
    let parts = values::<f64>(parts, parts_layout, &stream)?;
    let gradient = values::<f32>(gradient, layout, &stream)?;
    let grid = Grid::reducing(PARTS, size_of::<f64>());
    launch!(device, Adam::"sum_squares_f32", grid, size, gradient, parts);
    Ok(())
}

pub(super) fn decide(
    op: &Decide,
    (control, layout): Output,
    (squares, squares_layout): Input,
    (loss, loss_layout): Input,
) -> Result<()> {
    let device = &squares.device;
    let stream = device.cuda_stream();
    let parts = squares_layout.shape().elem_count() as i32;
    let control = values::<f64>(control, layout, &stream)?;
    let squares = values::<f64>(squares, squares_layout, &stream)?;
    let loss = values::<f64>(loss, loss_layout, &stream)?;
    let grid = Grid::reducing(1, size_of::<f64>());
    launch!(device, Adam::"decide_f64", grid, parts, op.images, op.clip, squares, loss, control);
    Ok(())
}

pub(super) fn update(
    op: &Update<'_>,
    (parameter, layout): Output,
    (gradient, gradient_layout): Input,
) -> Result<()> {
    let device = &gradient.device;
    let stream = device.cuda_stream();
    let size = layout.shape().elem_count();
    let control = address_of::<f64>(op.control)?;
    let moments = address_of::<f32>(op.moments)?;
    let parameter = values::<f32>(parameter, layout, &stream)?;
    let gradient = values::<f32>(gradient, gradient_layout, &stream)?;
    let numbers = Sized {
        size: size as i32,
        step: op.step,
    };
    launch!(device, Adam::"adam_f32", Grid::over(size), numbers, control, gradient, moments, parameter);
    Ok(())
}

/// Where the values of a contiguous tensor start; the tensor must outlive the launch.
fn address_of<T: CudaDType + DeviceRepr>(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("the optimizer's tensors are on different devices");
    };
    let stream = storage.device.cuda_stream();
    values::<T>(storage, layout, &stream)
}
