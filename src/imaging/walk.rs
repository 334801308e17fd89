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
    /// A link to a folder that it lies in, or the whole does.
    Circle(PathBuf),
    /// A folder, or a file, that may not be looked at.
    Closed(PathBuf),
}

/// All below a folder but what is hidden (some systems and editors leave `._photo.png` and `.#photo.png` beside a
/// photo). Links are followed, but not to a folder that holds the one that is walked through: its photos, and those of
/// its neighbours, would come again.
///
/// # Errors
/// [`Error::Io`] when the folder itself cannot be read.
pub(super) fn walk(dir: &Path) -> impl Iterator<Item = Result<Found>> {
    let visible = |entry: &DirEntry| entry.depth() == 0 || !is_hidden(entry.path());
    let walk = WalkDir::new(dir).follow_links(true).into_iter();
    let mut entries = walk.filter_entry(visible);
    let (dir, root) = (dir.to_path_buf(), dir.canonicalize().ok());
    std::iter::from_fn(move || {
        loop {
            match entries.next()? {
                Ok(entry) if entry.file_type().is_file() => {
                    return Some(Ok(Found::File(entry.into_path())));
                }
                Ok(entry) if leads_above(&entry, root.as_deref()) => {
                    entries.skip_current_dir();
                    return Some(Ok(Found::Circle(entry.into_path())));
                }
                Ok(_) => {}
                Err(error) => {
                    if let Some(found) = met(&dir, error).transpose() {
                        return Some(found);
                    }
                }
            }
        }
    })
}

/// Whether a link is to a folder around the one that is walked through.
fn leads_above(entry: &DirEntry, root: Option<&Path>) -> bool {
    if entry.depth() == 0 || !entry.path_is_symlink() || !entry.file_type().is_dir() {
        return false;
    }
    let target = entry.path().canonicalize();
    target.is_ok_and(|target| root.is_some_and(|root| root.starts_with(&target)))
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
