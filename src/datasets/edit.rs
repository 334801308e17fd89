//! What is done to an image after it is read, so that a changed data set needs no copies on disk.

use std::fmt;
use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, RgbImage, imageops};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::imaging::{Affine, Mask, SyntheticDefect};
use crate::{Error, Result};

/// A change of an image, and of its mask where the two belong together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Edit {
    /// Turned counter-clockwise and scaled about the centre, then shifted right and down.
    Move {
        /// Degrees.
        degrees: f64,
        /// Factor.
        scale: f64,
        /// Shares of width and height.
        shift: [f64; 2],
    },
    /// Every value times this factor.
    Brightness(f64),
    /// Gaussian blur; the deviation as a share of the shorter side, at least half a pixel.
    Blur(f64),
    /// Gaussian blur; the deviation in pixels.
    BlurPixels(f64),
    /// Noise of this deviation, in grey levels, drawn from a seed, every channel its own.
    Noise(f64, u64),
    /// Compressed as JPEG of this quality (1 to 100) and read again.
    Jpeg(u8),
    /// A synthetic defect drawn from a seed, with its mask.
    Defect(SyntheticDefect, u64),
}

/// Less changes no grey level.
const LEAST_BLUR: f64 = 0.5;

impl Edit {
    /// The changed image, of the same size.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be compressed.
    pub fn apply(&self, image: &RgbImage) -> Result<RgbImage> {
        Ok(match *self {
            Edit::Move { .. } => self.movement(image.width(), image.height()).warp(image),
            Edit::Brightness(factor) => {
                let levels: [u8; 256] = std::array::from_fn(|v| (v as f64 * factor).round() as u8);
                let mut image = image.clone();
                image.iter_mut().for_each(|v| *v = levels[usize::from(*v)]);
                image
            }
            Edit::Blur(share) => {
                let deviation = share * f64::from(image.width().min(image.height()));
                imageops::blur(image, deviation.max(LEAST_BLUR) as f32)
            }
            Edit::BlurPixels(deviation) => imageops::blur(image, deviation as f32),
            Edit::Noise(deviation, seed) => noisy(image, deviation, seed)?,
            Edit::Jpeg(quality) => through_jpeg(image, quality)?,
            Edit::Defect(..) => match self.defect(image) {
                Some((image, _)) => image,
                None => image.clone(),
            },
        })
    }

    /// The image with a synthetic defect, and where it is; `None` of any other edit.
    pub(super) fn defect(&self, image: &RgbImage) -> Option<(RgbImage, Mask)> {
        match *self {
            Edit::Defect(kind, seed) => {
                Some(kind.apply(image, &mut ChaCha8Rng::seed_from_u64(seed)))
            }
            _ => None,
        }
    }

    /// The mask that belongs to the changed image, from that of the original.
    pub fn apply_mask(&self, mask: Mask) -> Mask {
        match self {
            Edit::Move { .. } => self
                .movement(mask.width() as u32, mask.height() as u32)
                .warp_mask(&mask),
            _ => mask,
        }
    }

    /// The movement in pixels; standing still for the other edits.
    pub(super) fn movement(&self, width: u32, height: u32) -> Affine {
        match *self {
            Edit::Move {
                degrees,
                scale,
                shift,
            } => {
                let pixels = [shift[0] * f64::from(width), shift[1] * f64::from(height)];
                Affine::about_centre(width, height, degrees, scale, pixels)
            }
            _ => Affine::about_centre(width, height, 0.0, 1.0, [0.0, 0.0]),
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edit::Move {
                degrees,
                scale,
                shift: [x, y],
            } => {
                write!(f, "moved {degrees:.2} deg x{scale:.3} {x:+.3} {y:+.3}")
            }
            Edit::Brightness(factor) => write!(f, "brightness x{factor:.3}"),
            Edit::Blur(share) => write!(f, "blur {share:.4}"),
            Edit::BlurPixels(deviation) => write!(f, "blur {deviation} px"),
            Edit::Noise(deviation, seed) => write!(f, "noise {deviation} {seed}"),
            Edit::Jpeg(quality) => write!(f, "jpeg {quality}"),
            Edit::Defect(kind, seed) => write!(f, "{} {seed}", kind.name()),
        }
    }
}

fn noisy(image: &RgbImage, deviation: f64, seed: u64) -> Result<RgbImage> {
    let noise = Normal::new(0.0, deviation)
        .map_err(|e| Error::Invalid(format!("noise of deviation {deviation}: {e}")))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut image = image.clone();
    // A float becomes the nearest byte that there is.
    image
        .iter_mut()
        .for_each(|v| *v = (f64::from(*v) + noise.sample(&mut rng)).round() as u8);
    Ok(image)
}

fn through_jpeg(image: &RgbImage, quality: u8) -> Result<RgbImage> {
    let failed =
        |e: image::ImageError| Error::Invalid(format!("an image cannot be compressed: {e}"));
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(Cursor::new(&mut bytes), quality)
        .encode_image(image)
        .map_err(failed)?;
    let decoded = image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).map_err(failed)?;
    Ok(decoded.into_rgb8())
}
