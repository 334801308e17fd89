//! The optimizer on a GPU, many tensors a launch; arithmetic and launch shapes are in ../cuda/adam.h.

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Storage, Tensor};

use super::{AdamStep, Decide, PARTS};
use crate::kernels::cuda::{Grid, launch, values};

/// A storage with its layout.
type Input<'a> = (&'a CudaStorage, &'a Layout);
type Output<'a> = (&'a mut CudaStorage, &'a Layout);

/// Tensors of one launch, as in adam.h.
const MANY: usize = 96;

/// `Gradients` of adam.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Gradients {
    count: i32,
    size: [i32; MANY],
    values: [u64; MANY],
}

/// `Parameters` of adam.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    gradients: Gradients,
    moments: [u64; MANY],
    values: [u64; MANY],
}

/// The sizes that adam.h asserts too.
const _: () = assert!(size_of::<Parameters>() == 2696 && size_of::<AdamStep>() == 24);

// SAFETY: plain numbers and addresses in C's layout, as adam.h declares them.
unsafe impl DeviceRepr for Gradients {}
// SAFETY: as above.
unsafe impl DeviceRepr for Parameters {}
// SAFETY: as above.
unsafe impl DeviceRepr for AdamStep {}

impl Gradients {
    /// Of at most [`MANY`].
    fn of(device: &CudaDevice, tensors: &[Tensor]) -> Result<Self> {
        let mut size = [0; MANY];
        for (size, tensor) in size.iter_mut().zip(tensors) {
            *size = tensor.elem_count() as i32;
        }
        Ok(Self {
            count: tensors.len() as i32,
            size,
            values: addresses(device, tensors)?,
        })
    }

    fn grid(&self) -> Grid {
        Grid::reducing(self.count as usize * PARTS, size_of::<f64>())
    }
}

/// Parts of the sums of squares of contiguous `gradients`, into `squares`.
pub(super) fn sum_squares(
    device: &CudaDevice,
    gradients: &[Tensor],
    squares: &Tensor,
) -> Result<()> {
    let squares = address_of::<f64>(device, squares)?;
    for (index, gradients) in gradients.chunks(MANY).enumerate() {
        let gradients = Gradients::of(device, gradients)?;
        let part = squares + (index * MANY * PARTS * size_of::<f64>()) as u64;
        launch!(device, Adam::"sum_squares_f32", gradients.grid(), gradients, part);
    }
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

/// Moves all parameters and their moments along contiguous `gradients`.
pub(super) fn update(
    device: &CudaDevice,
    step: AdamStep,
    control: &Tensor,
    gradients: &[Tensor],
    moments: &[Tensor],
    parameters: &[Tensor],
) -> Result<()> {
    let control = address_of::<f64>(device, control)?;
    let tensors = gradients.chunks(MANY).zip(moments.chunks(MANY));
    for ((gradients, moments), parameters) in tensors.zip(parameters.chunks(MANY)) {
        let all = Parameters {
            gradients: Gradients::of(device, gradients)?,
            moments: addresses(device, moments)?,
            values: addresses(device, parameters)?,
        };
        launch!(device, Adam::"adam_f32", all.gradients.grid(), step, all, control);
    }
    Ok(())
}

fn addresses(device: &CudaDevice, tensors: &[Tensor]) -> Result<[u64; MANY]> {
    let mut all = [0; MANY];
    for (address, tensor) in all.iter_mut().zip(tensors) {
        *address = address_of::<f32>(device, tensor)?;
    }
    Ok(all)
}

/// Where the values of a contiguous tensor on this device start; the tensor must outlive the launch.
fn address_of<T: CudaDType + DeviceRepr>(device: &CudaDevice, tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let storage = match &*storage {
        Storage::Cuda(storage) if storage.device.id() == device.id() => storage,
        _ => candle_core::bail!("the optimizer's tensors are on different devices"),
    };
    let stream = storage.device.cuda_stream();
    values::<T>(storage, layout, &stream)
}
