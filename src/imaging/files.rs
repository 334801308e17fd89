//! Which files are images.

use std::path::{Path, PathBuf};

use super::{
    encode::is_overlay,
    unread::{Kind, Unread, kind},
    walk::{Found, is_hidden, walk},
};
use crate::Result;

const EXTENSIONS: [&str; 16] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "tif", "tiff", "webp", "gif", "pgm", "ppm",
    "pbm", "pnm", "pam",
];

/// Whether a file is an image that [`super::decode()`] reads, by the end of its name, or by its first bytes where the
/// name has no end. Hidden files are none (some systems leave `._photo.png` beside `photo.png`).
pub fn is_image_file(path: &Path) -> bool {
    if is_hidden(path) || path.file_name().is_none() {
        return false;
    }
    match path.extension() {
        Some(end) => EXTENSIONS.iter().any(|e| end.eq_ignore_ascii_case(e)),
        None => matches!(kind(path), Some(Kind::Read)),
    }
}

/// All image files below a folder, sorted by path. Hidden files and folders are skipped, links are followed; what
/// cannot be looked at, and overlays of [`super::save_overlay`], are passed over, which [`survey`] tells of.
///
/// # Errors
/// [`crate::Error::Io`] when the folder itself cannot be read.
pub fn list_images(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(survey(dir)?.0)
}

/// [`list_images`], and what was passed over.
///
/// # Errors
/// As there.
pub fn survey(dir: &Path) -> Result<(Vec<PathBuf>, Unread)> {
    let (mut images, mut unread) = (Vec::new(), Unread::default());
    for found in walk(dir) {
        match found? {
            Found::File(file) if is_overlay(&file) => unread.overlay(file),
            Found::File(file) if is_image_file(&file) => images.push(file),
            Found::File(file) => unread.file(&file),
            Found::DeadLink(link) => {
                unread.lost(&link);
                unread.dead_link(link);
            }
            Found::Circle(link) => unread.circle(link),
            Found::Closed(path) => {
                unread.lost(&path);
                unread.closed(path);
            }
        }
    }
    images.sort();
    Ok((images, unread))
}
