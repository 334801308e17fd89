//! A walk through a folder that no broken link and no closed folder ends.

use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::{Error, Result};

/// What a walk comes by; the folders themselves aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A file.
    File(PathBuf),
    /// A link that leads to nothing.
    DeadLink(PathBuf),
    /// A link to a folder that it lies in.
    Circle(PathBuf),
    /// A folder, or a file, that may not be looked at.
    Closed(PathBuf),
}

/// All below a folder but what is hidden (some systems and editors leave `._photo.png` and `.#photo.png` beside a
/// photo). Links are followed.
///
/// # Errors
/// [`Error::Io`] when the folder itself cannot be read.
pub(super) fn walk(dir: &Path) -> impl Iterator<Item = Result<Found>> {
    let visible = |entry: &DirEntry| entry.depth() == 0 || !is_hidden(entry.path());
    let entries = WalkDir::new(dir).follow_links(true).into_iter();
    entries
        .filter_entry(visible)
        .filter_map(|entry| match entry {
            Ok(entry) if entry.file_type().is_file() => Some(Ok(Found::File(entry.into_path()))),
            Ok(_) => None,
            Err(error) => met(dir, error).transpose(),
        })
}

/// Whether a name begins with a dot.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn met(dir: &Path, error: walkdir::Error) -> Result<Option<Found>> {
    let path = error.path().unwrap_or(dir).to_path_buf();
    if error.depth() == 0 {
        let source = error.into();
        return Err(Error::Io { path, source });
    }
    let dead = || path.is_symlink() && std::fs::metadata(&path).is_err();
    Ok(match error.loop_ancestor() {
        _ if is_hidden(&path) => None,
        Some(_) => Some(Found::Circle(path)),
        None if dead() => Some(Found::DeadLink(path)),
        None => Some(Found::Closed(path)),
    })
}
