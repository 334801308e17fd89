//! ResNets (He et al. 2015; wide: Zagoruyko and Komodakis 2016) with timm's tensor names, stages 1 to 3.
//!
//! Batch norm is folded into the convolutions at load; the fourth stage and the classifier are neither
//! built nor read.

use candle_core::{Device, Tensor};

use super::{Backbone, BackboneInfo, FeatureShape, check_images, weights::Weights};
use crate::{
    Result,
    kernels::conv::{PreparedConv, max_pool_3x3_s2_p1},
};

/// `eps` of every batch norm.
const EPS: f32 = 1e-5;
/// Channels inside the blocks of each stage before widening.
const PLANES: [usize; 3] = [64, 128, 256];

/// Which residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3 and 1x1 convolutions, the last with four times the planes.
    Bottleneck,
}

/// A ResNet's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Residual block.
    pub block: BlockKind,
    /// Blocks in stages 1, 2 and 3.
    pub layers: [usize; 3],
    /// Inner width of a bottleneck for 64 planes (64, or 128 in the wide network).
    pub base_width: usize,
}

impl Config {
    /// Shapes of the maps of an input of `height` x `width` pixels.
    pub(super) fn shapes(&self, height: usize, width: usize) -> Vec<FeatureShape> {
        (0..3)
            .map(|stage| FeatureShape {
                channels: self.out_channels(stage),
                height: height.div_ceil(4 << stage),
                width: width.div_ceil(4 << stage),
            })
            .collect()
    }

    fn out_channels(&self, stage: usize) -> usize {
        match self.block {
            BlockKind::Basic => PLANES[stage],
            BlockKind::Bottleneck => 4 * PLANES[stage],
        }
    }
}

/// Stem and three stages.
#[derive(Debug)]
pub struct ResNet {
    info: BackboneInfo,
    config: Config,
    stem: PreparedConv,
    stages: Vec<Vec<Block>>,
}

impl ResNet {
    /// Reads the stem and stages 1 to 3.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen.
    pub fn new(info: BackboneInfo, config: &Config, weights: &Weights) -> Result<Self> {
        let stem = load_conv(weights, ("conv1", "bn1"), [64, 3, 7, 7], 2)?;
        let mut stages = Vec::with_capacity(3);
        let mut channels = 64;
        for stage in 0..3 {
            let weights = weights.pp(format!("layer{}", stage + 1));
            let blocks = (0..config.layers[stage])
                .map(|index| {
                    let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                    let block = Block::load(&weights.pp(index), config, stage, channels, stride)?;
                    channels = config.out_channels(stage);
                    Ok(block)
                })
                .collect::<Result<_>>()?;
            stages.push(blocks);
        }
        Ok(Self {
            info,
            config: config.clone(),
            stem,
            stages,
        })
    }
}

impl Backbone for ResNet {
    fn info(&self) -> &BackboneInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        self.stem.device()
    }

    fn shapes(&self, height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        Ok(self.config.shapes(height, width))
    }

    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        check_images(images)?;
        let mut x = self.stem.forward(images, None, true)?;
        x = max_pool_3x3_s2_p1(&x)?;
        let mut maps = Vec::with_capacity(3);
        for stage in &self.stages {
            for block in stage {
                x = block.forward(&x)?;
            }
            maps.push(x.clone());
        }
        Ok(maps)
    }
}

/// Convolutions with ReLU between them; the input is added before the last ReLU.
#[derive(Debug)]
struct Block {
    convs: Vec<PreparedConv>,
    downsample: Option<PreparedConv>,
}

impl Block {
    fn load(
        weights: &Weights,
        config: &Config,
        stage: usize,
        inputs: usize,
        stride: usize,
    ) -> Result<Self> {
        let outputs = config.out_channels(stage);
        let conv = |index: usize, shape, stride| {
            let names = (format!("conv{index}"), format!("bn{index}"));
            load_conv(weights, (&names.0, &names.1), shape, stride)
        };
        let convs = match config.block {
            BlockKind::Basic => vec![
                conv(1, [outputs, inputs, 3, 3], stride)?,
                conv(2, [outputs, outputs, 3, 3], 1)?,
            ],
            BlockKind::Bottleneck => {
                let width = PLANES[stage] * config.base_width / 64;
                vec![
                    conv(1, [width, inputs, 1, 1], 1)?,
                    conv(2, [width, width, 3, 3], stride)?,
                    conv(3, [outputs, width, 1, 1], 1)?,
                ]
            }
        };
        let downsample = if stride != 1 || inputs != outputs {
            let names = ("downsample.0", "downsample.1");
            Some(load_conv(weights, names, [outputs, inputs, 1, 1], stride)?)
        } else {
            None
        };
        Ok(Self { convs, downsample })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let residual = match &self.downsample {
            Some(conv) => conv.forward(x, None, false)?,
            None => x.clone(),
        };
        let last = self.convs.len() - 1;
        let mut y = x.clone();
        for conv in &self.convs[..last] {
            y = conv.forward(&y, None, true)?;
        }
        self.convs[last].forward(&y, Some(&residual), true)
    }
}

/// Reads a convolution of `shape` `[outputs, inputs, k, k]` and folds its batch norm in; it is padded
/// so that stride 1 keeps the size.
fn load_conv(
    weights: &Weights,
    (conv, norm): (&str, &str),
    shape: [usize; 4],
    stride: usize,
) -> Result<PreparedConv> {
    let mut kernel = weights.pp(conv).values("weight", &shape)?;
    let norm = weights.pp(norm);
    let outputs = [shape[0]];
    let mut bias = norm.values("bias", &outputs)?;
    let gamma = norm.values("weight", &outputs)?;
    let mean = norm.values("running_mean", &outputs)?;
    let variance = norm.values("running_var", &outputs)?;
    for (channel, kernel) in kernel
        .chunks_exact_mut(shape[1..].iter().product())
        .enumerate()
    {
        let scale = gamma[channel] / (variance[channel] + EPS).sqrt();
        kernel.iter_mut().for_each(|value| *value *= scale);
        bias[channel] -= mean[channel] * scale;
    }
    let kernel = Tensor::from_vec(kernel, &shape, weights.device())?;
    let bias = Tensor::from_vec(bias, outputs[0], weights.device())?;
    PreparedConv::new(&kernel, Some(&bias), stride, shape[2] / 2)
}
