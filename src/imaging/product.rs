//! Where the product lies on a photo with an even background.

use image::{GrayImage, Luma, RgbImage};
use imageproc::{
    contrast::otsu_level, distance_transform::Norm, filter::gaussian_blur_f32, morphology::erode,
};

/// Least difference between background and product, in levels of 255.
const LEAST_CONTRAST: u8 = 12;
/// Shares of the photo that a product may take.
const SHARES: std::ops::Range<f64> = 0.005..0.7;
/// Largest share of the photo's border that may look like the product: more, and it is no background.
const LARGEST_BORDER: f64 = 0.2;

/// The pixels that differ from the background.
pub struct Product {
    pixels: GrayImage,
    area: usize,
    /// Those a little inside the outline.
    inner: Vec<(u32, u32)>,
}

impl Product {
    /// Takes the median colour of the photo's border for the background and cuts the difference from it at
    /// Otsu's threshold. `None` where that makes no sense: a texture, a product that fills the photo, an empty one.
    pub fn find(image: &RgbImage) -> Option<Self> {
        let (width, height) = image.dimensions();
        if width.min(height) < 8 {
            return None;
        }
        let side = width.min(height) as f32;
        let difference = gaussian_blur_f32(&from_background(image), side / 256.0);
        let level = otsu_level(&difference).max(LEAST_CONTRAST);
        let pixels = GrayImage::from_fn(width, height, |x, y| {
            Luma([if difference.get_pixel(x, y).0[0] > level {
                255
            } else {
                0
            }])
        });
        let area = pixels.iter().filter(|&&value| value > 0).count();
        let share = area as f64 / f64::from(width) / f64::from(height);
        let (on, all) = border(width, height).fold((0.0, 0.0), |(on, all), (x, y)| {
            let is_on = pixels.get_pixel(x, y).0[0] > 0;
            (on + f64::from(u8::from(is_on)), all + 1.0)
        });
        if !SHARES.contains(&share) || on > LARGEST_BORDER * all {
            return None;
        }
        let eroded = erode(&pixels, Norm::LInf, (side / 170.0).ceil() as u8);
        let inner = [&eroded, &pixels].map(places);
        let inner = inner.into_iter().find(|places| !places.is_empty())?;
        Some(Self {
            pixels,
            area,
            inner,
        })
    }

    /// Its number of pixels.
    pub fn area(&self) -> usize {
        self.area
    }

    /// Whether it covers a pixel.
    pub fn covers(&self, x: u32, y: u32) -> bool {
        self.pixels.get_pixel(x, y).0[0] > 0
    }

    /// The pixels a little inside its outline; never none.
    pub fn inner(&self) -> &[(u32, u32)] {
        &self.inner
    }
}

/// The largest difference of a channel from the border's median.
fn from_background(image: &RgbImage) -> GrayImage {
    let (width, height) = image.dimensions();
    let background: [u8; 3] = std::array::from_fn(|channel| {
        let mut values: Vec<u8> = border(width, height)
            .map(|(x, y)| image.get_pixel(x, y).0[channel])
            .collect();
        let middle = values.len() / 2;
        *values.select_nth_unstable(middle).1
    });
    GrayImage::from_fn(width, height, |x, y| {
        let pixel = image.get_pixel(x, y).0.into_iter().zip(background);
        Luma([pixel
            .map(|(value, background)| value.abs_diff(background))
            .fold(0, u8::max)])
    })
}

/// The outermost pixels, corners twice.
fn border(width: u32, height: u32) -> impl Iterator<Item = (u32, u32)> {
    let rows = (0..width).flat_map(move |x| [(x, 0), (x, height - 1)]);
    rows.chain((0..height).flat_map(move |y| [(0, y), (width - 1, y)]))
}

fn places(pixels: &GrayImage) -> Vec<(u32, u32)> {
    let on = pixels
        .enumerate_pixels()
        .filter(|(_, _, value)| value.0[0] > 0);
    on.map(|(x, y, _)| (x, y)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image::{Rgb, RgbImage};

    use super::Product;

    /// A disc of 30 pixels' radius on a ground with a little noise.
    fn disc(contrast: i32) -> RgbImage {
        RgbImage::from_fn(128, 160, |x, y| {
            let noise = (x * 7919 + y * 104_729) % 9;
            let inside = (f64::from(x) - 60.0).hypot(f64::from(y) - 90.0) < 30.0;
            let value = 100 + noise as i32 + if inside { contrast } else { 0 };
            Rgb([value as u8, value as u8, 110])
        })
    }

    #[test]
    fn finds_a_disc_and_nothing_where_there_is_none() {
        for contrast in [60, -60] {
            let product = Product::find(&disc(contrast)).unwrap();
            let expected = std::f64::consts::PI * 900.0;
            assert!((product.area() as f64 / expected - 1.0).abs() < 0.05);
            assert!(product.covers(60, 90) && !product.covers(10, 10));
            let radius = |&(x, y): &(u32, u32)| (f64::from(x) - 60.0).hypot(f64::from(y) - 90.0);
            assert!(product.inner().iter().all(|place| radius(place) < 30.0));
            assert!(product.inner().len() > 2000);
        }
        assert!(Product::find(&disc(0)).is_none());
        let stripes = RgbImage::from_fn(64, 64, |x, _| Rgb([(x % 8 * 30) as u8; 3]));
        assert!(Product::find(&stripes).is_none());
        assert!(Product::find(&RgbImage::new(2, 900)).is_none());
    }
}
