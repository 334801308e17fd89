//! A convolution whose weights were brought into the engine's form once.

use candle_core::{Device, Tensor};

use super::forward::{self, Epilogue};
use super::geometry::Geometry;
use super::winograd::{self, Taps};
use super::{check_channels, check_shape, conv2d_fused, depthwise, is_ours};
use crate::kernels::view::{Host, Images, batch_strided};
use crate::{Error, Result};

/// Weights in the form that the engine for their geometry wants.
pub(crate) enum Filter<'a> {
    /// `[out, patch]`
    Direct(&'a [f32]),
    /// For Winograd's engine.
    Winograd(Taps<'a>),
    /// `[out, taps]`, each output channel of one input channel.
    Depthwise(&'a [f32]),
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
            Self::Depthwise(weight) => depthwise::convolve(geometry, x, weight, epilogue),
        }
    }
}

/// A frozen convolution: rearranged weights, bias, stride, padding and groups; no backward.
///
/// Fold a batch norm into weight and bias before.
#[derive(Debug)]
pub struct PreparedConv {
    engine: Engine,
    /// `[O, C, kh, kw]`, C over all groups.
    dims: [usize; 4],
    bias: Option<Tensor>,
    stride: usize,
    padding: usize,
    device: Device,
}

/// What holds the weights.
#[derive(Debug)]
enum Engine {
    /// Taps as [`Taps::planar`] arranges them.
    Winograd(Vec<f32>),
    /// One input channel for each output channel, on the CPU; `[O, kh kw]`.
    Depthwise(Vec<f32>),
    /// One convolution a group, on its share of the channels.
    Groups(Vec<PreparedConv>),
    /// Everything else, other devices included.
    General(Tensor),
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
        let engine = if is_ours(w) && winograd::applies(&geometry) {
            Engine::Winograd(Taps::new(Host::open(&weight).values()?, out, input).planar())
        } else {
            Engine::General(weight)
        };
        Ok(Self {
            engine,
            dims: [out, input, kernel_h, kernel_w],
            bias: b.map(Tensor::contiguous).transpose()?,
            stride,
            padding,
            device: w.device().clone(),
        })
    }

    /// Prepares `w [O, C / groups, kh, kw]` and `b [O]`: the channels of input and output fall into `groups` equal
    /// runs, and an output channel sees those of its own run. With as many groups as input channels each has one
    /// to itself (depthwise); one group is [`PreparedConv::new`].
    ///
    /// # Errors
    /// If the shapes do not fit together, or `groups` does not divide the output channels.
    pub fn grouped(
        w: &Tensor,
        b: Option<&Tensor>,
        stride: usize,
        padding: usize,
        groups: usize,
    ) -> Result<Self> {
        if groups == 1 {
            return Self::new(w, b, stride, padding);
        }
        let (out, share, kernel_h, kernel_w) = w.dims4()?;
        if groups == 0 || !out.is_multiple_of(groups) {
            return Err(Error::Shape {
                what: "grouped convolution".into(),
                expected: format!("output channels that {groups} groups divide"),
                found: format!("{:?}", w.dims()),
            });
        }
        check_channels("bias", b, out)?;
        let rows = out / groups;
        let group = |index: usize| {
            let b = b.map(|b| b.narrow(0, index * rows, rows)).transpose()?;
            let w = w.narrow(0, index * rows, rows)?;
            Self::new(&w, b.as_ref(), stride, padding)
        };
        let engine = if share == 1 && is_ours(w) {
            // Checks stride and kernel as all groups would.
            group(0)?;
            Engine::Depthwise(w.flatten_all()?.to_vec1()?)
        } else {
            Engine::Groups((0..groups).map(group).collect::<Result<_>>()?)
        };
        Ok(Self {
            engine,
            dims: [out, share * groups, kernel_h, kernel_w],
            bias: b.map(Tensor::contiguous).transpose()?,
            stride,
            padding,
            device: w.device().clone(),
        })
    }

    /// Where its weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Convolves `x [B, C, H, W]`, adds the bias and `residual` (the output's shape), then a ReLU.
    ///
    /// # Errors
    /// If the shapes do not fit together, or `x` is elsewhere.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let (stride, padding, bias) = (self.stride, self.padding, self.bias.as_ref());
        let filter = match &self.engine {
            Engine::General(w) => return conv2d_fused(x, w, bias, stride, padding, residual, relu),
            Engine::Groups(groups) => return self.forward_groups(groups, x, residual, relu),
            Engine::Depthwise(weight) => Filter::Depthwise(weight),
            Engine::Winograd(planar) => {
                Filter::Winograd(Taps::from_planar(planar, self.dims[0], self.dims[1]))
            }
        };
        let geometry = Geometry::new(x.dims(), &self.dims, stride, padding)?;
        run(&filter, &geometry, x, bias, residual, relu)
    }

    /// [`PreparedConv::forward`] of each group's channels, side by side.
    fn forward_groups(
        &self,
        groups: &[Self],
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor> {
        let geometry = Geometry::new(x.dims(), &self.dims, self.stride, self.padding)?;
        if let Some(residual) = residual {
            check_shape("residual", residual, geometry.out_shape().into())?;
        }
        let (inputs, outputs) = (self.dims[1] / groups.len(), self.dims[0] / groups.len());
        let group = |(index, group): (usize, &Self)| {
            let x = x.narrow(1, index * inputs, inputs)?;
            let residual = residual
                .map(|r| r.narrow(1, index * outputs, outputs))
                .transpose()?;
            group.forward(&x, residual.as_ref(), relu)
        };
        let parts: Vec<_> = groups
            .iter()
            .enumerate()
            .map(group)
            .collect::<Result<_>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }
}

/// Convolves a CPU tensor with the whole epilogue; `bias` must have the right length.
pub(crate) fn run(
    filter: &Filter,
    geometry: &Geometry,
    x: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    if let Some(residual) = residual {
        check_shape("residual", residual, geometry.out_shape().into())?;
    }
    let x = batch_strided(x)?;
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let residual = residual.map(batch_strided).transpose()?;
    let host_x = Host::open(&x);
    let host_bias = bias.as_ref().map(Host::open);
    let host_residual = residual.as_ref().map(Host::open);
    let epilogue = Epilogue {
        bias: host_bias.as_ref().map(Host::values).transpose()?,
        residual: host_residual.as_ref().map(Host::images).transpose()?,
        relu,
    };
    let out = filter.convolve(geometry, host_x.images()?, &epilogue);
    Ok(Tensor::from_vec(out, geometry.out_shape(), x.device())?)
}
