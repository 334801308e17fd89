//! Every backbone as a row of data.
//!
//! Taps follow the paper where it names one (DeiT block 7, CaiT-M48 block 40) and lie as deep in the rest.

use super::{
    cait,
    resnet::{self, BlockKind},
    vit,
};

/// One architecture with the weights that exist for it.
pub(super) struct Row {
    pub(super) arch: &'static str,
    /// Height and width of the default input.
    pub(super) size: usize,
    /// timm's tags and their licences; the first is the project's default. Empty: no weights.
    pub(super) tags: &'static [Tag],
    pub(super) network: Network,
}

/// What to build.
pub(super) enum Network {
    ResNet(resnet::Config),
    Vit(vit::Config),
    Cait(cait::Config),
    /// Through candle-transformers.
    Eva {
        width: usize,
        tap: usize,
    },
    Wavelet,
}

const APACHE: &str = "Apache-2.0";
const MIT: &str = "MIT";
const BSD: &str = "BSD-3-Clause";
const NON_COMMERCIAL: &str = "CC-BY-NC-4.0";
/// SPDX's word for "not known".
pub(super) const UNKNOWN_LICENCE: &str = "NOASSERTION";

/// A tag and its licence.
type Tag = (&'static str, &'static str);

const RESNET18: &[Tag] = &[
    ("tv_in1k", BSD),
    ("a1_in1k", APACHE),
    ("a2_in1k", APACHE),
    ("a3_in1k", APACHE),
    ("gluon_in1k", APACHE),
    ("fb_ssl_yfcc100m_ft_in1k", NON_COMMERCIAL),
    ("fb_swsl_ig1b_ft_in1k", NON_COMMERCIAL),
];
const WIDE_RESNET50: &[Tag] = &[("racm_in1k", APACHE), ("tv_in1k", BSD), ("tv2_in1k", BSD)];
const DEIT: &[Tag] = &[("fb_in1k", APACHE)];
const DINOV2: &[Tag] = &[("lvd142m", APACHE)];
const CAIT: &[Tag] = &[("fb_dist_in1k", APACHE)];
const EVA02: &[Tag] = &[
    ("mim_in22k_ft_in22k_in1k", MIT),
    ("mim_in22k_ft_in1k", MIT),
    ("mim_in22k_ft_in22k", MIT),
];

#[rustfmt::skip] // a table
pub(super) static ROWS: &[Row] = &[
    row("wavelet", 256, &[], Network::Wavelet),
    row("resnet18", 256, RESNET18, resnet(BlockKind::Basic, [2, 2, 2], 64)),
    row("wide_resnet50_2", 256, WIDE_RESNET50, resnet(BlockKind::Bottleneck, [3, 4, 6], 128)),
    row("deit_tiny_patch16_224", 224, DEIT, deit(192, 224, false)),
    row("deit_small_patch16_224", 224, DEIT, deit(384, 224, false)),
    row("deit_base_patch16_224", 224, DEIT, deit(768, 224, false)),
    row("deit_base_patch16_384", 384, DEIT, deit(768, 384, false)),
    row("deit_tiny_distilled_patch16_224", 224, DEIT, deit(192, 224, true)),
    row("deit_small_distilled_patch16_224", 224, DEIT, deit(384, 224, true)),
    row("deit_base_distilled_patch16_224", 224, DEIT, deit(768, 224, true)),
    row("deit_base_distilled_patch16_384", 384, DEIT, deit(768, 384, true)),
    row("vit_small_patch14_dinov2", 448, DINOV2, dinov2(384)),
    row("vit_base_patch14_dinov2", 448, DINOV2, dinov2(768)),
    row("cait_xxs24_224", 224, CAIT, cait(192, 224, 24)),
    row("cait_xxs24_384", 384, CAIT, cait(192, 384, 24)),
    row("cait_xxs36_224", 224, CAIT, cait(192, 224, 36)),
    row("cait_xxs36_384", 384, CAIT, cait(192, 384, 36)),
    row("cait_xs24_384", 384, CAIT, cait(288, 384, 24)),
    row("cait_s24_224", 224, CAIT, cait(384, 224, 24)),
    row("cait_s24_384", 384, CAIT, cait(384, 384, 24)),
    row("cait_s36_384", 384, CAIT, cait(384, 384, 36)),
    row("cait_m36_384", 384, CAIT, cait(768, 384, 36)),
    row("cait_m48_448", 448, CAIT, cait(768, 448, 48)),
    row("eva02_base_patch14_448", 448, EVA02, Network::Eva { width: 768, tap: 7 }),
];

const fn row(arch: &'static str, size: usize, tags: &'static [Tag], network: Network) -> Row {
    Row {
        arch,
        size,
        tags,
        network,
    }
}

const fn resnet(block: BlockKind, layers: [usize; 3], base_width: usize) -> Network {
    Network::ResNet(resnet::Config {
        block,
        layers,
        base_width,
    })
}

/// A DeiT of patch 16; the tap is the paper's.
const fn deit(width: usize, input: usize, distilled: bool) -> Network {
    Network::Vit(vit::Config {
        patch: 16,
        grid: input / 16,
        width,
        heads: width / 64,
        tap: 7,
        distilled,
        layer_scale: false,
    })
}

/// A DINOv2 of patch 14, trained at 518 pixels.
const fn dinov2(width: usize) -> Network {
    Network::Vit(vit::Config {
        patch: 14,
        grid: 37,
        width,
        heads: width / 64,
        tap: 7,
        distilled: false,
        layer_scale: true,
    })
}

/// A CaiT with heads of 48 channels; the tap is the paper's for 48 blocks, and as deep for fewer.
const fn cait(width: usize, input: usize, depth: usize) -> Network {
    Network::Cait(cait::Config {
        grid: input / 16,
        width,
        heads: width / 48,
        tap: depth * 5 / 6,
    })
}
