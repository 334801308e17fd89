//! Convolutions on a GPU: products by cuDNN (feature `cudnn`), else patches and cuBLAS; bias, residual and ReLU in
//! one pass of our own, forward and backward (../cuda/conv.h).

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, DType, InplaceOp1, Layout,
    Result as CandleResult, Shape, Storage, Tensor,
};

use super::geometry::Geometry;
use super::{ConvGradients, check_shape};
use crate::Result;
use crate::kernels::coupling::cuda::{span, sum_rows, with_values};
use crate::kernels::cuda::{Grid, WIDE, address, launch, values};
use crate::kernels::view::batch_strided;

#[cfg(feature = "cudnn")]
use super::cudnn as product;
#[cfg(not(feature = "cudnn"))]
use super::patched as product;

/// Whether this tensor goes through these kernels.
pub(super) fn is_ours(x: &Tensor) -> bool {
    x.device().is_cuda() && x.dtype() == DType::F32
}

/// The convolution with its whole epilogue; no backward.
pub(super) fn convolve(
    geometry: &Geometry,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let y = product::forward(geometry, &batch_strided(x)?, &w.contiguous()?)?;
    if b.is_none() && residual.is_none() && !relu {
        return Ok(y);
    }
    let bias = b.map(Tensor::contiguous).transpose()?;
    let residual = residual.map(batch_strided).transpose()?;
    if let Some(residual) = &residual {
        check_shape("residual", residual, geometry.out_shape().into())?;
    }
    y.inplace_op1(&Epilogue {
        bias,
        residual,
        relu,
    })?;
    Ok(y)
}

/// Gradients as [`super::conv2d_backward`] gives them.
pub(super) fn gradients(
    geometry: &Geometry,
    x: &Tensor,
    w: &Tensor,
    dy: &Tensor,
    relu_output: Option<&Tensor>,
    want_input: bool,
) -> Result<ConvGradients> {
    let (batch, channels, height, width) = geometry.out_shape();
    let values = batch * channels * height * width;
    let (dy, bias) = match relu_output {
        None => (dy.contiguous()?, dy.apply_op1_no_bwd(&BiasGradient)?),
        Some(output) => {
            let packed = dy.apply_op2_no_bwd(output, &MaskedGradient)?;
            let masked = packed.narrow(0, 0, values)?;
            (
                masked.reshape(geometry.out_shape())?,
                // A copy: it outlives the large gradient before it.
                packed.narrow(0, values, channels)?.force_contiguous()?,
            )
        }
    };
    Ok(ConvGradients {
        input: match want_input {
            true => Some(product::input_gradient(geometry, w, &dy)?),
            false => None,
        },
        weight: product::weight_gradient(geometry, x, &dy)?,
        bias,
    })
}

/// Adds a bias and a residual, where there are such, and cuts at zero, in place.
struct Epilogue {
    /// Contiguous.
    bias: Option<Tensor>,
    residual: Option<Tensor>,
    relu: bool,
}

impl InplaceOp1 for Epilogue {
    fn name(&self) -> &'static str {
        "conv-epilogue"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> CandleResult<()> {
        candle_core::bail!("the CPU's convolution has its own epilogue")
    }

    fn cuda_fwd(&self, y: &mut CudaStorage, layout: &Layout) -> CandleResult<()> {
        let device = &y.device;
        let stream = device.cuda_stream();
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let positions = height * width;
        let bias = match &self.bias {
            None => 0,
            Some(bias) => with_values(bias, Ok)?,
        };
        let (residual, residual_image) = match &self.residual {
            None => (0, 0),
            Some(residual) => {
                let (storage, layout) = residual.storage_and_layout();
                let Storage::Cuda(storage) = &*storage else {
                    candle_core::bail!("the residual is on another device");
                };
                let residual = address::<f32>(storage, layout, &stream)?;
                (residual.at, residual.image)
            }
        };
        let y = values::<f32>(y, layout, &stream)?;
        let grid = Grid::over(batch * channels * positions.div_ceil(WIDE));
        launch!(
            device, Conv::"epilogue_f32", grid,
            batch as i32, channels as i32, positions as i32, i32::from(self.relu), residual_image, y, bias, residual, y
        );
        Ok(())
    }
}

