//! From feature maps to one vector a position: local averages, joined on the finest map's grid (Roth et al. 2021,
//! section 3.1).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::kernels::{
    FeatureShape,
    map::{local_average, upsample_bilinear},
};

/// Where features of several maps are joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grid {
    /// On the finest map's grid; coarser maps are resampled (section 3.1).
    #[default]
    Finest,
    /// On the coarsest map's grid; finer maps are averaged. A quarter of the positions.
    Coarsest,
}

impl Grid {
    pub(super) fn is_finest(&self) -> bool {
        *self == Self::Finest
    }
}

/// What is near.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The Euclidean distance of features.
    #[default]
    Euclidean,
    /// That of features of unit length, which depends on the angle alone: for vision transformers (AnomalyDINO,
    /// Damm et al. 2024, arXiv 2405.14529).
    Cosine,
}

impl Metric {
    pub(super) fn is_euclidean(&self) -> bool {
        *self == Self::Euclidean
    }
}

/// Channels of the joined vectors.
pub(crate) fn channels(shapes: &[FeatureShape]) -> usize {
    shapes.iter().map(|shape| shape.channels).sum()
}

/// Rows and columns of the grid of vectors.
pub(crate) fn grid(shapes: &[FeatureShape], grid: Grid) -> (usize, usize) {
    let map = match grid {
        Grid::Finest => shapes.first(),
        Grid::Coarsest => shapes.last(),
    };
    map.map_or((0, 0), |shape| (shape.height, shape.width))
}

/// Vectors `[B * h * w, C]`, image by image and row by row, of feature maps `[B, C_i, h_i, w_i]`, finest first.
///
/// # Errors
/// When the tensor library fails.
pub(crate) fn embed(
    features: &[Tensor],
    neighbourhood: usize,
    grid: Grid,
    metric: Metric,
) -> Result<Tensor> {
    let target = match grid {
        Grid::Finest => features.first(),
        Grid::Coarsest => features.last(),
    };
    let Some(target) = target else {
        return Err(crate::Error::Invalid("no feature map to join".into()));
    };
    let (_, _, rows, columns) = target.dims4()?;
    let joined = features
        .iter()
        .map(|map| regridded(&local_average(map, neighbourhood)?, rows, columns))
        .collect::<Result<Vec<_>>>()?;
    let vectors = rows_of(&Tensor::cat(&joined, 1)?)?;
    match metric {
        Metric::Euclidean => Ok(vectors),
        Metric::Cosine => unit_length(&vectors),
    }
}

/// Vectors `[B * h * w, D]` of these channels of all maps joined, on the finest map's grid: [`embed`] without averages,
/// of what is asked for alone.
///
/// # Errors
/// When the tensor library fails.
pub(crate) fn embed_channels(features: &[Tensor], channels: &[u32]) -> Result<Tensor> {
    let (mut first, mut kept) = (0u32, Vec::with_capacity(features.len()));
    let (rows, columns) = match features.first() {
        Some(map) => (map.dim(2)?, map.dim(3)?),
        None => return Err(crate::Error::Invalid("no feature map to join".into())),
    };
    for map in features {
        let own = first..first + map.dim(1)? as u32;
        first = own.end;
        let index: Vec<u32> = channels
            .iter()
            .filter(|c| own.contains(c))
            .map(|c| c - own.start)
            .collect();
        if index.is_empty() {
            continue;
        }
        let index = Tensor::from_slice(&index, index.len(), map.device())?;
        kept.push(regridded(&map.index_select(&index, 1)?, rows, columns)?);
    }
    rows_of(&Tensor::cat(&kept, 1)?)
}

/// `[B, C, h, w]` as `[B * h * w, C]`.
pub(super) fn rows_of(joined: &Tensor) -> Result<Tensor> {
    let (batch, channels, rows, columns) = joined.dims4()?;
    Ok(joined
        .reshape((batch, channels, rows * columns))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((batch * rows * columns, channels))?)
}

/// A map on another grid: averaged where a whole number of positions falls on one, else bilinear.
fn regridded(map: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = map.dims4()?;
    if (height, width) == (rows, columns) {
        return Ok(map.clone());
    }
    let (down, across) = (height / rows, width / columns);
    if down > 0 && across > 0 && (down * rows, across * columns) == (height, width) {
        return averaged(map, (rows, down), (columns, across));
    }
    let flat = map.reshape((batch * channels, height, width))?;
    Ok(upsample_bilinear(&flat, rows, columns)?.reshape((batch, channels, rows, columns))?)
}

/// Means of cells of `down` x `across` positions.
fn averaged(
    map: &Tensor,
    (rows, down): (usize, usize),
    (columns, across): (usize, usize),
) -> Result<Tensor> {
    if map.device().is_cpu() {
        return Ok(map.avg_pool2d_with_stride((down, across), (down, across))?);
    }
    let (batch, channels, _, _) = map.dims4()?;
    let cells = map.reshape((batch * channels * rows, down, columns, across))?;
    let sums = cells.sum(3)?.sum(1)?;
    let means = (sums / (down * across) as f64)?;
    Ok(means.reshape((batch, channels, rows, columns))?)
}

/// A vector of nothing stays one.
fn unit_length(vectors: &Tensor) -> Result<Tensor> {
    let lengths = vectors.sqr()?.sum_keepdim(1)?.sqrt()?;
    // Less than the rounding of any length that a network's features have.
    Ok(vectors.broadcast_div(&(lengths + 1e-12)?)?)
}
