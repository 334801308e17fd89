//! Image files to pixels, with limits: a hostile or broken file becomes an error, never a crash.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
};

use super::Mask;
use crate::{Error, Result};

/// Smallest side of an accepted image, in pixels: one pixel has no texture to inspect.
pub const MIN_SIDE: u32 = 2;
/// Largest side of an accepted image, in pixels.
pub const MAX_SIDE: u32 = 20_000;
/// Largest accepted image, in pixels.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Largest accepted file, in bytes: it is read whole before it is decoded.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// What a decoder may allocate, in bytes: [`MAX_PIXELS`] of 16-bit RGBA.
const MAX_DECODED_BYTES: u64 = 8 * MAX_PIXELS;

/// Named in every error, so that the user knows what to bring instead.
const ACCEPTED: &str = "accepted are PNG, JPEG, BMP, TIFF and WebP of 8 or 16 bits a channel, \
    2 to 20000 pixels a side and at most 100 megapixels";

/// Reads an image file as 8-bit RGB.
///
/// The format is told by the content, not by the file's name. EXIF orientation is applied. 16-bit
/// channels are scaled to 8, grey becomes R = G = B, CMYK is converted, and transparency is laid over
/// white (the colour of transparent pixels is arbitrary). Of an animation the first frame is read.
/// The size is checked before any pixel is allocated.
///
/// # Errors
/// [`Error::Image`] when the file is missing, not one of the formats above, truncated, of floating-point
/// values, or outside [`MIN_SIDE`], [`MAX_SIDE`] and [`MAX_PIXELS`].
pub fn decode(path: &Path) -> Result<RgbImage> {
    let (image, _) = read(path)?;
    Ok(if image.color().has_alpha() {
        over_white(image)
    } else {
        image.into_rgb8()
    })
}

/// Reads a ground-truth mask: a pixel is defective where any colour channel is not zero (and alpha is
/// not zero, where there is one). JPEG leaves noise around zero, so there the limit is half of the range.
///
/// # Errors
/// As [`decode`].
pub fn decode_mask(path: &Path) -> Result<Mask> {
    let (image, format) = read(path)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    // 16 bits, because a 16-bit label of 1 would round to 0 in 8.
    let threshold = if format == ImageFormat::Jpeg {
        u16::MAX / 2
    } else {
        0
    };
    let pixels = if image.color().has_alpha() {
        let marked = |p: &image::Rgba<u16>| p.0[3] > 0 && p.0[..3].iter().any(|&v| v > threshold);
        image.into_rgba16().pixels().map(marked).collect()
    } else if image.color().has_color() {
        image
            .into_rgb16()
            .pixels()
            .map(|p| p.0.iter().any(|&v| v > threshold))
            .collect()
    } else {
        image
            .into_luma16()
            .pixels()
            .map(|p| p.0[0] > threshold)
            .collect()
    };
    Mask::new(width, height, pixels)
}

/// Width and height of an image file as [`decode`] would return it, from its header alone.
///
/// # Errors
/// As [`decode`], as far as the header shows.
pub fn dimensions(path: &Path) -> Result<(u32, u32)> {
    let bytes = bytes(path)?;
    let (mut decoder, _) = decoder(path, &bytes)?;
    let (width, height) = decoder.dimensions();
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let turned = matches!(
        decoder.orientation(),
        Ok(Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
    );
    Ok(if turned {
        (height, width)
    } else {
        (width, height)
    })
}

/// The upright image in its own colour type, and its format.
fn read(path: &Path) -> Result<(DynamicImage, ImageFormat)> {
    let bytes = bytes(path)?;
    let (mut decoder, format) = decoder(path, &bytes)?;
    if format == ImageFormat::Jpeg && !jpeg_is_complete(&bytes) {
        return Err(refuse(path, format!("the file is truncated; {ACCEPTED}")));
    }
    // Broken metadata is no reason to refuse a readable image.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| undecodable(path, &e))?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok((image, format))
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |e: std::io::Error| refuse(path, format!("cannot be read: {e}"));
    let meta = fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(refuse(path, format!("is not a file; {ACCEPTED}")));
    }
    if meta.len() == 0 {
        return Err(refuse(path, format!("the file is empty; {ACCEPTED}")));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(refuse(
            path,
            format!("the file is larger than 1 GiB; {ACCEPTED}"),
        ));
    }
    fs::read(path).map_err(unreadable)
}

/// A decoder whose header has been read and found acceptable.
fn decoder<'a>(path: &Path, bytes: &'a [u8]) -> Result<(impl ImageDecoder + 'a, ImageFormat)> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(Error::io(path))?;
    reader.limits(limits);
    let Some(format) = reader.format() else {
        return Err(refuse(path, format!("is not an image; {ACCEPTED}")));
    };
    let decoder = reader.into_decoder().map_err(|e| undecodable(path, &e))?;
    check(path, &decoder)?;
    Ok((decoder, format))
}

fn check(path: &Path, decoder: &impl ImageDecoder) -> Result<()> {
    let (width, height) = decoder.dimensions();
    let too_small = width < MIN_SIDE || height < MIN_SIDE;
    let too_large =
        width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS;
    if too_small || too_large {
        let fault = if too_small { "too small" } else { "too large" };
        return Err(refuse(
            path,
            format!("{width}x{height} pixels are {fault}; {ACCEPTED}"),
        ));
    }
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(refuse(
            path,
            format!("holds floating-point values of unknown range; {ACCEPTED}"),
        ));
    }
    Ok(())
}

/// Whether a JPEG has its end marker. The decoder fills a truncated image with grey, without an error.
/// Segments are skipped whole, because a thumbnail inside one has an end marker of its own.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2; // behind the start marker, which has no length
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        at += match (first, marker) {
            (0xff, 0xd9) => return true,
            // A fill byte: the next byte may be the marker.
            (0xff, 0xff) => 1,
            // Stuffed data and restart markers inside a scan.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd7) => 2,
            (0xff, _) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
            // Compressed data of a scan.
            _ => 1,
        };
    }
    false
}

fn over_white(image: DynamicImage) -> RgbImage {
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, a] = image.get_pixel(x, y).0.map(u32::from);
        let blend = |v: u32| ((v * a + 255 * (255 - a) + 127) / 255) as u8;
        image::Rgb([blend(r), blend(g), blend(b)])
    })
}

fn refuse(path: &Path, reason: String) -> Error {
    Error::Image {
        path: path.to_path_buf(),
        reason,
    }
}

fn undecodable(path: &Path, error: &ImageError) -> Error {
    if matches!(error, ImageError::Limits(_)) {
        return refuse(path, format!("the image is too large; {ACCEPTED}"));
    }
    // Decoders' messages may run over several lines; ours are one line.
    let detail = error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    refuse(path, format!("cannot be decoded ({detail}); {ACCEPTED}"))
}
