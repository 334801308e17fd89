//! First and second moments of training features, over images and positions.

use candle_core::{DType, Device, Tensor};

use super::FeatureSource;
use crate::Result;
use crate::kernels::{FeatureShape, conv::conv2d_backward};

/// Mean and standard deviation of every channel of one feature map, over the training images.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStatistics {
    /// `[C]`.
    pub mean: Vec<f32>,
    /// `[C]`, all above zero.
    pub std: Vec<f32>,
}

/// Mean and covariance of one feature map's channels, over the training images and their positions.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelCovariance {
    /// `[C]`.
    pub mean: Vec<f32>,
    /// `[C, C]`, row by row.
    pub covariance: Vec<f64>,
}

/// Mean and standard deviation of every channel of every scale.
///
/// # Errors
/// When the tensor library fails.
pub fn channel_statistics(features: &dyn FeatureSource) -> Result<Vec<ChannelStatistics>> {
    channel_statistics_of(features, &Ok)
}

/// [`channel_statistics`] of what `change` makes of maps `[B, C, H, W]`, their shapes as before.
pub(super) fn channel_statistics_of(
    features: &dyn FeatureSource,
    change: Change<'_>,
) -> Result<Vec<ChannelStatistics>> {
    let shapes = features.shapes();
    let mut sums: Vec<Vec<(f64, f64)>> = shapes
        .iter()
        .map(|shape| vec![(0.0, 0.0); shape.channels])
        .collect();
    for image in 0..features.len() {
        let maps = change(features.batch(&[image], &Device::Cpu)?)?;
        for ((map, shape), sums) in maps.iter().zip(shapes).zip(&mut sums) {
            let values = map.flatten_all()?.to_vec1::<f32>()?;
            let channels = values.chunks_exact(shape.height * shape.width);
            for (values, (sum, squares)) in channels.zip(sums) {
                for value in values.iter().map(|&value| f64::from(value)) {
                    *sum += value;
                    *squares += value * value;
                }
            }
        }
    }
    let of_scale = |(shape, sums): (&FeatureShape, Vec<(f64, f64)>)| {
        let count = (features.len() * shape.height * shape.width).max(1) as f64;
        let moments = sums.into_iter().map(|(sum, squares)| {
            let mean = sum / count;
            let variance = (squares / count - mean * mean).max(0.0);
            (mean as f32, variance.sqrt() as f32)
        });
        let (mean, std) = moments.unzip();
        ChannelStatistics { mean, std }
    };
    Ok(shapes.iter().zip(sums).map(of_scale).collect())
}

/// Mean and covariance of the channels of every scale of what `change` makes of maps `[B, C, H, W]`, their shapes as
/// before.
///
/// # Errors
/// When the tensor library fails.
pub(super) fn channel_covariances_of(
    features: &dyn FeatureSource,
    change: Change<'_>,
) -> Result<Vec<ChannelCovariance>> {
    let statistics = channel_statistics_of(features, change)?.into_iter();
    let mut sums: Vec<ChannelCovariance> = statistics
        .map(|ChannelStatistics { mean, .. }| ChannelCovariance {
            covariance: vec![0.0; mean.len() * mean.len()],
            mean,
        })
        .collect();
    let records: Vec<usize> = (0..features.len()).collect();
    for records in records.chunks(COVARIANCE_BATCH) {
        let maps = change(features.batch(records, &Device::Cpu)?)?;
        for (map, sum) in maps.iter().zip(&mut sums) {
            for (sum, product) in sum.covariance.iter_mut().zip(products(map, &sum.mean)?) {
                *sum += f64::from(product);
            }
        }
    }
    for (shape, sum) in features.shapes().iter().zip(&mut sums) {
        let count = (features.len() * shape.height * shape.width).max(1) as f64;
        sum.covariance.iter_mut().for_each(|value| *value /= count);
    }
    Ok(sums)
}

/// Something done to a batch's maps before they are looked at.
pub(super) type Change<'a> = &'a dyn Fn(Vec<Tensor>) -> Result<Vec<Tensor>>;

/// Images whose products are summed in f32 before they go into an f64.
const COVARIANCE_BATCH: usize = 8;

/// The sum over images and positions of `(x - mean)(x - mean)^T [C, C]`, row by row, of `x [B, C, H, W]`: the weight's
/// gradient of a 1x1 convolution whose output has its input as gradient.
fn products(x: &Tensor, mean: &[f32]) -> Result<Vec<f32>> {
    let channels = mean.len();
    let mean = Tensor::from_slice(mean, (1, channels, 1, 1), x.device())?;
    let centred = x.broadcast_sub(&mean)?;
    let weight = Tensor::zeros((channels, channels, 1, 1), DType::F32, x.device())?;
    let gradients = conv2d_backward(&centred, &weight, &centred, 1, 0, None, false)?;
    Ok(gradients.weight.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::estimators::source::tests::Fixed;

    #[test]
    fn covariance_is_that_of_plain_sums() {
        let shape = FeatureShape {
            channels: 3,
            height: 4,
            width: 5,
        };
        let images = 19; // more than two batches of products
        let value = |index: usize| (index as f32 * 7.31).sin() * 2.0 + 5.0;
        let record = |image: usize| vec![(0..60).map(|i| value(image * 60 + i)).collect()];
        let features = Fixed {
            shapes: vec![shape],
            records: (0..images).map(record).collect(),
        };
        let found = &channel_covariances_of(&features, &Ok).unwrap()[0];
        let channel = |c: usize| {
            let places = (0..images).flat_map(move |image| (0..20).map(move |at| (image, at)));
            places.map(move |(image, at)| f64::from(value(image * 60 + c * 20 + at)))
        };
        let mean = |c: usize| channel(c).sum::<f64>() / (20 * images) as f64;
        for a in 0..3 {
            assert!((f64::from(found.mean[a]) - mean(a)).abs() < 1e-6);
            for b in 0..3 {
                let products = channel(a).zip(channel(b)).map(|(x, y)| x * y).sum::<f64>();
                let expected = products / (20 * images) as f64 - mean(a) * mean(b);
                let found = found.covariance[a * 3 + b];
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }
}
