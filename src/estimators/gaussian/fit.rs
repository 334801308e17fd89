//! Mean and covariance of every position over the training photos.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    PaDiMConfig,
    padim::{CHANNELS, FACTORS, MEANS},
};
use crate::estimators::{FeatureSource, FitWith, embedding};
use crate::kernels::gaussian::Factorised;
use crate::{Error, Result};

/// Photos whose products are summed in one pass over the sums, which are larger than their features.
const PHOTOS: usize = 16;

/// Sums over photos at one position.
#[derive(Clone)]
struct Moments {
    /// `[D]`.
    sum: Vec<f64>,
    /// The lower triangle of the products, row by row.
    products: Vec<f64>,
}

/// The tensors of a fitted PaDiM, on the CPU.
pub(super) fn tensors(
    config: &PaDiMConfig,
    features: &dyn FeatureSource,
    with: &mut FitWith<'_>,
) -> Result<BTreeMap<String, Tensor>> {
    if with.parent.is_some() {
        return Err(Error::Training(
            "PaDiM keeps no photos that new ones could be added to; fit it anew on all of them"
                .into(),
        ));
    }
    if features.len() < 2 {
        return Err(Error::Training(
            "PaDiM needs at least two normal images: a covariance has to be estimated".into(),
        ));
    }
    let channels = chosen(config, features, with.seed);
    let moments = moments(features, &channels, with)?;
    let count = features.len() as f64;
    let kept = channels.len();
    let gaussians = moments.par_iter().enumerate().map(|(position, moments)| {
        let mean: Vec<f64> = moments.sum.iter().map(|sum| sum / count).collect();
        let covariance = covariance(moments, &mean, count, config.regularisation);
        let factor = Factorised::of(&covariance, position)?;
        let mean: Vec<f32> = mean.iter().map(|value| *value as f32).collect();
        Ok((mean, factor.rows))
    });
    let gaussians = gaussians.collect::<Result<Vec<_>>>()?;
    let positions = gaussians.len();
    let (means, factors): (Vec<_>, Vec<_>) = gaussians.into_iter().unzip();
    let device = &Device::Cpu;
    let triangle = kept * (kept + 1) / 2;
    Ok(BTreeMap::from([
        (CHANNELS.into(), Tensor::from_vec(channels, kept, device)?),
        (
            MEANS.into(),
            Tensor::from_vec(means.concat(), (positions, kept), device)?,
        ),
        (
            FACTORS.into(),
            Tensor::from_vec(factors.concat(), (positions, triangle), device)?,
        ),
    ]))
}

/// The channels that are kept, ascending.
fn chosen(config: &PaDiMConfig, features: &dyn FeatureSource, seed: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let all = embedding::channels(features.shapes());
    let some = index::sample(&mut rng, all, config.channels);
    let mut some: Vec<u32> = some.into_iter().map(|channel| channel as u32).collect();
    some.sort_unstable();
    some
}

fn moments(
    features: &dyn FeatureSource,
    channels: &[u32],
    with: &mut FitWith<'_>,
) -> Result<Vec<Moments>> {
    let (kept, records) = (channels.len(), (0..features.len()).collect::<Vec<_>>());
    let mut all: Vec<Moments> = Vec::new();
    let mut done = 0;
    for records in records.chunks(PHOTOS) {
        let photos = records.par_iter().map(|&record| {
            let maps = features.batch(&[record], &Device::Cpu)?;
            let vectors = embedding::embed_channels(&maps, channels)?;
            Ok(vectors.flatten_all()?.to_vec1::<f32>()?)
        });
        let photos = photos.collect::<Result<Vec<_>>>()?;
        if all.is_empty() {
            let none = Moments {
                sum: vec![0.0; kept],
                products: vec![0.0; kept * (kept + 1) / 2],
            };
            all = vec![none; photos[0].len() / kept];
        }
        all.par_iter_mut()
            .enumerate()
            .for_each(|(position, moments)| {
                for photo in &photos {
                    moments.add(&photo[position * kept..][..kept]);
                }
            });
        done += records.len();
        with.tell(done, features.len())?;
    }
    Ok(all)
}

impl Moments {
    fn add(&mut self, vector: &[f32]) {
        let mut products = self.products.iter_mut();
        for (row, &value) in vector.iter().enumerate() {
            let value = f64::from(value);
            self.sum[row] += value;
            // The row first: a zip that began with the products would lose one of them at its end.
            for (other, product) in vector[..=row].iter().zip(products.by_ref()) {
                *product += value * f64::from(*other);
            }
        }
    }
}

