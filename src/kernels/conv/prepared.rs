//! A convolution whose weights were brought into the engine's form once.

use candle_core::Tensor;

use super::forward::{self, Epilogue};
use super::geometry::Geometry;
use super::winograd::{self, Taps};
use super::{check_channels, check_shape, conv2d_fused, is_ours};
use crate::Result;
use crate::kernels::view::{Host, Images, batch_strided};

/// Weights in the form that the engine for their geometry wants.
pub(crate) enum Filter<'a> {
    /// `[out, patch]`
    Direct(&'a [f32]),
    /// For Winograd's engine.
    Winograd(Taps<'a>),
}

impl<'a> Filter<'a> {
    /// Chooses the engine.
    pub(crate) fn new(geometry: &Geometry, weight: &'a [f32]) -> Self {
        if winograd::applies(geometry) {
            Self::Winograd(Taps::new(
                weight,
                geometry.out_channels,
                geometry.in_channels,
            ))
        } else {
            Self::Direct(weight)
        }
    }

    /// Convolves a batch; the output is packed.
    pub(crate) fn convolve(&self, geometry: &Geometry, x: Images, epilogue: &Epilogue) -> Vec<f32> {
        match self {
            Self::Direct(weight) => forward::convolve(geometry, x, weight, epilogue),
            Self::Winograd(taps) => winograd::convolve(geometry, x, None, *taps, epilogue),
        }
    }
}

/// A frozen convolution: rearranged weights, bias, stride and padding; no backward.
///
/// Fold a batch norm into weight and bias before.
#[derive(Debug)]
pub struct PreparedConv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: usize,
    /// Rearranged taps, where Winograd's engine takes them.
    planar: Option<Vec<f32>>,
}

impl PreparedConv {
    /// Prepares `w [O, C, kh, kw]` and `b [O]`.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn new(w: &Tensor, b: Option<&Tensor>, stride: usize, padding: usize) -> Result<Self> {
        let (out, input, kernel_h, kernel_w) = w.dims4()?;
        // Any map that holds the kernel: the choice of the engine does not depend on its size.
        let map = [1, input, kernel_h, kernel_w];
        let geometry = Geometry::new(&map, w.dims(), stride, padding)?;
        check_channels("bias", b, out)?;
        let weight = w.contiguous()?;
        let planar = if is_ours(w) && winograd::applies(&geometry) {
            Some(Taps::new(Host::open(&weight).values()?, out, input).planar())
        } else {
            None
        };
        let bias = b.map(Tensor::contiguous).transpose()?;
        Ok(Self {
            weight,
            bias,
            stride,
            padding,
            planar,
        })
    }

    /// Convolves `x [B, C, H, W]`, adds the bias and `residual` (the output's shape), then a ReLU.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let (stride, padding) = (self.stride, self.padding);
        let Some(planar) = self.planar.as_ref().filter(|_| is_ours(x)) else {
            let bias = self.bias.as_ref();
            return conv2d_fused(x, &self.weight, bias, stride, padding, residual, relu);
        };
        let geometry = Geometry::new(x.dims(), self.weight.dims(), stride, padding)?;
        let taps = Taps::from_planar(planar, geometry.out_channels, geometry.in_channels);
        let x = batch_strided(x)?;
        let residual = residual.map(batch_strided).transpose()?;
        if let Some(residual) = &residual {
            check_shape("residual", residual, geometry.out_shape().into())?;
        }
        let (host_x, host_bias) = (Host::open(&x), self.bias.as_ref().map(Host::open));
        let host_residual = residual.as_ref().map(Host::open);
        let epilogue = Epilogue {
            bias: host_bias.as_ref().map(Host::values).transpose()?,
            residual: host_residual.as_ref().map(Host::images).transpose()?,
            relu,
        };
        let out = winograd::convolve(&geometry, host_x.images()?, None, taps, &epilogue);
        Ok(Tensor::from_vec(out, geometry.out_shape(), x.device())?)
    }
}
