//! Images as files: PNG and JPEG.

use std::{io::Cursor, path::Path};

use image::{DynamicImage, ImageError, ImageFormat, RgbImage, codecs::jpeg::JpegEncoder};

use crate::{Error, Result, files};

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
}
