//! f32 convolution on the CPU with all cores, and its backward.
//!
//! Inside a rayon worker everything runs on that thread, elsewhere on the global pool. Tiles and the
//! order of additions are fixed, so results are the same bit for bit with any number of threads, and
//! an image's result does not depend on the batch around it.

mod backward;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cudnn")]
mod cudnn;
mod depthwise;
mod forward;
mod geometry;
#[cfg(all(feature = "cuda", not(feature = "cudnn")))]
mod patched;
mod patches;
mod pool;
mod prepared;
mod winograd;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor};

use self::backward::Gradient;
use self::forward::Epilogue;
use self::geometry::Geometry;
use super::view::{Host, Images, batch_strided};
use crate::{Error, Result};

pub use self::pool::max_pool_3x3_s2_p1;
use self::prepared::Filter;
pub use self::prepared::PreparedConv;

/// What a convolution's backward gives.
pub struct ConvGradients {
    /// `[B, C, H, W]`, where it was wanted.
    pub input: Option<Tensor>,
    /// The weight's shape.
    pub weight: Tensor,
    /// `[out_channels]`, the sum of the output's gradient.
    pub bias: Tensor,
}

/// Convolves `x [B, C, H, W]` with `w [O, C, kh, kw]` and adds `b [O]`; differentiable.
///
/// The images of `x` should each be contiguous (their distance is free, so channels narrowed off the
/// front cost no copy). An `x` that no variable stands behind gets no gradient. On a GPU only what no
/// variable stands behind goes through our kernels; that, and other types, through candle's convolution.
///
/// # Errors
/// If the shapes do not fit together.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims(), w.dims(), stride, padding)?;
    check_channels("bias", b, geometry.out_channels)?;
    #[cfg(feature = "cuda")]
    if cuda::is_ours(x)
        && ![Some(x), Some(w), b]
            .into_iter()
            .flatten()
            .any(Tensor::track_op)
    {
        return cuda::convolve(&geometry, x, w, b, None, false);
    }
    if !is_ours(x) {
        return plain(x, w, b, stride, padding);
    }
    let op = Convolution { geometry };
    let (x, w) = (batch_strided(x)?, w.contiguous()?);
    Ok(match b {
        Some(b) => x.apply_op3(&w, &b.contiguous()?, op)?,
        None => x.apply_op2(&w, op)?,
    })
}

/// [`conv2d`] with `residual` (the output's shape) added and a ReLU, in one pass, without a backward.
///
/// # Errors
/// If the shapes do not fit together.
pub fn conv2d_fused(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: usize,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims(), w.dims(), stride, padding)?;
    check_channels("bias", b, geometry.out_channels)?;
    #[cfg(feature = "cuda")]
    if cuda::is_ours(x) {
        return cuda::convolve(&geometry, x, w, b, residual, relu);
    }
    if !is_ours(x) {
        let y = plain(x, w, b, stride, padding)?;
        let y = residual.map_or(Ok(y.clone()), |residual| y + residual)?;
        return Ok(if relu { y.relu()? } else { y });
    }
    let w = w.contiguous()?;
    let host_w = Host::open(&w);
    let filter = Filter::new(&geometry, host_w.values()?);
    prepared::run(&filter, &geometry, x, b, residual, relu)
}

