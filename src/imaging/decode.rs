//! Image files to pixels, with limits: a hostile or broken file becomes an error, never a crash.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::codecs::tiff::TiffDecoder;
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
};

use super::{
    Photo,
    photo::Seen,
    range::Depth,
    reading::{MAX_SIDE, MIN_SIDE, Reading},
    tiff::{self, Page},
};
use crate::{Error, Result};

/// Largest accepted file, in bytes: it is read whole before it is decoded.
const MAX_FILE_BYTES: u64 = 4 << 30;
/// What a decoder may allocate a pixel, in bytes: RGB of 64 bits, the deepest that is read.
const BYTES_A_PIXEL: u64 = 24;

/// What the header of an image file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Columns of the upright image.
    pub width: u32,
    /// Rows of the upright image.
    pub height: u32,
    /// How values are stored.
    pub depth: Depth,
    /// Images in the file: pages of a TIFF, else 1.
    pub pages: usize,
}

/// Reads an image file as 8-bit RGB.
///
/// The format is told by the content, not by the file's name. EXIF orientation is applied. 16-bit
/// channels are scaled to 8, grey becomes R = G = B, CMYK is converted, and transparency is laid over
/// white (the colour of transparent pixels is arbitrary). Of an animation the first frame is read, of several pages
/// the first. The size is checked before any pixel is allocated.
///
/// # Errors
/// [`Error::Image`] when the file is missing, not one of the formats above, truncated, of floating-point
/// values, or outside [`MIN_SIDE`], [`MAX_SIDE`] and [`super::MAX_PIXELS`].
pub fn decode(path: &Path) -> Result<RgbImage> {
    decode_as(path, &Reading::default()).map(|seen| seen.image)
}

/// [`decode()`] with another page, limit or range, and what is odd about the photo's grey levels.
///
/// # Errors
/// As [`decode()`].
pub fn decode_as(path: &Path, reading: &Reading) -> Result<Seen> {
    let photo = photo(path, reading)?;
    photo.seen(reading.range.as_ref()).map_err(at(path))
}

/// [`decode_as`] without a look at the grey levels.
pub(crate) fn decode_plainly(path: &Path, reading: &Reading) -> Result<RgbImage> {
    let photo = photo(path, reading)?;
    photo.into_rgb(reading.range.as_ref()).map_err(at(path))
}

/// Reads an image file with all its bits.
///
/// # Errors
/// As [`decode()`], but values of any kind are read.
pub fn photo(path: &Path, reading: &Reading) -> Result<Photo> {
    read(path, reading).map(|(photo, _)| photo)
}

/// Width and height of an image file as [`decode`] would return it, from its header alone.
///
/// # Errors
/// As [`decode`], as far as the header shows.
pub fn dimensions(path: &Path) -> Result<(u32, u32)> {
    let header = header(path, &Reading::default())?;
    Ok((header.width, header.height))
}

/// What an image file's header says.
///
/// # Errors
/// As [`decode`], as far as the header shows.
pub fn header(path: &Path, reading: &Reading) -> Result<Header> {
    let bytes = bytes(path, reading)?;
    let pages = if tiff::is_tiff(&bytes) {
        tiff::pages(&bytes)
    } else {
        1
    };
    let upright = |(width, height): (u32, u32), turned, depth| {
        let (width, height) = if turned {
            (height, width)
        } else {
            (width, height)
        };
        Header {
            width,
            height,
            depth,
            pages,
        }
    };
    if is_for_tiff(&bytes, reading) {
        let page = page(path, &bytes, reading)?;
        return Ok(upright(page.dimensions, page.is_turned(), page.depth));
    }
    let (mut decoder, _) = decoder(path, &bytes, reading)?;
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let turned = matches!(
        decoder.orientation(),
        Ok(Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
    );
    let depth = depth(decoder.color_type());
    Ok(upright(decoder.dimensions(), turned, depth))
}

/// The upright image with all its bits, and its format.
pub(super) fn read(path: &Path, reading: &Reading) -> Result<(Photo, ImageFormat)> {
    let bytes = bytes(path, reading)?;
    if is_for_tiff(&bytes, reading) {
        let photo = page(path, &bytes, reading)?.decode();
        let photo = photo.map_err(|e| broken_tiff(path, &e, reading))?;
        return Ok((photo, ImageFormat::Tiff));
    }
    let (mut decoder, format) = decoder(path, &bytes, reading)?;
    if format == ImageFormat::Jpeg && !jpeg_is_complete(&bytes) {
        let accepted = reading.accepted();
        return Err(refuse(path, format!("the file is truncated; {accepted}")));
    }
    // Broken metadata is no reason to refuse a readable image.
    let orientation = decoder.orientation().ok();
    let image = DynamicImage::from_decoder(decoder);
    let mut image = image.map_err(|e| undecodable(path, &e, reading))?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    let depth = depth(image.color());
    Ok((Photo { image, depth }, format))
}

fn depth(colour: ColorType) -> Depth {
    match colour {
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => Depth::U16,
        ColorType::Rgb32F | ColorType::Rgba32F => Depth::F32,
        _ => Depth::U8,
    }
}

fn bytes(path: &Path, reading: &Reading) -> Result<Vec<u8>> {
    let accepted = reading.accepted();
    let unreadable = |e: std::io::Error| refuse(path, format!("cannot be read: {e}"));
    let meta = fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(refuse(path, format!("is not a file; {accepted}")));
    }
    if meta.len() == 0 {
        return Err(refuse(path, format!("the file is empty; {accepted}")));
    }
    if meta.len() > MAX_FILE_BYTES {
        let reason = format!("the file is larger than 4 GiB; {accepted}");
        return Err(refuse(path, reason));
    }
    fs::read(path).map_err(unreadable)
}

