//! A photo as its file holds it, of 8 bits or more, until a range makes 8 of them.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use image::{DynamicImage, RgbImage};

use super::range::{self, Depth, PixelRange, RangeDoubt};
use crate::{Error, Result};

/// Values of a photo that are looked at for its range.
const SAMPLED: usize = 1 << 18;

/// An upright photo of any depth.
#[derive(Debug, Clone)]
pub struct Photo {
    /// 8 bits a channel, 16, or `Rgb32F` for all other depths.
    pub(super) image: DynamicImage,
    /// How the file stores its values.
    pub(super) depth: Depth,
}

/// A photo of 8 bits a channel, and what is odd about its grey levels.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The photo.
    pub image: RgbImage,
    /// What is odd.
    pub doubt: Option<RangeDoubt>,
}

impl Borrow<RgbImage> for Seen {
    fn borrow(&self) -> &RgbImage {
        &self.image
    }
}

impl Photo {
    /// Columns and rows.
    pub fn dimensions(&self) -> (u32, u32) {
        (self.image.width(), self.image.height())
    }

    /// How the file stores its values.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// Hashes what is seen: photos of 8 bits alike however their files store them, of others all bits.
    pub fn hash_into(&self, hasher: &mut impl Hasher) {
        match self.depth {
            Depth::U8 if self.image.color().has_alpha() => {
                over_white(self.image.clone()).as_raw().hash(hasher);
            }
            Depth::U8 => self.image.to_rgb8().as_raw().hash(hasher),
            _ => self.image.as_bytes().hash(hasher),
        }
    }

    /// Low and high value, without the most extreme ones; none where no value is a number.
    pub fn extent(&self) -> Option<[f32; 2]> {
        range::extent(&self.sampled())
    }

    /// The photo with 8 bits a channel, and what is odd about it. A photo of 8 bits stays as it is. Transparency is
    /// laid over white.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it has neither 8 nor 16 bits and there is no range.
    pub fn seen(self, range: Option<&PixelRange>) -> Result<Seen> {
        let doubt = match (range, self.depth) {
            (Some(range), Depth::U8) => (!range.beside_eight_bits).then_some(RangeDoubt::EightBits),
            (None, Depth::U8) => None,
            (Some(range), _) => range.doubt(&self.sampled()),
            (None, _) => range::unmeasured(&self.sampled()),
        };
        let image = self.into_rgb(range)?;
        Ok(Seen { image, doubt })
    }

    /// [`Self::seen`] without a look at the grey levels.
    ///
    /// # Errors
    /// As there.
    pub fn into_rgb(self, range: Option<&PixelRange>) -> Result<RgbImage> {
        let image = match (range, self.depth) {
            (_, Depth::U8) | (None, Depth::U16) => self.image,
            (Some(range), _) => scaled(self.image, range),
            (None, depth) => {
                return Err(Error::Invalid(format!(
                    "holds {} values, and there is no range to scale them by: only a detector that was trained on \
                     such photos has one",
                    depth.words()
                )));
            }
        };
        Ok(match image.color().has_alpha() {
            true => over_white(image),
            false => image.into_rgb8(),
        })
    }

    /// Values of pixels all over the photo, sorted; the same ones every time.
    fn sampled(&self) -> Vec<f32> {
        let channels = usize::from(self.image.color().channel_count());
        let opaque = if self.image.color().has_alpha() {
            channels - 1
        } else {
            channels
        };
        let width = self.image.width().max(1) as usize;
        let pixels = width * self.image.height() as usize;
        // No column is to be met more often than others.
        let mut step = pixels.div_ceil(SAMPLED).max(1);
        while step > 1 && gcd(step, width) != 1 {
            step += 1;
        }
        let mut values = Vec::with_capacity((pixels / step + 1) * opaque);
        let mut keep = |pixel: &[f32]| {
            if pixel.get(opaque).is_none_or(|alpha| *alpha > 0.0) {
                values.extend(pixel[..opaque].iter().filter(|value| value.is_finite()));
            }
        };
        match &self.image {
            DynamicImage::ImageLuma16(i) => {
                each(i.as_raw(), channels, step, |v| f32::from(*v), &mut keep)
            }
            DynamicImage::ImageLumaA16(i) => {
                each(i.as_raw(), channels, step, |v| f32::from(*v), &mut keep)
            }
            DynamicImage::ImageRgb16(i) => {
                each(i.as_raw(), channels, step, |v| f32::from(*v), &mut keep)
            }
            DynamicImage::ImageRgba16(i) => {
                each(i.as_raw(), channels, step, |v| f32::from(*v), &mut keep)
            }
            DynamicImage::ImageRgb32F(i) => each(i.as_raw(), channels, step, |v| *v, &mut keep),
            DynamicImage::ImageRgba32F(i) => each(i.as_raw(), channels, step, |v| *v, &mut keep),
            other => each(
                other.as_bytes(),
                channels,
                step,
                |v| f32::from(*v),
                &mut keep,
            ),
        }
        values.sort_unstable_by(f32::total_cmp);
        values
    }
}

/// Every `step`th pixel's values.
fn each<T>(
    raw: &[T],
    channels: usize,
    step: usize,
    number: impl Fn(&T) -> f32,
    keep: &mut impl FnMut(&[f32]),
) {
    let mut pixel = [0.0; 4];
    for values in raw.chunks_exact(channels).step_by(step) {
        for (to, from) in pixel.iter_mut().zip(values) {
            *to = number(from);
        }
        keep(&pixel[..channels]);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

/// The one place where a range is applied: 16 bits or numbers of any kind to 8 bits, alpha kept.
fn scaled(image: DynamicImage, range: &PixelRange) -> DynamicImage {
    let alpha = image.color().has_alpha();
    match image {
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => {
            let levels: Vec<u8> = (0..=u16::MAX).map(|v| range.level(f32::from(v))).collect();
            let level = |v: u16| levels[usize::from(v)];
            if !alpha {
                let (width, height) = (image.width(), image.height());
                return match image {
                    DynamicImage::ImageLuma16(grey) => RgbImage::from_fn(width, height, |x, y| {
                        image::Rgb([level(grey.get_pixel(x, y).0[0]); 3])
                    }),
                    colour => {
                        let colour = colour.into_rgb16();
                        RgbImage::from_fn(width, height, |x, y| {
                            image::Rgb(colour.get_pixel(x, y).0.map(level))
                        })
                    }
                }
                .into();
            }
            let image = image.into_rgba16();
            image::RgbaImage::from_fn(image.width(), image.height(), |x, y| {
                let [r, g, b, a] = image.get_pixel(x, y).0;
                image::Rgba([
                    level(r),
                    level(g),
                    level(b),
                    ((u32::from(a) + 128) / 257) as u8,
                ])
            })
            .into()
        }
        other => {
            let image = other.into_rgb32f();
            RgbImage::from_fn(image.width(), image.height(), |x, y| {
                image::Rgb(image.get_pixel(x, y).0.map(|value| range.level(value)))
            })
            .into()
        }
    }
}

fn over_white(image: DynamicImage) -> RgbImage {
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, a] = image.get_pixel(x, y).0.map(u32::from);
        let blend = |v: u32| ((v * a + 255 * (255 - a) + 127) / 255) as u8;
        image::Rgb([blend(r), blend(g), blend(b)])
    })
}