/// The backward of [`conv2d_fused`]: gradients for the output's gradient `dy`.
///
/// `relu_output` is the fused ReLU's output; where it is 0, `dy` is taken as 0. `want_input` false
/// spares the input's gradient. f32 only.
///
/// # Errors
/// If the shapes do not fit together, or a tensor is not f32.
pub fn conv2d_backward(
    x: &Tensor,
    w: &Tensor,
    dy: &Tensor,
    stride: usize,
    padding: usize,
    relu_output: Option<&Tensor>,
    want_input: bool,
) -> Result<ConvGradients> {
    let geometry = Geometry::new(x.dims(), w.dims(), stride, padding)?;
    check_shape("gradient", dy, geometry.out_shape().into())?;
    let (x, w, dy) = (batch_strided(x)?, w.contiguous()?, batch_strided(dy)?);
    #[cfg(feature = "cuda")]
    if cuda::is_ours(&x) {
        let output = relu_output.map(batch_strided).transpose()?;
        if let Some(output) = &output {
            check_shape("ReLU output", output, geometry.out_shape().into())?;
        }
        return cuda::gradients(&geometry, &x, &w, &dy, output.as_ref(), want_input);
    }
    let (host_x, host_w, host_dy) = (Host::open(&x), Host::open(&w), Host::open(&dy));
    let output = relu_output.map(batch_strided).transpose()?;
    if let Some(output) = &output {
        check_shape("ReLU output", output, geometry.out_shape().into())?;
    }
    let host_output = output.as_ref().map(Host::open);
    let mask = host_output.as_ref().map(Host::images).transpose()?;
    let gradient = Gradient {
        dy: host_dy.images()?,
        mask,
    };
    let found = backward::gradients(
        &geometry,
        host_x.images()?,
        host_w.values()?,
        gradient,
        want_input,
    );
    let device = x.device();
    Ok(ConvGradients {
        input: found
            .input
            .map(|dx| Tensor::from_vec(dx, x.shape(), device))
            .transpose()?,
        weight: Tensor::from_vec(found.weight, w.shape(), device)?,
        bias: Tensor::from_vec(found.bias, geometry.out_channels, device)?,
    })
}

/// Starts cuDNN on this device, so that a library that does not fit shows before there is work.
#[cfg(feature = "cudnn")]
pub(crate) fn open_cudnn(device: &candle_core::CudaDevice) -> candle_core::Result<()> {
    cudnn::open(device).map_err(candle_core::Error::wrap)
}

/// Whether the CPU kernels take this tensor.
fn is_ours(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// candle's own convolution, for other devices and types.
fn plain(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let y = x.conv2d(w, padding, stride, 1, 1)?;
    Ok(match b {
        Some(b) => y.broadcast_add(&b.reshape((1, (), 1, 1))?)?,
        None => y,
    })
}

/// Refuses a per-channel vector of the wrong length.
fn check_channels(what: &str, vector: Option<&Tensor>, channels: usize) -> Result<()> {
    vector.map_or(Ok(()), |vector| check_shape(what, vector, channels.into()))
}

/// Refuses a tensor of the wrong shape.
fn check_shape(what: &str, tensor: &Tensor, expected: Shape) -> Result<()> {
    if tensor.shape() == &expected {
        return Ok(());
    }
    Err(Error::Shape {
        what: format!("convolution {what}"),
        expected: format!("{:?}", expected.dims()),
        found: format!("{:?}", tensor.dims()),
    })
}

/// candle's handle on the differentiable convolution.
struct Convolution {
    geometry: Geometry,
}

impl Convolution {
    /// Both forms' forward pass.
    fn forward(
        &self,
        (x, x_layout): (&CpuStorage, &Layout),
        (w, w_layout): (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let bias = bias.map(|(b, layout)| contiguous(b, layout)).transpose()?;
        let epilogue = Epilogue {
            bias,
            ..Epilogue::default()
        };
        let images = Images::new(x, x_layout).map_err(candle_core::Error::wrap)?;
        let weight = contiguous(w, w_layout)?;
        let out = Filter::new(&self.geometry, weight).convolve(&self.geometry, images, &epilogue);
        Ok((CpuStorage::F32(out), self.geometry.out_shape().into()))
    }

    /// Both forms' backward pass; an input that no variable stands behind is spared.
    fn backward(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> candle_core::Result<ConvGradients> {
        let Geometry {
            stride, padding, ..
        } = self.geometry;
        conv2d_backward(x, w, dy, stride, padding, None, x.track_op())
            .map_err(candle_core::Error::wrap)
    }
}

/// The elements of a contiguous f32 storage.
fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::Msg("convolution weights must be contiguous".into()))?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.forward((x, x_layout), (w, w_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let gradients = self.backward(x, w, dy)?;
        Ok((gradients.input, Some(gradients.weight)))
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.forward((x, x_layout), (w, w_layout), Some((b, b_layout)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = self.backward(x, w, dy)?;
        Ok((
            gradients.input,
            Some(gradients.weight),
            Some(gradients.bias),
        ))
    }
}

#[cfg(test)]
mod tests;
