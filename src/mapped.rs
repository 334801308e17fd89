//! The one memory map of the crate: read-only views of files that may be larger than memory.

use std::{fs::File, ops::Deref, path::Path};

use crate::{Error, Result};

/// A whole file as bytes, paged in by the system as it is read.
#[derive(Debug)]
pub(crate) struct Mapped(Option<memmap2::Mmap>);

/// Maps the file at `path`, read-only; an empty file gives an empty slice.
///
/// # Errors
/// When the file cannot be opened or mapped.
pub(crate) fn map(path: &Path) -> Result<Mapped> {
    let file = File::open(path).map_err(Error::io(path))?;
    let metadata = file.metadata().map_err(Error::io(path))?;
    if metadata.is_dir() {
        return Err(Error::Config {
            path: path.to_path_buf(),
            reason: "is a folder; a file is needed".into(),
        });
    }
    if metadata.len() == 0 {
        return Ok(Mapped(None));
    }
    // SAFETY: the map is private to this process and read-only. Another process that truncates the file
    // while it is mapped would raise SIGBUS; the crate's own writers never do (they write beside and
    // rename, which leaves the mapped inode as it was).
    #[allow(unsafe_code)]
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
    Ok(Mapped(Some(map)))
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn maps_content_an_empty_file_and_names_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(&*map(&path).unwrap(), b"abc");
        std::fs::write(&path, b"").unwrap();
        assert!(map(&path).unwrap().is_empty());
        let missing = map(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(missing.contains("absent"), "{missing}");
        assert!(map(dir.path()).unwrap_err().to_string().contains("folder"));
    }
}
