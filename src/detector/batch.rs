//! Many photos at once, in the way that suits the device: on the CPU every core takes its own, a GPU gets them stacked.

use std::borrow::Borrow;

use candle_core::{Device, Tensor};
use image::RgbImage;
use rayon::prelude::*;

use super::{Detector, Prediction, finite};
use crate::{
    Result,
    backbones::input_features,
    estimators::{AnomalyMap, NativeMaps},
};

/// Photos that a GPU gets at a time.
const GPU_BATCH: usize = 16;

impl Detector {
    /// How many photos are best handed over at a time: enough to keep the device busy, few enough to bound memory.
    pub fn batch_size(&self) -> usize {
        match self.device {
            Device::Cpu => 2 * rayon::current_num_threads(),
            _ => GPU_BATCH,
        }
    }

    /// Inspects photos as [`Self::predict`] does one, in their order.
    pub fn predict_batch(&self, images: &[RgbImage]) -> Vec<Result<Prediction>> {
        let found = self.predict_each(images.len(), |index| Ok(images[index].clone()));
        let found = found.into_iter();
        found.map(|result| Ok(result?.1)).collect()
    }

    /// [`Self::predict_batch`] of `count` photos that `read` brings, each with what was found in it.
    pub fn predict_each<P: Borrow<RgbImage> + Send + Sync>(
        &self,
        count: usize,
        read: impl Fn(usize) -> Result<P> + Sync,
    ) -> Vec<Result<(P, Prediction)>> {
        self.each(
            count,
            read,
            |image| self.predict(image),
            |images| self.stacked(images),
        )
    }

    /// [`Self::native_maps`] of `count` photos that `read` brings, each with its maps.
    pub fn native_maps_each<P: Borrow<RgbImage> + Send + Sync>(
        &self,
        count: usize,
        read: impl Fn(usize) -> Result<P> + Sync,
    ) -> Vec<Result<(P, NativeMaps)>> {
        let many = |images: &[&RgbImage]| {
            let features = self.stacked_features(images)?;
            let maps = self.maps_of_features(&features)?;
            (0..images.len())
                .map(|image| maps.of_image(image))
                .collect()
        };
        self.each(count, read, |image| self.native_maps(image), many)
    }

    /// Maps of a batch's features, as the backbone makes them of this detector's inputs, on the CPU.
    ///
    /// # Errors
    /// When the features have other shapes.
    pub fn maps_of_features(&self, features: &[Tensor]) -> Result<NativeMaps> {
        let scoring = &self.config.scoring;
        self.estimator.native_maps(features, scoring)?.to_cpu()
    }

    fn each<P: Borrow<RgbImage> + Send + Sync, T: Send>(
        &self,
        count: usize,
        read: impl Fn(usize) -> Result<P> + Sync,
        one: impl Fn(&RgbImage) -> Result<T> + Sync,
        many: impl Fn(&[&RgbImage]) -> Result<Vec<T>>,
    ) -> Vec<Result<(P, T)>> {
        let alone = |index| {
            let image = read(index)?;
            let found = one(image.borrow())?;
            Ok((image, found))
        };
        if self.device.is_cpu() {
            // A single photo has all cores for itself.
            return match count {
                1 => vec![alone(0)],
                _ => (0..count).into_par_iter().map(alone).collect(),
            };
        }
        let images: Vec<Result<P>> = (0..count).into_par_iter().map(&read).collect();
        let sound: Vec<&RgbImage> = images.iter().flatten().map(Borrow::borrow).collect();
        // Where a batch fails, each photo shows whether it is to blame.
        let mut found = match many(&sound) {
            Ok(found) => found.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(_) => sound.iter().map(|image| one(image)).collect(),
        }
        .into_iter();
        let images = images.into_iter();
        images
            .filter_map(|image| match image {
                Err(error) => Some(Err(error)),
                Ok(image) => Some(found.next()?.map(|found| (image, found))),
            })
            .collect()
    }

    /// Features of all photos, stacked.
    fn stacked_features(&self, images: &[&RgbImage]) -> Result<Vec<Tensor>> {
        let inputs: Vec<Vec<Tensor>> = images
            .par_iter()
            .map(|image| self.config.preprocessing.to_tensors(image, &Device::Cpu))
            .collect::<Result<_>>()?;
        let sizes = 0..inputs.first().map_or(0, Vec::len);
        let stacked = sizes.map(|size| {
            let of_size: Vec<&Tensor> = inputs.iter().map(|image| &image[size]).collect();
            Ok(Tensor::cat(&of_size, 0)?.to_device(&self.device)?)
        });
        let stacked = stacked.collect::<Result<Vec<_>>>()?;
        input_features(self.backbone.as_ref(), &stacked)
    }

    fn stacked(&self, images: &[&RgbImage]) -> Result<Vec<Prediction>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let (scores, maps) = self.estimator.inspect(
            &self.stacked_features(images)?,
            &self.config.scoring,
            self.statistics(),
            self.input_size(),
        )?;
        let (scores, maps) = (scores.to_vec1::<f32>()?, maps.to_device(&Device::Cpu)?);
        let prediction = |(index, (score, image)): (usize, (f32, &&RgbImage))| {
            let map = AnomalyMap::of(&maps.narrow(0, index, 1)?)?;
            self.prediction(finite(score)?, &map, image)
        };
        let found = scores.into_iter().zip(images).enumerate();
        found.map(prediction).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The way of a GPU gives on the CPU what photo after photo gives.
    #[test]
    fn stacked_photos_are_found_what_single_ones_are() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fabric-detector");
        let detector = Detector::load(folder.as_ref(), &Default::default()).unwrap();
        let photo = |seed: u32| {
            RgbImage::from_fn(90 + seed, 70, |x, y| {
                let value = (x * 7 + y * (seed + 3)) % 251;
                image::Rgb([value as u8, (value / 2) as u8, seed as u8 * 40])
            })
        };
        let photos: Vec<RgbImage> = (0..3).map(photo).collect();
        let stacked = detector
            .stacked(&photos.iter().collect::<Vec<_>>())
            .unwrap();
        let together = detector.predict_batch(&photos);
        for ((photo, stacked), together) in photos.iter().zip(stacked).zip(together) {
            let alone = detector.predict(photo).unwrap();
            let together = together.unwrap();
            assert_eq!((alone.score, &alone.map), (together.score, &together.map));
            assert_eq!(
                (alone.score, alone.verdict),
                (stacked.score, stacked.verdict)
            );
            assert_eq!(alone.map, stacked.map);
        }
        assert!(detector.predict_batch(&[]).is_empty());
    }
}
