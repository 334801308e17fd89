//! The shape of what every floor above works on.

use candle_core::{DType, Tensor};

use crate::{Error, Result};

/// Channels, height and width of one feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureShape {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl FeatureShape {
    /// Values of one image's map.
    pub fn values(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// Kinds of feature extractor that want estimators of different shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// ResNets with basic blocks: a pyramid, one map a stage.
    BasicResNet,
    /// ResNets with bottlenecks, wide ones too: a pyramid with four times the channels.
    BottleneckResNet,
    /// Vision transformers (DeiT, DINOv2, CaiT, EVA): maps of one size.
    Vit,
    /// The embedded wavelet bank.
    Wavelet,
}

/// Fails unless `tensor` is f32 with the dimensions `expected`.
pub(crate) fn expect_f32(what: &str, tensor: &Tensor, expected: &[usize]) -> Result<()> {
    if tensor.dims() == expected && tensor.dtype() == DType::F32 {
        return Ok(());
    }
    Err(Error::Shape {
        what: what.into(),
        expected: format!("f32 {expected:?}"),
        found: format!("{} {:?}", tensor.dtype().as_str(), tensor.dims()),
    })
}
