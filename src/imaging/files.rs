//! Which files are images.

use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::unread::{Kind, kind};
use crate::{Error, Result};

const EXTENSIONS: [&str; 16] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "tif", "tiff", "webp", "gif", "pgm", "ppm",
    "pbm", "pnm", "pam",
];

/// Whether a file is an image that [`super::decode()`] reads, by the end of its name, or by its first bytes where the
/// name has no end. Hidden files are none (some systems leave `._photo.png` beside `photo.png`).
pub fn is_image_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or(".");
    if name.starts_with('.') {
        return false;
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some(extension) => EXTENSIONS.iter().any(|e| extension.eq_ignore_ascii_case(e)),
        None => matches!(kind(path), Some(Kind::Read)),
    }
}

/// All image files below a folder, sorted by path. Hidden folders are skipped, links are followed.
///
/// # Errors
/// [`Error::Io`] when the folder, or one below it, cannot be read, or a link leads in a circle.
pub fn list_images(dir: &Path) -> Result<Vec<PathBuf>> {
    let visible = |entry: &DirEntry| {
        entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
    };
    let mut images = Vec::new();
    for entry in WalkDir::new(dir)
        .follow_links(true)
        .into_iter()
        .filter_entry(visible)
    {
        let entry = entry.map_err(|e| unreadable(dir, e))?;
        if entry.file_type().is_file() && is_image_file(entry.path()) {
            images.push(entry.into_path());
        }
    }
    images.sort();
    Ok(images)
}

fn unreadable(dir: &Path, error: walkdir::Error) -> Error {
    Error::Io {
        path: error.path().unwrap_or(dir).to_path_buf(),
        source: error.into(),
    }
}
