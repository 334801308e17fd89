//! What a photo is like as a picture, whatever it shows: how bright, how sharp, how hard compressed.

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// Measures of one photo.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Mean grey level, 0 to 1.
    pub brightness: f32,
    /// Standard deviation of the grey levels, 0 to 1.
    pub contrast: f32,
    /// Logarithm of how much of the contrast lies between neighbouring pixels: the root mean square of the Laplacian
    /// over the contrast. Blur lowers it, noise raises it.
    pub sharpness: f32,
    /// Mean step of the grey level between pixels of neighbouring 8 x 8 cells over that between other neighbours, minus
    /// 1: what JPEG leaves; about 0 elsewhere.
    pub blockiness: f32,
    /// Logarithm of the number of pixels.
    pub size: f32,
}

impl Quality {
    /// The names of the measures, in the order of [`Self::values`].
    pub const NAMES: [&str; 5] = ["brightness", "contrast", "sharpness", "compression", "size"];

    /// Differences that nobody needs to be told of, in the order of [`Self::values`].
    pub const SLACK: [f32; 5] = [0.04, 0.03, 0.15, 0.08, 0.1];

    /// Of one photo. Photos of less than 16 pixels a side have no compression to speak of.
    pub fn of(photo: &RgbImage) -> Self {
        let (width, height) = (photo.width() as usize, photo.height() as usize);
        let grey: Vec<f32> = photo
            .pixels()
            .map(|p| {
                (0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]))
                    / 255.0
            })
            .collect();
        let count = grey.len().max(1) as f64;
        let mean = grey.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let variance = grey
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>()
            / count;
        let contrast = variance.sqrt();
        let laplacian = laplacian(&grey, width, height);
        Self {
            brightness: mean as f32,
            contrast: contrast as f32,
            // A grey level more, so that an even photo has one too.
            sharpness: ((laplacian + 1.0 / 255.0) / (contrast + 1.0 / 255.0)).ln() as f32,
            blockiness: blockiness(&grey, width, height) as f32,
            size: count.ln() as f32,
        }
    }

    /// All measures.
    pub fn values(&self) -> [f32; 5] {
        [
            self.brightness,
            self.contrast,
            self.sharpness,
            self.blockiness,
            self.size,
        ]
    }
}

/// Root mean square of the Laplacian over all inner pixels.
fn laplacian(grey: &[f32], width: usize, height: usize) -> f64 {
    if width < 3 || height < 3 {
        return 0.0;
    }
    let mut sum = 0f64;
    for y in 1..height - 1 {
        let (above, row, below) = (
            &grey[(y - 1) * width..y * width],
            &grey[y * width..(y + 1) * width],
            &grey[(y + 1) * width..(y + 2) * width],
        );
        let of_row: f32 = (1..width - 1)
            .map(|x| {
                let value = above[x] + below[x] + row[x - 1] + row[x + 1] - 4.0 * row[x];
                value * value
            })
            .sum();
        sum += f64::from(of_row);
    }
    (sum / ((width - 2) * (height - 2)) as f64).sqrt()
}

/// Rows and columns that are looked at for compression; of larger photos some, evenly spread.
const LINES: usize = 512;

/// Steps across the borders of 8 x 8 cells over steps elsewhere, minus 1.
fn blockiness(grey: &[f32], width: usize, height: usize) -> f64 {
    const CELL: usize = 8;
    if width < 2 * CELL || height < 2 * CELL {
        return 0.0;
    }
    // [inside, across]: sum of steps, and their number.
    let mut steps = [(0f64, 0usize); 2];
    let mut add = |from: f32, to: f32, at: usize| {
        let kind = &mut steps[usize::from(at.is_multiple_of(CELL))];
        *kind = (kind.0 + f64::from((to - from).abs()), kind.1 + 1);
    };
    for y in (0..height).step_by(height.div_ceil(LINES)) {
        for x in 1..width {
            add(grey[y * width + x - 1], grey[y * width + x], x);
        }
    }
    for y in 1..height {
        for x in (0..width).step_by(width.div_ceil(LINES)) {
            add(grey[(y - 1) * width + x], grey[y * width + x], y);
        }
    }
    let mean = |(sum, count): (f64, usize)| sum / count.max(1) as f64 + 0.1 / 255.0;
    mean(steps[1]) / mean(steps[0]) - 1.0
}