/// The unbiased covariance `[D, D]`, row by row, with the regularisation on its diagonal.
fn covariance(moments: &Moments, mean: &[f64], count: f64, regularisation: f64) -> Vec<f64> {
    let size = mean.len();
    let mut covariance = vec![0.0; size * size];
    let mut products = moments.products.iter();
    for row in 0..size {
        for (column, product) in products.by_ref().take(row + 1).enumerate() {
            let value = (product - count * mean[row] * mean[column]) / (count - 1.0);
            covariance[row * size + column] = value;
            covariance[column * size + row] = value;
        }
        covariance[row * size + row] += regularisation;
    }
    covariance
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::estimators::{Estimator, MethodConfig as _, Scoring, source::tests::Fixed};
    use crate::kernels::FeatureShape;

    fn features(images: usize) -> Fixed {
        let shape = |channels, side| FeatureShape {
            channels,
            height: side,
            width: side,
        };
        let value = |i: usize| ((i as f32 * 12.9898).sin() * 43_758.547).fract();
        let record = |image: usize| {
            vec![
                (0..3 * 16).map(|i| value(image * 97 + i)).collect(),
                (0..2 * 4).map(|i| value(image * 31 + i + 7000)).collect(),
            ]
        };
        Fixed {
            shapes: vec![shape(3, 4), shape(2, 2)],
            records: (0..images).map(record).collect(),
        }
    }

    fn fit(features: &Fixed, channels: usize) -> Result<Box<dyn Estimator>> {
        let config = PaDiMConfig::new(channels);
        let crate::estimators::Fitting::Closed(method) = config.fitting() else {
            unreachable!();
        };
        method.fit(
            features,
            &mut FitWith {
                seed: 1,
                device: &Device::Cpu,
                parent: None,
                progress: &mut |_, _| true,
            },
        )
    }

    /// `sqrt((x - m)^T (cov + 0.01 I)^-1 (x - m))` at every position, by nalgebra in f64.
    #[test]
    fn distances_are_mahalanobis_distances() {
        let features = features(40); // more than two passes
        let padim = fit(&features, 4).unwrap();
        let channels = padim.tensors().unwrap()[CHANNELS].to_vec1::<u32>().unwrap();
        let vectors: Vec<Vec<f32>> = (0..40)
            .map(|image| {
                let maps = features.batch(&[image], &Device::Cpu).unwrap();
                let rows = embedding::embed_channels(&maps, &channels).unwrap();
                rows.flatten_all().unwrap().to_vec1().unwrap()
            })
            .collect();
        let maps = features.batch(&[3], &Device::Cpu).unwrap();
        let found = padim.native_maps(&maps, &Scoring::of_distances()).unwrap();
        let found = found.pixel[0]
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(found.len(), 16);
        for (position, found) in found.iter().enumerate() {
            let at = |image: usize| {
                let values = vectors[image][position * 4..][..4].iter();
                nalgebra::DVector::from_iterator(4, values.map(|v| f64::from(*v)))
            };
            let mean = (0..40).map(at).sum::<nalgebra::DVector<f64>>() / 40.0;
            let spread = |image| (at(image) - &mean) * (at(image) - &mean).transpose();
            let covariance = (0..40).map(spread).sum::<nalgebra::DMatrix<f64>>() / 39.0
                + nalgebra::DMatrix::identity(4, 4) * 0.01;
            let gap = at(3) - &mean;
            let expected = (gap.transpose() * covariance.try_inverse().unwrap() * &gap)[0].sqrt();
            assert!(
                (f64::from(*found) - expected).abs() < 1e-4 * expected,
                "{position}"
            );
        }
    }

    #[test]
    fn a_single_photo_has_no_covariance() {
        let error = fit(&features(1), 4).unwrap_err().to_string();
        assert!(error.contains("at least two"), "{error}");
        let error = fit(&features(9), 6).unwrap_err().to_string();
        assert!(error.contains("1 to 5"), "{error}");
    }

    #[test]
    fn tensors_of_another_backbone_or_with_nan_are_refused() {
        let features = features(9);
        let padim = fit(&features, 4).unwrap();
        let config = PaDiMConfig::new(4);
        let load = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
            let mut tensors = padim.tensors().unwrap();
            change(&mut tensors);
            let loaded = config.load(padim.shapes(), tensors, &Device::Cpu);
            loaded.err().map(|error| error.to_string())
        };
        assert_eq!(load(&|_| ()), None);
        let narrow = |name: &'static str| {
            move |tensors: &mut BTreeMap<String, Tensor>| {
                let less = tensors[name].narrow(0, 0, 3).unwrap();
                tensors.insert(name.into(), less);
            }
        };
        assert!(load(&narrow(MEANS)).unwrap().contains("another backbone"));
        assert!(load(&narrow(CHANNELS)).unwrap().contains("channels"));
        let error = load(&|tensors| {
            let nan = Tensor::full(f32::NAN, tensors[MEANS].dims(), &Device::Cpu).unwrap();
            tensors.insert(MEANS.into(), nan);
        });
        assert!(error.unwrap().contains("not finite"));
        let error = load(&|tensors| {
            tensors.remove(FACTORS);
        });
        assert!(error.unwrap().contains("`factors` is missing"));
    }
}