/// Whether a file is for the TIFF reader of this crate: a further page, or what the image library does not read.
/// What that reads stays with it.
fn is_for_tiff(bytes: &[u8], reading: &Reading) -> bool {
    if !tiff::is_tiff(bytes) {
        return false;
    }
    let usual = || {
        let decoder = TiffDecoder::new(Cursor::new(bytes)).ok();
        decoder.is_some_and(|decoder| depth(decoder.color_type()) != Depth::F32)
    };
    reading.page > 1 || !usual()
}

fn page<'a>(path: &Path, bytes: &'a [u8], reading: &Reading) -> Result<Page<'a>> {
    let memory = BYTES_A_PIXEL.saturating_mul(reading.max_pixels);
    let page = Page::open(bytes, reading.page, memory);
    let page = page.map_err(|e| match tiff::pages(bytes) {
        pages if pages < reading.page => {
            let what = if pages == 1 { "page" } else { "pages" };
            refuse(
                path,
                format!(
                    "has {pages} {what}, and page {} was asked for",
                    reading.page
                ),
            )
        }
        _ => broken_tiff(path, &e, reading),
    })?;
    check(path, page.dimensions, reading)?;
    Ok(page)
}

/// A decoder whose header has been read and found acceptable.
fn decoder<'a>(
    path: &Path,
    bytes: &'a [u8],
    reading: &Reading,
) -> Result<(impl ImageDecoder + 'a, ImageFormat)> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(BYTES_A_PIXEL.saturating_mul(reading.max_pixels));
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(Error::io(path))?;
    reader.limits(limits);
    if tiff::is_tiff(bytes) {
        // The library does not know a BigTIFF by its first bytes.
        reader.set_format(ImageFormat::Tiff);
    }
    let Some(format) = reader.format() else {
        let accepted = reading.accepted();
        return Err(refuse(path, format!("is not an image; {accepted}")));
    };
    let decoder = reader.into_decoder();
    let decoder = decoder.map_err(|e| undecodable(path, &e, reading))?;
    check(path, decoder.dimensions(), reading)?;
    Ok((decoder, format))
}

fn check(path: &Path, (width, height): (u32, u32), reading: &Reading) -> Result<()> {
    let too_small = width < MIN_SIDE || height < MIN_SIDE;
    let pixels = u64::from(width) * u64::from(height);
    let too_large = width > MAX_SIDE || height > MAX_SIDE || pixels > reading.max_pixels;
    if !too_small && !too_large {
        return Ok(());
    }
    let fault = if too_small { "too small" } else { "too large" };
    let accepted = reading.accepted();
    Err(refuse(
        path,
        format!("{width}x{height} pixels are {fault}; {accepted}"),
    ))
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

fn refuse(path: &Path, reason: String) -> Error {
    Error::Image {
        path: path.to_path_buf(),
        reason,
    }
}

/// Of a fault that does not name the file.
fn at(path: &Path) -> impl Fn(Error) -> Error + '_ {
    move |error| refuse(path, error.to_string())
}

fn undecodable(path: &Path, error: &ImageError, reading: &Reading) -> Error {
    let accepted = reading.accepted();
    if matches!(error, ImageError::Limits(_)) {
        return refuse(path, format!("the image is too large; {accepted}"));
    }
    broken(path, error, reading)
}

fn broken_tiff(path: &Path, error: &::tiff::TiffError, reading: &Reading) -> Error {
    let accepted = reading.accepted();
    if matches!(error, ::tiff::TiffError::LimitsExceeded) {
        return refuse(path, format!("the image is too large; {accepted}"));
    }
    broken(path, error, reading)
}

fn broken(path: &Path, error: &dyn std::error::Error, reading: &Reading) -> Error {
    // Decoders' messages may run over several lines; ours are one line.
    let detail = error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let accepted = reading.accepted();
    refuse(path, format!("cannot be decoded ({detail}); {accepted}"))
}