/// dy where the output is above 0, and the bias's gradient behind it.
struct MaskedGradient;
/// The bias's gradient alone.
struct BiasGradient;

/// Runs the epilogue's backward; `masked` is written where an output is given.
fn epilogue_backward(
    (dy, dy_layout): (&CudaStorage, &Layout),
    output: Option<(&CudaStorage, &Layout)>,
) -> CandleResult<(CudaStorage, usize)> {
    let device = &dy.device;
    let stream = device.cuda_stream();
    let (batch, channels, height, width) = dy_layout.shape().dims4()?;
    let positions = height * width;
    let vectors = batch * positions.div_ceil(WIDE);
    let span = span(vectors, channels);
    let chunks = vectors.div_ceil(span);
    let kept = if output.is_some() {
        batch * channels * positions
    } else {
        0
    };
    // SAFETY: the kernels write all of both.
    let (packed, partial) = unsafe {
        (
            device.alloc::<f32>(kept + channels)?,
            device.alloc::<f32>(chunks * channels)?,
        )
    };
    {
        let dy = address::<f32>(dy, dy_layout, &stream)?;
        let output = output
            .map(|(storage, layout)| address::<f32>(storage, layout, &stream))
            .transpose()?;
        let (out, out_image) = output
            .as_ref()
            .map_or((0, 0), |output| (output.at, output.image));
        let (start, _written) = packed.device_ptr(&stream);
        let masked = if kept > 0 { start } else { 0 };
        let total = start + (kept * size_of::<f32>()) as u64;
        let (partial, _partial) = partial.device_ptr(&stream);
        let grid = Grid::reducing(chunks * channels, size_of::<f32>());
        launch!(
            device, Conv::"epilogue_backward_f32", grid,
            batch as i32, channels as i32, positions as i32, span as i32, dy.image, out_image, dy.at, out, masked,
            partial
        );
        sum_rows(device, chunks, channels, partial, total)?;
    }
    Ok((
        CudaStorage::wrap_cuda_slice(packed, device.clone()),
        kept + channels,
    ))
}

impl CustomOp2 for MaskedGradient {
    fn name(&self) -> &'static str {
        "conv-epilogue-backward"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        candle_core::bail!("the CPU's convolution has its own backward")
    }

    fn cuda_fwd(
        &self,
        dy: &CudaStorage,
        dy_layout: &Layout,
        output: &CudaStorage,
        layout: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        let (packed, len) = epilogue_backward((dy, dy_layout), Some((output, layout)))?;
        Ok((packed, Shape::from(len)))
    }
}

impl CustomOp1 for BiasGradient {
    fn name(&self) -> &'static str {
        "conv-bias-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        candle_core::bail!("the CPU's convolution has its own backward")
    }

    fn cuda_fwd(&self, dy: &CudaStorage, layout: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        let (packed, len) = epilogue_backward((dy, layout), None)?;
        Ok((packed, Shape::from(len)))
    }
}

/// The ResNet stem's pool of a contiguous `x [B, C, H, W]`.
pub(super) fn max_pool(x: &Tensor) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1_no_bwd(&MaxPool)?)
}

struct MaxPool;

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool-3x3-s2-p1"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        candle_core::bail!("the CPU has its own pool")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        let device = &x.device;
        let stream = device.cuda_stream();
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let shape = (batch, channels, height.div_ceil(2), width.div_ceil(2));
        let len = shape.0 * shape.1 * shape.2 * shape.3;
        // SAFETY: the kernel writes all of it.
        let y = unsafe { device.alloc::<f32>(len)? };
        {
            let x = values::<f32>(x, layout, &stream)?;
            let (out, _written) = y.device_ptr(&stream);
            let planes = (batch * channels) as i32;
            launch!(device, Conv::"max_pool_f32", Grid::over(len), planes, height as i32, width as i32, x, out);
        }
        Ok((
            CudaStorage::wrap_cuda_slice(y, device.clone()),
            shape.into(),
        ))
    }
}
