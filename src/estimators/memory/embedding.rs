//! From feature maps to one vector a position: local averages, joined on the finest map's grid (Roth et al. 2021,
//! section 3.1).

use candle_core::Tensor;

use super::Metric;
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
pub(crate) fn grid(shapes: &[FeatureShape]) -> (usize, usize) {
    let finest = shapes.first();
    finest.map_or((0, 0), |shape| (shape.height, shape.width))
}

/// Vectors `[B * h * w, C]`, image by image and row by row, of feature maps `[B, C_i, h_i, w_i]`.
///
/// # Errors
/// When the tensor library fails.
pub(crate) fn embed(features: &[Tensor], neighbourhood: usize, metric: Metric) -> Result<Tensor> {
    let mut joined = Vec::with_capacity(features.len());
    let mut grid = None;
    for map in features {
        let (batch, channels, height, width) = map.dims4()?;
        let (rows, columns) = *grid.get_or_insert((height, width));
        let averaged = local_average(map, neighbourhood)?;
        joined.push(if (height, width) == (rows, columns) {
            averaged
        } else {
            let flat = averaged.reshape((batch * channels, height, width))?;
            upsample_bilinear(&flat, rows, columns)?.reshape((batch, channels, rows, columns))?
        });
    }
    let joined = Tensor::cat(&joined, 1)?;
    let (batch, channels, rows, columns) = joined.dims4()?;
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

/// A vector of nothing stays one.
fn unit_length(vectors: &Tensor) -> Result<Tensor> {
    let lengths = vectors.sqr()?.sum_keepdim(1)?.sqrt()?;
    Ok(vectors.broadcast_div(&lengths.clamp(1e-12, f64::MAX)?)?)
}