/// The measures of photos that a detector was trained on, as ranges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityRange {
    /// The smallest of each measure.
    pub low: Quality,
    /// The largest of each measure.
    pub high: Quality,
}

impl QualityRange {
    /// Of the photos' measures; none of no photo.
    pub fn of(photos: impl IntoIterator<Item = Quality>) -> Option<Self> {
        photos.into_iter().fold(None, |range: Option<Self>, photo| {
            let range = range.unwrap_or(Self {
                low: photo,
                high: photo,
            });
            Some(Self {
                low: range.low.with(&photo, f32::min),
                high: range.high.with(&photo, f32::max),
            })
        })
    }

    /// The names of the measures in which a photo is outside: by more than half of the range and what nobody needs to be
    /// told of.
    pub fn outside(&self, photo: &Quality) -> Vec<&'static str> {
        let ranges = self.low.values().into_iter().zip(self.high.values());
        let all = ranges.zip(photo.values()).zip(Quality::SLACK);
        all.zip(Quality::NAMES)
            .filter(|((((low, high), value), slack), _)| {
                let margin = 0.5 * (high - low) + slack;
                !(low - margin..=high + margin).contains(value)
            })
            .map(|(_, name)| name)
            .collect()
    }

    /// Whether all numbers are ones.
    pub fn is_finite(&self) -> bool {
        let values = self.low.values().into_iter().chain(self.high.values());
        values.into_iter().all(f32::is_finite)
    }
}

impl Quality {
    fn with(&self, other: &Self, pick: impl Fn(f32, f32) -> f32) -> Self {
        Self {
            brightness: pick(self.brightness, other.brightness),
            contrast: pick(self.contrast, other.contrast),
            sharpness: pick(self.sharpness, other.sharpness),
            blockiness: pick(self.blockiness, other.blockiness),
            size: pick(self.size, other.size),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image::{DynamicImage, Rgb, codecs::jpeg::JpegEncoder, imageops};

    use super::*;

    /// Fine structure without a period of 8.
    fn photo(seed: u32) -> RgbImage {
        RgbImage::from_fn(160, 120, |x, y| {
            let wave =
                ((x * 5 + y * 3 + seed * 7) % 37) as f32 * 2.0 + ((x * y + seed) % 23) as f32;
            Rgb([wave as u8 + 60; 3])
        })
    }

    fn range() -> QualityRange {
        QualityRange::of((0..6).map(|seed| Quality::of(&photo(seed)))).unwrap()
    }

    #[test]
    fn a_photo_like_the_others_is_inside() {
        assert_eq!(
            range().outside(&Quality::of(&photo(40))),
            Vec::<&str>::new()
        );
        assert!(QualityRange::of([]).is_none() && range().is_finite());
    }

    #[test]
    fn blur_light_compression_and_size_are_named() {
        let range = range();
        let outside = |photo: &RgbImage| range.outside(&Quality::of(photo));
        let blurred = imageops::blur(&photo(1), 2.0);
        assert!(outside(&blurred).contains(&"sharpness"));
        let bright = RgbImage::from_fn(160, 120, |x, y| {
            Rgb(photo(1).get_pixel(x, y).0.map(|v| v + 70))
        });
        assert_eq!(outside(&bright), ["brightness"]);
        let mut bytes = Vec::new();
        DynamicImage::ImageRgb8(photo(1))
            .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 10))
            .unwrap();
        let compressed = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert!(outside(&compressed).contains(&"compression"));
        let small = imageops::thumbnail(&photo(1), 80, 60);
        assert!(outside(&small).contains(&"size"));
    }
}
