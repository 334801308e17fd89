//! What the readers of all layouts share.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::imaging::list_images;
use crate::{Error, Result};

pub(super) fn fault(path: &Path, reason: impl Into<String>) -> Error {
    Error::Dataset {
        path: path.to_path_buf(),
        reason: reason.into(),
    }
}

pub(super) fn require_folder(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        Ok(())
    } else if dir.exists() {
        Err(fault(dir, "is a file; a folder of images is needed"))
    } else {
        Err(fault(dir, "there is no such folder"))
    }
}

/// The folder's own name, also of `.` and `dir/..`.
pub fn folder_name(dir: &Path) -> String {
    let named = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    named(dir)
        .or_else(|| named(&dir.canonicalize().ok()?))
        .unwrap_or_else(|| "data".into())
}

/// A file's path inside a folder.
pub(super) fn inside<'a>(dir: &Path, file: &'a Path) -> &'a Path {
    file.strip_prefix(dir).unwrap_or(file)
}

/// A file's path inside a folder, with `/` on every system.
pub(super) fn relative(dir: &Path, file: &Path) -> String {
    let parts = inside(dir, file)
        .components()
        .map(|c| c.as_os_str().to_string_lossy().into_owned());
    parts.collect::<Vec<_>>().join("/")
}

/// The images below a folder; none when it does not exist.
pub(super) fn images_if_any(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.is_dir() {
        list_images(dir)
    } else {
        Ok(Vec::new())
    }
}

/// The folders directly inside a folder, sorted; none when it does not exist.
pub(super) fn subfolders(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut folders = Vec::new();
    for entry in dir.read_dir().map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if entry.path().is_dir() && !hidden {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

/// The rows of a CSV file with a header; other columns than those asked for are allowed.
pub(super) fn rows<T: DeserializeOwned>(file: &Path) -> Result<Vec<T>> {
    let broken = |e: csv::Error| fault(file, e.to_string());
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(file)
        .map_err(broken)?;
    // As bytes: not every text need be UTF-8.
    let headers = reader.byte_headers().map_err(broken)?.clone();
    let rows = reader.byte_records().map(|row| {
        let row = row.map_err(broken)?;
        row.deserialize(Some(&headers)).map_err(broken)
    });
    rows.collect()
}
