//! What the vision transformers share: patches to tokens, pre-norm blocks, tokens to a map.
//!
//! At load, the norms' scale and shift are folded into the linear layer behind them and LayerScale into
//! the linear layer before it. Blocks behind the last tap are neither built nor read.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use super::{
    BackboneInfo, FeatureShape, check_images, dense::Draft, positions, taps, weights::Weights,
};
use crate::{
    Error, Result,
    kernels::{
        attention::{HeadMixing, attention},
        linear::{PreparedLinear, Then},
        norm,
    },
};

/// `eps` of every LayerNorm.
const EPS: f32 = 1e-6;

/// Sizes that all blocks share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) patch: usize,
    /// Rows and columns of the grid that the position embedding was trained on.
    pub(super) grid: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    /// Blocks that the whole network has.
    pub(super) depth: usize,
}

impl Sizes {
    /// Shapes of the maps, one a tap.
    pub(super) fn shapes(
        &self,
        taps: &[usize],
        height: usize,
        width: usize,
    ) -> Result<Vec<FeatureShape>> {
        let shape = map_shape(self.patch, self.width, height, width)?;
        Ok(vec![shape; taps.len()])
    }
}

/// Taps in words for a listing.
pub(super) fn described(taps: &[usize]) -> String {
    format!("{} (from 0), final norm", taps::described("block", taps))
}

/// Where a block's extras are in the weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extras {
    None,
    /// LayerScale as `ls1.gamma`, `ls2.gamma`.
    LayerScale,
    /// LayerScale as `gamma_1`, `gamma_2`, and talking heads.
    Cait,
}

/// Patch embedding, position embedding, blocks and the final norm.
#[derive(Debug)]
pub(super) struct Transformer {
    sizes: Sizes,
    embedding: PreparedLinear,
    /// `[1, P, D]`: class and other tokens before the patches, with their positions added.
    prefix: Option<Tensor>,
    positions: Positions,
    /// Those up to the last tap.
    blocks: Vec<Block>,
    /// Indices of blocks, ascending.
    taps: Vec<usize>,
    norm: (Tensor, Tensor),
}

/// The trained position embeddings of the patches, and those of the last grid asked for.
#[derive(Debug)]
struct Positions {
    trained: Tensor,
    latest: Mutex<((usize, usize), Tensor)>,
}

/// The shape of a map of `channels` for an image of `height` x `width` pixels.
fn map_shape(patch: usize, channels: usize, height: usize, width: usize) -> Result<FeatureShape> {
    let fits = |side: usize| side > 0 && side.is_multiple_of(patch);
    if !fits(height) || !fits(width) {
        return Err(Error::Shape {
            what: "input of a vision transformer".into(),
            expected: format!("sides that its patch of {patch} divides"),
            found: format!("{height}x{width}"),
        });
    }
    Ok(FeatureShape {
        channels,
        height: height / patch,
        width: width / patch,
    })
}

impl Transformer {
    /// Reads the network up to the last of the info's taps; `prefix` names the tokens before the patches, in
    /// the order of their positions.
    pub(super) fn new(
        info: &BackboneInfo,
        weights: &Weights,
        sizes: Sizes,
        prefix: &[&str],
        extras: Extras,
    ) -> Result<Self> {
        let Sizes {
            width, grid, patch, ..
        } = sizes;
        let last = taps::last(info, 0..=sizes.depth.saturating_sub(1))?;
        let patches = weights.pp("patch_embed.proj");
        let embedding = Draft::read(&patches, &[width, 3, patch, patch])?;
        let positions = weights.tensor("pos_embed", &[1, prefix.len() + grid * grid, width])?;
        let tokens = prefix
            .iter()
            .map(|name| weights.tensor(name, &[1, 1, width]))
            .collect::<Result<Vec<_>>>()?;
        let tokens = match tokens.as_slice() {
            [] => None,
            tokens => {
                let own = positions.narrow(1, 0, tokens.len())?;
                Some((Tensor::cat(tokens, 1)? + own)?)
            }
        };
        let trained = positions.narrow(1, prefix.len(), grid * grid)?;
        let trained = trained.contiguous()?;
        let blocks = (0..=last)
            .map(|index| Block::load(&weights.pp("blocks").pp(index), sizes, extras))
            .collect::<Result<_>>()?;
        let norm = weights.pp("norm");
        Ok(Self {
            sizes,
            embedding: embedding.finish(weights)?,
            prefix: tokens,
            positions: Positions {
                latest: Mutex::new(((grid, grid), trained.clone())),
                trained,
            },
            blocks,
            taps: info.taps.clone(),
            norm: (
                norm.tensor("weight", &[width])?,
                norm.tensor("bias", &[width])?,
            ),
        })
    }

    /// The device of the weights.
    pub(super) fn device(&self) -> &candle_core::Device {
        self.positions.trained.device()
    }

    /// Shapes of the maps for an image of `height` x `width` pixels, one a tap.
    pub(super) fn shapes(&self, height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        self.sizes.shapes(&self.taps, height, width)
    }

