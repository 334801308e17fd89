//! A product of our own, photographed as often as needed: a woven cloth, good and defective.
//!
//! It is what the bundled detector is trained on and what tests and first steps use where no real data
//! set is at hand. A cloth is modelled as yarns that cross (`fabric`), a defect as a change to them or
//! as something on them (`defect`, `surface`), and every photo has its own pose, light and noise
//! (`camera`). The same seed gives the same pictures.

use std::path::Path;

use image::{GrayImage, RgbImage};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

mod camera;
mod contrast;
mod defect;
mod fabric;
mod surface;
mod weave;
mod write;

use camera::Camera;
use defect::Defect;
use fabric::Fabric;

pub use contrast::MAX_CONTRAST;
pub use defect::DefectKind;
pub(super) use write::RECORD;
pub use write::{GenerateOptions, Generated, GeneratedDefect};

use crate::{Error, Result};

/// The generator; cheap to make.
#[derive(Debug, Clone, Copy)]
pub struct GeneratedProduct {
    seed: u64,
    size: u32,
}

/// Which photos: those of different splits never show the same piece of cloth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Good products to train on.
    Train,
    /// Good products to test on.
    Good,
    /// Defective products to test on.
    Defective,
}

/// A photo of a defective product.
#[derive(Debug, Clone)]
pub struct DefectivePhoto {
    /// What is wrong.
    pub kind: DefectKind,
    /// The photo.
    pub image: RgbImage,
    /// White where the defect is, else black; of the photo's size.
    pub mask: GrayImage,
    /// Root mean square change of the grey levels (R, G, B) under the mask, compared with the same photo
    /// without the defect, over the texture's own deviation; at most [`MAX_CONTRAST`].
    pub contrast: f32,
}

impl GeneratedProduct {
    /// Photos of `size` x `size` pixels, all from one seed.
    ///
    /// # Errors
    /// When `size` is not within 64 to 2048.
    pub fn new(seed: u64, size: u32) -> Result<Self> {
        if !(64..=2048).contains(&size) {
            return Err(Error::Invalid(format!(
                "size {size}: generated images have 64 to 2048 pixels a side"
            )));
        }
        Ok(Self { seed, size })
    }

    /// A good product; [`Split::Train`] or [`Split::Good`].
    pub fn good(&self, split: Split, index: usize) -> RgbImage {
        let mut rng = self.rng(split, index);
        let fabric = Fabric::new(&mut rng);
        let camera = Camera::new(self.size, &mut rng);
        camera.develop(&camera.expose(&fabric, None), &mut rng)
    }

    /// A defective product; the kinds take turns.
    pub fn defective(&self, index: usize) -> DefectivePhoto {
        let kind = DefectKind::ALL[index % DefectKind::ALL.len()];
        let mut rng = self.rng(Split::Defective, index);
        let fabric = Fabric::new(&mut rng);
        let camera = Camera::new(self.size, &mut rng);
        let defect = Defect::new(kind, &mut rng);
        let mask = camera.mask(&defect);
        let intact = camera.expose(&fabric, None);
        let mut exposed = camera.expose(&fabric, Some(&defect));
        let contrast = contrast::limit(&intact, &mut exposed, &mask);
        DefectivePhoto {
            kind,
            image: camera.develop(&exposed, &mut rng),
            mask,
            contrast,
        }
    }

    /// Writes a data set in MVTec AD's layout with `generated.json` (the options, and what every defect
    /// measures) beside it. The folder appears whole or not at all.
    ///
    /// # Errors
    /// When `folder` exists and is not empty, when it cannot be written, or when the options make no
    /// sense.
    pub fn write(folder: impl AsRef<Path>, options: &GenerateOptions) -> Result<Generated> {
        write::data_set(folder.as_ref(), options)
    }

    /// Writes the few JPEG pictures that the crate brings along (`examples/images`), flat in `folder`;
    /// returns their names.
    ///
    /// # Errors
    /// As [`GeneratedProduct::write`].
    pub fn write_samples(folder: impl AsRef<Path>) -> Result<Vec<String>> {
        write::samples(folder.as_ref())
    }

    /// One independent stream of random numbers for each photo.
    fn rng(&self, split: Split, index: usize) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(((split as u64) << 32) | index as u64);
        rng
    }
}

#[cfg(test)]
mod tests;
