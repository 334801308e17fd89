//! ResNets (He et al. 2015; wide: Zagoruyko and Komodakis 2016) with timm's tensor names.
//!
//! Taps are stages, 1 to 4. Batch norm is folded into the convolutions at load; stages behind the last tap
//! and the classifier are neither built nor read.

use candle_core::{Device, Tensor};

use super::{
    Backbone, BackboneInfo, Family, FeatureShape, check_images,
    row::{APACHE, BSD, IMAGENET, NON_COMMERCIAL, Network, Row, Source, Tag},
    taps::{self, Choice},
    weights::Weights,
};
use crate::{
    Result,
    kernels::conv::{PreparedConv, max_pool_3x3_s2_p1},
};

/// `eps` of every batch norm.
const EPS: f32 = 1e-5;
/// Channels inside the blocks of each stage before widening.
const PLANES: [usize; STAGES] = [64, 128, 256, 512];
const STAGES: usize = 4;

const RESNET18: &[Tag] = &[
    ("tv_in1k", BSD),
    ("a1_in1k", APACHE),
    ("a2_in1k", APACHE),
    ("a3_in1k", APACHE),
    ("gluon_in1k", APACHE),
    ("fb_ssl_yfcc100m_ft_in1k", NON_COMMERCIAL),
    ("fb_swsl_ig1b_ft_in1k", NON_COMMERCIAL),
];
const RESNET: &[Tag] = &[("tv_in1k", BSD), ("a1_in1k", APACHE)];
const WIDE: &[Tag] = &[("racm_in1k", APACHE), ("tv_in1k", BSD), ("tv2_in1k", BSD)];

#[rustfmt::skip] // a table
pub(super) static ROWS: &[Row] = &[
    row("resnet18", RESNET18, &Config { block: BlockKind::Basic, layers: [2, 2, 2, 2], base_width: 64 }),
    row("resnet34", RESNET, &Config { block: BlockKind::Basic, layers: [3, 4, 6, 3], base_width: 64 }),
    row("resnet50", RESNET, &Config { block: BlockKind::Bottleneck, layers: [3, 4, 6, 3], base_width: 64 }),
    row("resnet101", RESNET, &Config { block: BlockKind::Bottleneck, layers: [3, 4, 23, 3], base_width: 64 }),
    row("wide_resnet50_2", WIDE, &Config { block: BlockKind::Bottleneck, layers: [3, 4, 6, 3], base_width: 128 }),
];

/// A ResNet at 256 pixels, tapped as in the paper.
const fn row(arch: &'static str, tags: &'static [Tag], config: &'static Config) -> Row {
    Row {
        arch,
        family: match config.block {
            BlockKind::Basic => Family::BasicResNet,
            BlockKind::Bottleneck => Family::BottleneckResNet,
        },
        size: 256,
        normalisation: IMAGENET,
        tags,
        taps: Choice::Among(1..=STAGES),
        default_taps: &[1, 2, 3],
        network: config,
        lacks: None,
    }
}

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
    /// Blocks of each stage.
    pub layers: [usize; STAGES],
    /// Inner width of a bottleneck for 64 planes (64, or 128 in the wide network).
    pub base_width: usize,
}

impl Config {
    /// Channels that stage `stage` (from 0) gives.
    fn out_channels(&self, stage: usize) -> usize {
        match self.block {
            BlockKind::Basic => PLANES[stage],
            BlockKind::Bottleneck => 4 * PLANES[stage],
        }
    }

    /// Reads stage `stage` (from 0), whose input has `channels`.
    fn load_stage(
        &self,
        stage: usize,
        mut channels: usize,
        weights: &Weights,
    ) -> Result<Vec<Block>> {
        let weights = weights.pp(format!("layer{}", stage + 1));
        let first = "0.conv1.weight";
        if stage > 0 && !weights.contains(first) {
            return Err(weights.missing(
                first,
                format!(
                    "missing: this file ends before stage {0}; take taps below {0}, or a file with `layer{0}`",
                    stage + 1
                ),
            ));
        }
        (0..self.layers[stage])
            .map(|index| {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let block = Block::load(&weights.pp(index), self, stage, channels, stride)?;
                channels = self.out_channels(stage);
                Ok(block)
            })
            .collect()
    }
}

impl Network for Config {
    fn shapes(&self, taps: &[usize], height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        let shape = |&tap: &usize| FeatureShape {
            channels: self.out_channels(tap - 1),
            height: height.div_ceil(2 << tap),
            width: width.div_ceil(2 << tap),
        };
        Ok(taps.iter().map(shape).collect())
    }

    fn describe(&self, taps: &[usize]) -> String {
        taps::described("stage", taps)
    }

    fn build(&self, info: BackboneInfo, source: &Source) -> Result<Box<dyn Backbone>> {
        let weights = source.weights(&info.id)?;
        Ok(Box::new(ResNet::new(info, self, weights)?))
    }
}

/// Stem and the stages up to the last tap.
#[derive(Debug)]
pub struct ResNet {
    info: BackboneInfo,
    config: Config,
    stem: PreparedConv,
    stages: Vec<Vec<Block>>,
}

impl ResNet {
    /// Reads the stem and the stages up to the last of `info.taps`.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen, or a tap is not one of stages 1 to 4.
    pub fn new(info: BackboneInfo, config: &Config, weights: &Weights) -> Result<Self> {
        let depth = taps::last(&info, 1..=STAGES)?;
        let stem = load_conv(weights, ("conv1", "bn1"), [64, 3, 7, 7], 2)?;
        let mut stages = Vec::with_capacity(depth);
        let mut channels = 64;
        for stage in 0..depth {
            stages.push(config.load_stage(stage, channels, weights)?);
            channels = config.out_channels(stage);
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
        self.config.shapes(&self.info.taps, height, width)
    }

    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        check_images(images)?;
        let mut x = self.stem.forward(images, None, true)?;
        x = max_pool_3x3_s2_p1(&x)?;
        let mut maps = Vec::with_capacity(self.info.taps.len());
        for (stage, blocks) in (1..).zip(&self.stages) {
            for block in blocks {
                x = block.forward(&x)?;
            }
            if self.info.taps.contains(&stage) {
                maps.push(x.clone());
            }
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
