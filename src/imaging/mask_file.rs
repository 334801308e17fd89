//! Ground-truth masks as people save them: black and white, labels of 1 or 2, soft edges, JPEG, alpha.

use std::path::Path;

use image::{DynamicImage, ImageFormat};

use super::{Mask, decode, reading::Reading};
use crate::Result;

/// Largest value of a mask that numbers its labels instead of drawing them.
const LABELS: f32 = 20.0;
/// What JPEG leaves around zero, of 255.
const JPEG_NOISE: f32 = 32.0;
/// Difference between two colours, each with its brightest channel as 1, that makes them two.
const OTHER_HUE: f32 = 0.25;

/// Reads a ground-truth mask: a pixel is defective where its largest colour channel reaches half of the largest value
/// in the mask, so that soft edges leave the area as it was drawn. Where that largest value is a label's number (at
/// most 20), or the mask is drawn in several colours, every pixel that is not black counts. JPEG leaves noise around
/// zero: a mask without anything brighter than that is empty. Alpha, where there is one, darkens.
///
/// # Errors
/// As [`super::decode()`].
pub fn decode_mask(path: &Path) -> Result<Mask> {
    decode_mask_as(path, &Reading::default())
}

/// [`decode_mask`] with another limit; masks have one page and any depth.
///
/// # Errors
/// As there.
pub fn decode_mask_as(path: &Path, reading: &Reading) -> Result<Mask> {
    let reading = Reading {
        page: 1,
        ..*reading
    };
    let (photo, format) = decode::read(path, &reading)?;
    let (width, height) = photo.dimensions();
    let drawn = Drawn::of(photo.image);
    let threshold = drawn.threshold(format);
    let pixels = drawn
        .values
        .iter()
        .map(|value| *value > 0.0 && *value >= threshold);
    Mask::new(width as usize, height as usize, pixels.collect())
}

/// How bright each pixel is, in the file's own values.
struct Drawn {
    values: Vec<f32>,
    /// Whether there are several colours.
    coloured: bool,
}

impl Drawn {
    fn of(image: DynamicImage) -> Self {
        let alpha = image.color().has_alpha();
        let channels = usize::from(image.color().channel_count());
        match image {
            DynamicImage::ImageRgb32F(image) => {
                Self::pixels(image.as_raw(), channels, alpha, 1.0, |v| *v)
            }
            image if image.color().bytes_per_pixel() as usize == channels => {
                Self::pixels(image.as_bytes(), channels, alpha, 255.0, |v| f32::from(*v))
            }
            image => {
                let (most, image) = (f32::from(u16::MAX), image.into_rgba16());
                Self::pixels(image.as_raw(), 4, true, most, |v| f32::from(*v))
            }
        }
    }

    fn pixels<T>(
        raw: &[T],
        channels: usize,
        alpha: bool,
        most: f32,
        number: impl Fn(&T) -> f32,
    ) -> Self {
        let colours = if alpha { channels - 1 } else { channels };
        let mut first: Option<[f32; 3]> = None;
        let mut coloured = false;
        let value = |pixel: &[T]| {
            let mut parts = [0.0; 3];
            for (part, value) in parts.iter_mut().zip(&pixel[..colours]) {
                *part = number(value);
            }
            let high = parts.into_iter().fold(0.0, f32::max);
            if high > LABELS && colours == 3 {
                let hue = parts.map(|part| part / high);
                let first = first.get_or_insert(hue);
                coloured |= hue
                    .iter()
                    .zip(first)
                    .any(|(a, b)| (*a - *b).abs() > OTHER_HUE);
            }
            match alpha {
                true => high * number(&pixel[colours]) / most,
                false => high,
            }
        };
        let values = raw.chunks_exact(channels).map(value).collect();
        Self { values, coloured }
    }

    fn threshold(&self, format: ImageFormat) -> f32 {
        let largest = self.values.iter().copied().fold(0.0, f32::max);
        match format {
            ImageFormat::Jpeg if largest < JPEG_NOISE => f32::INFINITY,
            ImageFormat::Jpeg => largest / 2.0,
            _ if self.coloured || largest <= LABELS => 0.0,
            _ => largest / 2.0,
        }
    }
}
