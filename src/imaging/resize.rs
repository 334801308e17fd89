//! Resizing as PIL does it: the filter's support grows when the image shrinks (antialiasing).

use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::U8x3;
use image::RgbImage;

use super::Interpolation;
use crate::{Error, Result};

/// `image` at `width` x `height` pixels; at most one level of 255 beside `PIL.Image.resize`.
///
/// # Errors
/// [`Error::Invalid`] when a side is zero.
pub fn resize(
    image: &RgbImage,
    width: u32,
    height: u32,
    filter: Interpolation,
) -> Result<RgbImage> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::Invalid(format!(
            "cannot resize {}x{} pixels to {width}x{height}: {e}",
            image.width(),
            image.height()
        ))
    };
    if width == 0 || height == 0 {
        return Err(failed(&"a side is zero"));
    }
    // Rows first, then columns, as PIL: the library alone would do the columns first, and the
    // clipping of bicubic overshoot in between then shows as a few levels.
    let rows = along(image, width, image.height(), filter).map_err(|e| failed(&e))?;
    along(&rows, width, height, filter).map_err(|e| failed(&e))
}

fn along(
    image: &RgbImage,
    width: u32,
    height: u32,
    filter: Interpolation,
) -> std::result::Result<RgbImage, Box<dyn std::error::Error>> {
    if image.dimensions() == (width, height) {
        return Ok(image.clone());
    }
    let filter = match filter {
        Interpolation::Bilinear => fir::FilterType::Bilinear,
        Interpolation::Bicubic => fir::FilterType::CatmullRom,
    };
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter));
    // Typed: the untyped call would compile the library for every pixel type it knows, minutes of it.
    let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())?;
    let mut buffer = vec![0; 3 * width as usize * height as usize];
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, &mut buffer)?;
    fir::Resizer::new().resize_typed(&source, &mut target, &options)?;
    RgbImage::from_raw(width, height, buffer).ok_or_else(|| "short buffer".into())
}
