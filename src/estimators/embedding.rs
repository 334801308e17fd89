//! From feature maps to one vector a position: local averages, joined on the finest map's grid (Roth et al. 2021,
//! section 3.1).

use candle_core::Tensor;

use super::memory::{Grid, Metric};
use crate::Result;
use crate::kernels::{
    FeatureShape,
    map::{local_average, upsample_bilinear},
};

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
    let (batch, _, rows, columns) = target.dims4()?;
    let joined = features
        .iter()
        .map(|map| regridded(&local_average(map, neighbourhood)?, rows, columns))
        .collect::<Result<Vec<_>>>()?;
    let joined = Tensor::cat(&joined, 1)?;
    let channels = joined.dim(1)?;
    let vectors = joined
        .reshape((batch, channels, rows * columns))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((batch * rows * columns, channels))?;
    match metric {
        Metric::Euclidean => Ok(vectors),
        Metric::Cosine => unit_length(&vectors),
    }
}

/// A map on another grid: averaged where a whole number of positions falls on one, else bilinear.
fn regridded(map: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = map.dims4()?;
    if (height, width) == (rows, columns) {
        return Ok(map.clone());
    }
    let (down, across) = (height / rows, width / columns);
    if down > 0 && across > 0 && (down * rows, across * columns) == (height, width) {
        return Ok(map.avg_pool2d_with_stride((down, across), (down, across))?);
    }
    let flat = map.reshape((batch * channels, height, width))?;
    Ok(upsample_bilinear(&flat, rows, columns)?.reshape((batch, channels, rows, columns))?)
}

/// A vector of nothing stays one.
fn unit_length(vectors: &Tensor) -> Result<Tensor> {
    let lengths = vectors.sqr()?.sum_keepdim(1)?.sqrt()?;
    Ok(vectors.broadcast_div(&lengths.clamp(1e-12, f64::MAX)?)?)
}