    /// All tokens `[B, P + N, D]` after each tap and the final norm.
    pub(super) fn tokens(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let (batch, height, width) = check_images(images)?;
        let shape = map_shape(self.sizes.patch, self.sizes.width, height, width)?;
        let grid = (shape.height, shape.width);
        let patches = unfold(images, self.sizes.patch)?;
        let positions = self.positions.at(self.sizes.grid, grid)?;
        let positions = positions.broadcast_as((batch, grid.0 * grid.1, self.sizes.width))?;
        let mut x = self
            .embedding
            .forward(&patches, Then::Add(&positions.contiguous()?))?;
        if let Some(prefix) = &self.prefix {
            let prefix = prefix.broadcast_as((batch, prefix.dim(1)?, self.sizes.width))?;
            x = Tensor::cat(&[&prefix.contiguous()?, &x], 1)?;
        }
        let mut tapped = Vec::with_capacity(self.taps.len());
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            if self.taps.contains(&index) {
                let normed = normalised(&x)?.broadcast_mul(&self.norm.0)?;
                tapped.push(normed.broadcast_add(&self.norm.1)?);
            }
        }
        Ok(tapped)
    }

    /// The patches' tokens after each tap as maps `[B, D, H, W]`.
    pub(super) fn maps(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let (batch, _, height, width) = images.dims4()?;
        let tokens = self.tokens(images)?;
        let shape = map_shape(self.sizes.patch, self.sizes.width, height, width)?;
        let count = shape.height * shape.width;
        let map = |tokens: &Tensor| {
            let patches = tokens.narrow(1, tokens.dim(1)? - count, count)?;
            let map = patches.transpose(1, 2)?.contiguous()?;
            Ok(map.reshape((batch, shape.channels, shape.height, shape.width))?)
        };
        tokens.iter().map(map).collect()
    }
}

impl Positions {
    fn at(&self, trained: usize, grid: (usize, usize)) -> Result<Tensor> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.0 != grid {
            *latest = (
                grid,
                positions::resample(&self.trained, (trained, trained), grid)?,
            );
        }
        Ok(latest.1.clone())
    }
}

/// Patches `[B, N, 3 p p]` of images `[B, 3, H, W]`.
fn unfold(images: &Tensor, patch: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = images.dims4()?;
    let (rows, columns) = (height / patch, width / patch);
    let split = images.reshape(&[batch, channels, rows, patch, columns, patch][..])?;
    let patches = split.permute(&[0, 2, 4, 1, 3, 5][..])?.contiguous()?;
    Ok(patches.reshape((batch, rows * columns, channels * patch * patch))?)
}

/// LayerNorm of every token, without scale and shift.
fn normalised(x: &Tensor) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    let rows = x.reshape((batch * tokens, width))?;
    Ok(norm::layer_norm(&rows, EPS)?.reshape(x.shape())?)
}

/// A pre-norm transformer block.
#[derive(Debug)]
struct Block {
    heads: usize,
    qkv: PreparedLinear,
    mixing: Option<HeadMixing>,
    out: PreparedLinear,
    widen: PreparedLinear,
    narrow: PreparedLinear,
}

impl Block {
    fn load(weights: &Weights, sizes: Sizes, extras: Extras) -> Result<Self> {
        let Sizes { width, heads, .. } = sizes;
        let scales = match extras {
            Extras::None => None,
            Extras::LayerScale => Some(("ls1.gamma", "ls2.gamma")),
            Extras::Cait => Some(("gamma_1", "gamma_2")),
        };
        let (attention, mlp) = (weights.pp("attn"), weights.pp("mlp"));
        let mut qkv = Draft::read(&attention.pp("qkv"), &[3 * width, width])?;
        qkv.fold_norm(&weights.pp("norm1"))?;
        let mut out = Draft::read(&attention.pp("proj"), &[width, width])?;
        let mut widen = Draft::read(&mlp.pp("fc1"), &[4 * width, width])?;
        widen.fold_norm(&weights.pp("norm2"))?;
        let mut narrow = Draft::read(&mlp.pp("fc2"), &[width, 4 * width])?;
        if let Some((first, second)) = scales {
            out.fold_scale(weights, first)?;
            narrow.fold_scale(weights, second)?;
        }
        let mixing = match extras {
            Extras::Cait => Some(HeadMixing {
                scores: attention.tensor("proj_l.weight", &[heads, heads])?,
                weights: attention.tensor("proj_w.weight", &[heads, heads])?,
                bias: attention.tensor("proj_w.bias", &[heads])?,
            }),
            _ => None,
        };
        Ok(Self {
            heads,
            qkv: qkv.finish(weights)?,
            mixing,
            out: out.finish(weights)?,
            widen: widen.finish(weights)?,
            narrow: narrow.finish(weights)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(&normalised(x)?, Then::Stop)?;
        let attended = attention(&qkv, self.heads, self.mixing.as_ref())?;
        let x = self.out.forward(&attended, Then::Add(x))?;
        let wide = self.widen.forward(&normalised(&x)?, Then::Gelu)?;
        self.narrow.forward(&wide, Then::Add(&x))
    }
}
