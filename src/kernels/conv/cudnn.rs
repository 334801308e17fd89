//! Convolution products by cuDNN. Descriptors, algorithm and workspace size of each geometry are settled once a
//! thread (cuDNN's handles do not move between threads). Algorithms are those that cuDNN expects to be the fastest, but
//! for gradients only such as sum in a fixed order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, FilterDescriptor,
    TensorDescriptor, result::CudnnError, sys,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{
    CudaDevice, CudaStorage, Layout, Result as CandleResult, Storage, Tensor, op::BackpropOp,
};

use super::geometry::Geometry;
use crate::Result;
use crate::kernels::tf32::tf32;

type ForwardAlgorithm = sys::cudnnConvolutionFwdAlgo_t;
type InputAlgorithm = sys::cudnnConvolutionBwdDataAlgo_t;
type WeightAlgorithm = sys::cudnnConvolutionBwdFilterAlgo_t;

/// An algorithm may work in so many bytes; cuDNN's choice does not look at the memory.
const WORKSPACE: usize = 256 << 20;

/// The algorithm and the bytes that it works in: of `other` where `chosen` wants more than [`WORKSPACE`].
fn fitting<A: Copy>(
    chosen: A,
    other: A,
    bytes: impl Fn(A) -> std::result::Result<usize, CudnnError>,
) -> std::result::Result<(A, usize), CudnnError> {
    match bytes(chosen)? {
        wanted if wanted <= WORKSPACE => Ok((chosen, wanted)),
        _ => Ok((other, bytes(other)?)),
    }
}

/// cuDNN's choice, unless it is the one that sums in no fixed order (cuDNN's reference, its algorithms' notes).
fn fixed_order_input(chosen: InputAlgorithm) -> InputAlgorithm {
    match chosen {
        InputAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 => {
            InputAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1
        }
        fixed => fixed,
    }
}

/// The same of the weight's gradient, of which two sum in no fixed order.
fn fixed_order_weight(chosen: WeightAlgorithm) -> WeightAlgorithm {
    match chosen {
        WeightAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0
        | WeightAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3 => {
            WeightAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1
        }
        fixed => fixed,
    }
}

/// What a plan depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    device: DeviceId,
    geometry: Geometry,
    /// Distance of the input's images.
    x_image: usize,
    tf32: bool,
}

/// One geometry's descriptors.
struct Plan {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<f32>,
    /// The input packed, as its gradient is written.
    packed_x: TensorDescriptor<f32>,
    w: FilterDescriptor<f32>,
    y: TensorDescriptor<f32>,
    /// Algorithms, and the bytes that they work in.
    forward: (ForwardAlgorithm, usize),
    input: (InputAlgorithm, usize),
    weight: (WeightAlgorithm, usize),
}

thread_local! {
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    static PLANS: RefCell<HashMap<Key, Rc<Plan>>> = RefCell::default();
}

impl Plan {
    fn new(device: &CudaDevice, key: &Key) -> std::result::Result<Self, CudnnError> {
        let cudnn = handle(device)?;
        let g = &key.geometry;
        let int = |n: usize| n as i32;
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        let mut conv = cudnn.create_conv2d::<f32>(
            [int(g.padding); 2],
            [int(g.stride); 2],
            [1; 2],
            sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
        )?;
        // The default takes TF32 by itself.
        conv.set_math_type(if key.tf32 {
            sys::cudnnMathType_t::CUDNN_DEFAULT_MATH
        } else {
            sys::cudnnMathType_t::CUDNN_FMA_MATH
        })?;
        let x_dims = [g.batch, g.in_channels, g.in_h, g.in_w].map(int);
        let x_strides = [key.x_image, g.in_plane(), g.in_w, 1].map(int);
        let w_dims = [g.out_channels, g.in_channels, g.kernel_h, g.kernel_w].map(int);
        let y_dims = [g.batch, g.out_channels, g.out_h, g.out_w].map(int);
        let x = cudnn.create_4d_tensor_ex::<f32>(x_dims, x_strides)?;
        let packed_x = cudnn.create_4d_tensor::<f32>(format, x_dims)?;
        let w = cudnn.create_4d_filter::<f32>(format, w_dims)?;
        let y = cudnn.create_4d_tensor::<f32>(format, y_dims)?;
        let mut plan = Self {
            conv,
            x,
            packed_x,
            w,
            y,
            forward: (
                ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
                0,
            ),
            input: (InputAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, 0),
            weight: (WeightAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, 0),
        };
        let chosen = plan.forward().pick_algorithm()?;
        plan.forward = fitting(chosen, plan.forward.0, |algorithm| {
            plan.forward().get_workspace_size(algorithm)
        })?;
        let chosen = fixed_order_input(plan.input().pick_algorithm()?);
        plan.input = fitting(chosen, plan.input.0, |algorithm| {
            plan.input().get_workspace_size(algorithm)
        })?;
        let chosen = fixed_order_weight(plan.weight().pick_algorithm()?);
        plan.weight = fitting(chosen, plan.weight.0, |algorithm| {
            plan.weight().get_workspace_size(algorithm)
        })?;
        Ok(plan)
    }

    fn forward(&self) -> ConvForward<'_, f32, f32, f32> {
        ConvForward {
            conv: &self.conv,
            x: &self.x,
            w: &self.w,
            y: &self.y,
        }
    }

    fn input(&self) -> ConvBackwardData<'_, f32, f32, f32> {
        ConvBackwardData {
            conv: &self.conv,
            dx: &self.packed_x,
            w: &self.w,
            dy: &self.y,
        }
    }

    fn weight(&self) -> ConvBackwardFilter<'_, f32, f32, f32> {
        ConvBackwardFilter {
            conv: &self.conv,
            x: &self.x,
            dw: &self.w,
            dy: &self.y,
        }
    }
}

