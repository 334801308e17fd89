//! Images as files: PNG and JPEG.

use std::{io::Cursor, path::Path};

use image::{DynamicImage, ImageError, ImageFormat, RgbImage, codecs::jpeg::JpegEncoder};

use crate::{Error, Result, files, mark};

/// Quality of saved JPEG files: hardly told from the original by eye.
const QUALITY: u8 = 92;

/// Bytes of a PNG file.
///
/// # Errors
/// [`Error::Invalid`] when the image has no pixels.
pub fn encode_png(image: &DynamicImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(refused)?;
    Ok(bytes.into_inner())
}

/// Bytes of a JPEG file; `quality` is 1 to 100.
///
/// # Errors
/// [`Error::Invalid`] when the image has no pixels, or more than 65535 a side.
pub fn encode_jpeg(image: &RgbImage, quality: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image
        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality))
        .map_err(refused)?;
    Ok(bytes)
}

/// Saves an image whole or not at all: as JPEG where `path` ends in .jpg or .jpeg, else as PNG.
///
/// # Errors
/// As the encoders, and what the system says.
pub fn save(path: &Path, image: &RgbImage) -> Result<()> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let bytes = if extension == "jpg" || extension == "jpeg" {
        encode_jpeg(image, QUALITY)?
    } else {
        encode_png(&image.clone().into())?
    };
    files::write_bytes(path, &bytes)
}

/// Saves a picture that is made of a photo (a heat map over it) as PNG, whole or not at all, with the mark by which it
/// is known: it may be replaced later, and [`super::list_images`] takes it for no photo.
///
/// # Errors
/// As [`encode_png`], what the system says, and when a file is there that does not have the mark.
pub fn save_overlay(path: &Path, image: &RgbImage) -> Result<()> {
    mark::require_free([path])?;
    let bytes = encode_marked(image)
        .map_err(|why| Error::Invalid(format!("the image cannot be encoded: {why}")))?;
    files::write_bytes(path, &bytes)
}

fn encode_marked(image: &RgbImage) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.add_text_chunk(mark::KEYWORD.into(), mark::PROGRAM.into())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image)?;
    writer.finish()?;
    Ok(bytes)
}

/// Whether a file is a picture of [`save_overlay`].
pub fn is_overlay(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("png"))
        && mark::is_ours(path)
}

fn refused(why: ImageError) -> Error {
    Error::Invalid(format!("the image cannot be encoded: {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::Rgb;

    use super::*;

    #[test]
    fn saves_what_the_name_says() {
        let folder = tempfile::tempdir().unwrap();
        let image = RgbImage::from_fn(8, 4, |x, _| Rgb([20 * x as u8, 100, 50]));
        for (name, format) in [
            ("a.png", ImageFormat::Png),
            ("a.JPG", ImageFormat::Jpeg),
            ("a", ImageFormat::Png),
        ] {
            let path = folder.path().join(name);
            save(&path, &image).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(image::guess_format(&bytes).unwrap(), format, "{name}");
            let again = image::load_from_memory(&bytes).unwrap().to_rgb8();
            let off = again
                .iter()
                .zip(image.iter())
                .map(|(a, b)| a.abs_diff(*b))
                .max()
                .unwrap();
            assert!(
                off <= if format == ImageFormat::Png { 0 } else { 12 },
                "{name}: {off}"
            );
        }
    }
    #[test]
    fn an_overlay_is_known_and_replaces_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let image = RgbImage::from_fn(8, 4, |x, _| Rgb([20 * x as u8, 100, 50]));
        save(&path, &image).unwrap();
        let before = std::fs::read(&path).unwrap();
        let message = save_overlay(&path, &image).unwrap_err().to_string();
        assert!(message.contains("a.png: is there already"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(!is_overlay(&path));
        std::fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            save_overlay(&path, &image).unwrap();
            assert!(is_overlay(&path));
            assert_eq!(image::open(&path).unwrap().to_rgb8(), image);
        }
    }
}
