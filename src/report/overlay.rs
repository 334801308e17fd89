//! A heat map over the photo that it was made from.

use image::{Rgb, RgbImage};

use super::ColourScale;
use crate::{Error, Result, imaging::Mask};

/// Scores of an image, of any resolution, in rows.
#[derive(Debug, Clone, Copy)]
pub struct MapView<'a> {
    values: &'a [f32],
    width: usize,
    height: usize,
}

impl<'a> MapView<'a> {
    /// A view of `width` x `height` scores.
    ///
    /// # Errors
    /// When there are no values, or not as many as the sides say.
    pub fn new(values: &'a [f32], width: usize, height: usize) -> Result<Self> {
        if values.is_empty() || values.len() != width * height {
            return Err(Error::Shape {
                what: "anomaly map".into(),
                expected: format!("{height} x {width}"),
                found: format!("{} values", values.len()),
            });
        }
        Ok(Self {
            values,
            width,
            height,
        })
    }

    /// The score at a pixel of an image of another size, bilinear between the map's own.
    pub(super) fn at(&self, x: u32, y: u32, size: (u32, u32)) -> f32 {
        let [left, right, across] = neighbours(x, size.0, self.width);
        let [top, bottom, down] = neighbours(y, size.1, self.height);
        let value =
            |row: f32, column: f32| self.values[row as usize * self.width + column as usize];
        let upper = value(top, left) * (1.0 - across) + value(top, right) * across;
        let lower = value(bottom, left) * (1.0 - across) + value(bottom, right) * across;
        upper * (1.0 - down) + lower * down
    }
}

/// The two cells of a map's side beside a pixel's centre, and how far it is towards the second.
fn neighbours(pixel: u32, pixels: u32, cells: usize) -> [f32; 3] {
    let last = cells as f32 - 1.0;
    let place = ((pixel as f32 + 0.5) * cells as f32 / pixels as f32 - 0.5).clamp(0.0, last);
    [
        place.floor(),
        (place.floor() + 1.0).min(last),
        place.fract(),
    ]
}

/// The photo with the map's colours over it, at the photo's resolution. What is normal stays a photo.
pub fn overlay(photo: &RgbImage, map: MapView, scale: &ColourScale) -> RgbImage {
    let size = photo.dimensions();
    RgbImage::from_fn(size.0, size.1, |x, y| {
        let score = map.at(x, y, size);
        let (opacity, colour) = (scale.opacity(score), scale.colour(score));
        let below = photo.get_pixel(x, y).0;
        Rgb(std::array::from_fn(|c| {
            (f32::from(below[c]) * (1.0 - opacity) + f32::from(colour[c]) * opacity).round() as u8
        }))
    })
}

/// Draws the mask's outline in white with a dark edge, so that it is seen on any photo.
pub fn outline(image: &mut RgbImage, mask: &Mask) {
    let (width, height) = image.dimensions();
    let mask = mask.resized(width as usize, height as usize);
    let thickness = (width.max(height) / 400 + 1) as i64;
    let inside = |x: i64, y: i64| {
        (0..i64::from(width)).contains(&x)
            && (0..i64::from(height)).contains(&y)
            && mask.get(x as usize, y as usize)
    };
    // A pixel lies outside, within `reach` of the mask.
    let borders = |x: i64, y: i64, reach: i64| {
        !inside(x, y)
            && (-reach..=reach).any(|dy| (-reach..=reach).any(|dx| inside(x + dx, y + dy)))
    };
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let (x, y) = (i64::from(x), i64::from(y));
        if borders(x, y, thickness) {
            *pixel = Rgb([255, 255, 255]);
        } else if borders(x, y, thickness + 1) {
            *pixel = Rgb([20, 20, 20]);
        }
    }
}

/// A mask as a picture: white is defective.
pub fn mask_picture(mask: &Mask) -> RgbImage {
    RgbImage::from_fn(mask.width() as u32, mask.height() as u32, |x, y| {
        Rgb([if mask.get(x as usize, y as usize) {
            255
        } else {
            0
        }; 3])
    })
}