/// Starts cuDNN, or says why it cannot be used.
pub(super) fn open(device: &CudaDevice) -> std::result::Result<(), CudnnError> {
    handle(device).map(|_| ())
}

fn handle(device: &CudaDevice) -> std::result::Result<Arc<Cudnn>, CudnnError> {
    HANDLES.with_borrow_mut(|handles| {
        if let Some(handle) = handles.get(&device.id()) {
            return Ok(handle.clone());
        }
        let handle = Cudnn::new(device.cuda_stream())?;
        handles.insert(device.id(), handle.clone());
        Ok(handle)
    })
}

/// The plan for a geometry, from the cache.
fn plan(device: &CudaDevice, geometry: &Geometry, x_image: usize) -> CandleResult<Rc<Plan>> {
    let key = Key {
        device: device.id(),
        geometry: *geometry,
        x_image,
        tf32: tf32(),
    };
    PLANS.with_borrow_mut(|plans| {
        if let Some(plan) = plans.get(&key) {
            return Ok(plan.clone());
        }
        let plan = Rc::new(Plan::new(device, &key).map_err(candle_core::Error::wrap)?);
        plans.insert(key, plan.clone());
        Ok(plan)
    })
}

/// The convolution, without bias.
pub(super) fn forward(g: &Geometry, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let shape = g.out_shape();
    let y = with_view(x, |device, x, layout| {
        with_view(w, |_, w, _| {
            let plan = plan(device, g, image_distance(layout))?;
            let (mut y, mut workspace) = buffers(device, g.batch * g.out_image(), plan.forward.1)?;
            // SAFETY: the descriptors are of these very sizes.
            unsafe {
                plan.forward().launch(
                    plan.forward.0,
                    Some(&mut workspace),
                    (1.0, 0.0),
                    &x,
                    &w,
                    &mut y,
                )
            }
            .map_err(candle_core::Error::wrap)?;
            Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
        })
    })?;
    Ok(Tensor::from_storage(
        Storage::Cuda(y),
        shape,
        BackpropOp::none(),
        false,
    ))
}

/// The gradient of the input.
pub(super) fn input_gradient(g: &Geometry, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let shape = (g.batch, g.in_channels, g.in_h, g.in_w);
    let dx = with_view(&w.contiguous()?, |device, w, _| {
        with_view(dy, |_, dy, _| {
            let image = g.in_channels * g.in_plane();
            let plan = plan(device, g, image)?;
            let (mut dx, mut workspace) = buffers(device, g.batch * image, plan.input.1)?;
            // SAFETY: as above.
            unsafe {
                plan.input().launch(
                    plan.input.0,
                    Some(&mut workspace),
                    (1.0, 0.0),
                    &mut dx,
                    &w,
                    &dy,
                )
            }
            .map_err(candle_core::Error::wrap)?;
            Ok(CudaStorage::wrap_cuda_slice(dx, device.clone()))
        })
    })?;
    Ok(Tensor::from_storage(
        Storage::Cuda(dx),
        shape,
        BackpropOp::none(),
        false,
    ))
}

/// The gradient of the weight.
pub(super) fn weight_gradient(g: &Geometry, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let shape = (g.out_channels, g.in_channels, g.kernel_h, g.kernel_w);
    let dw = with_view(x, |device, x, layout| {
        with_view(dy, |_, dy, _| {
            let plan = plan(device, g, image_distance(layout))?;
            let (mut dw, mut workspace) =
                buffers(device, g.out_channels * g.patch(), plan.weight.1)?;
            // SAFETY: as above.
            unsafe {
                plan.weight().launch(
                    plan.weight.0,
                    Some(&mut workspace),
                    (1.0, 0.0),
                    &x,
                    &mut dw,
                    &dy,
                )
            }
            .map_err(candle_core::Error::wrap)?;
            Ok(CudaStorage::wrap_cuda_slice(dw, device.clone()))
        })
    })?;
    Ok(Tensor::from_storage(
        Storage::Cuda(dw),
        shape,
        BackpropOp::none(),
        false,
    ))
}

fn image_distance(layout: &Layout) -> usize {
    match layout.dims()[0] {
        1 => layout.dims()[1..].iter().product(),
        _ => layout.stride()[0],
    }
}

/// An output and a workspace.
fn buffers(
    device: &CudaDevice,
    len: usize,
    workspace: usize,
) -> CandleResult<(CudaSlice<f32>, CudaSlice<u8>)> {
    // SAFETY: cuDNN writes the output before anyone reads it, and only uses the workspace as such. One byte is
    // kept for a workspace of none.
    unsafe {
        Ok((
            device.alloc::<f32>(len)?,
            device.alloc::<u8>(workspace.max(1))?,
        ))
    }
}

/// Calls `f` with a tensor's memory from its first value on.
fn with_view<R>(
    tensor: &Tensor,
    f: impl FnOnce(&CudaDevice, CudaView<'_, f32>, &Layout) -> CandleResult<R>,
) -> CandleResult<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("cuDNN was given a tensor of another device");
    };
    let slice = storage.as_cuda_slice::<f32>()?;
    f(
        &storage.device,
        slice.slice(layout.start_offset()..),
        layout,
    )
}