/// Pictures of one height side by side, with a gap between them: original, heat map, mask.
///
/// # Errors
/// When there are none, or their heights differ.
pub fn panel(pictures: &[&RgbImage]) -> Result<RgbImage> {
    let heights: Vec<u32> = pictures.iter().map(|picture| picture.height()).collect();
    let Some(&height) = heights.first() else {
        return Err(Error::Invalid("a panel of no pictures".into()));
    };
    if heights.iter().any(|other| *other != height) {
        return Err(Error::Shape {
            what: "panel".into(),
            expected: format!("pictures {height} pixels high"),
            found: format!("{heights:?}"),
        });
    }
    let gap = (height / 64).max(2);
    let width: u32 = pictures
        .iter()
        .map(|picture| picture.width() + gap)
        .sum::<u32>()
        - gap;
    let mut panel = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    let mut x = 0;
    for picture in pictures {
        image::imageops::replace(&mut panel, *picture, i64::from(x), 0);
        x += picture.width() + gap;
    }
    Ok(panel)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_is_beyond_the_scale_is_coloured() {
        let photo = RgbImage::from_fn(12, 6, |x, y| Rgb([10 * x as u8, 30 * y as u8, 77]));
        let scale = ColourScale::new(0.0, 1.0).unwrap();
        let map = [-3.0, -3.0, 9.0];
        let seen = overlay(&photo, MapView::new(&map, 3, 1).unwrap(), &scale);
        for (x, y, pixel) in seen.enumerate_pixels() {
            match x {
                0..6 => assert_eq!(pixel, photo.get_pixel(x, y)),
                10.. => assert!(pixel[0] > 80 && pixel[1] < 60, "{pixel:?}"),
                _ => {}
            }
        }
    }

    /// Values from PyTorch: `F.interpolate(torch.tensor([[[[0., 1.], [2., 5.]]]]), size=(4, 4), mode="bilinear")`.
    #[test]
    fn maps_are_enlarged_as_torch_does() {
        let values = [0.0, 1.0, 2.0, 5.0];
        let map = MapView::new(&values, 2, 2).unwrap();
        let row = |y| (0..4).map(|x| map.at(x, y, (4, 4))).collect::<Vec<_>>();
        assert_eq!(row(0), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(row(1), [0.5, 0.875, 1.625, 2.0]);
        assert_eq!(row(3), [2.0, 2.75, 4.25, 5.0]);
    }

    #[test]
    fn an_outline_keeps_out_of_the_region() {
        let mut image = RgbImage::from_pixel(20, 20, Rgb([90, 90, 90]));
        let mut mask = Mask::empty(20, 20);
        (8..12).for_each(|x| (8..12).for_each(|y| mask.set(x, y, true)));
        outline(&mut image, &mask);
        assert_eq!(image.get_pixel(9, 9).0, [90; 3]);
        assert_eq!(image.get_pixel(7, 9).0, [255; 3]);
        assert_eq!(image.get_pixel(6, 9).0, [20; 3]);
        assert_eq!(image.get_pixel(4, 9).0, [90; 3]);
        let white = image.pixels().filter(|pixel| pixel.0 == [255; 3]).count();
        assert_eq!(white, 6 * 6 - 4 * 4);
    }

    #[test]
    fn a_panel_keeps_its_pictures_whole() {
        let (left, right) = (
            RgbImage::from_pixel(5, 8, Rgb([1; 3])),
            RgbImage::from_pixel(7, 8, Rgb([2; 3])),
        );
        let panel = panel(&[&left, &right]).unwrap();
        assert_eq!(panel.dimensions(), (5 + 2 + 7, 8));
        assert_eq!(panel.get_pixel(7, 0).0, [2; 3]);
        assert!(super::panel(&[&left, &RgbImage::new(3, 3)]).is_err());
        assert!(super::panel(&[]).is_err());
    }

    #[test]
    fn a_map_has_as_many_values_as_its_sides_say() {
        assert!(MapView::new(&[0.0; 5], 2, 2).is_err());
        assert!(MapView::new(&[], 0, 0).is_err());
    }
}
