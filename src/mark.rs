//! What this program wrote, known by a mark inside the file: nothing else is ever overwritten.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use crate::{Error, Result};

/// Who wrote it, in every mark.
pub const PROGRAM: &str = "candle-fastflow";
/// A text chunk's keyword in PNG, and with [`PROGRAM`] an entry of the metadata of safetensors.
pub const KEYWORD: &str = "Software";

/// How each kind of file says it: PNG, pages, model cards, safetensors.
const MARKS: [&str; 4] = [
    "tEXtSoftware\0candle-fastflow",
    "<meta name=\"generator\" content=\"candle-fastflow",
    "library_name: candle-fastflow",
    "\"Software\":\"candle-fastflow\"",
];
/// All marks stand near the beginning.
const HEAD: u64 = 4096;

/// Whether a file carries the mark of this program.
pub fn is_ours(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    let holds = |mark: &str| head.windows(mark.len()).any(|part| part == mark.as_bytes());
    read.is_ok() && MARKS.iter().any(|mark| holds(mark))
}

/// Whether `path` may be written without losing what somebody else put there: nothing is there, an empty file, one of
/// ours, or no file at all (`/dev/null`).
pub fn is_free(path: &Path) -> bool {
    match (fs::metadata(path), fs::symlink_metadata(path)) {
        (Ok(found), _) if found.is_file() => found.len() == 0 || is_ours(path),
        (Ok(_), _) => true,
        // A link that leads nowhere is somebody's too.
        (Err(_), found) => found.is_err(),
    }
}

/// Checks that all of these may be written, before any work is done for them.
///
/// # Errors
/// Naming the first file that is not ours, with the number of others.
pub fn require_free<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let mut taken = paths.into_iter().filter(|path| !is_free(path));
    let Some(first) = taken.next() else {
        return Ok(());
    };
    let others = match taken.count() {
        0 => String::new(),
        more => format!(" ({more} more like it)"),
    };
    Err(Error::Invalid(format!(
        "{}: is there already{others}, without the mark of what this program writes, and would be replaced; name \
         another place, or move it away",
        first.display()
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_carries_the_mark_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let page = at(
            "page.html",
            b"<!doctype html>\n<meta name=\"generator\" content=\"candle-fastflow 0.1.0\">",
        );
        let card = at("README.md", b"---\nlibrary_name: candle-fastflow\n---\n");
        let other = at("other.md", b"# candle-fastflow\nour notes on it");
        let late = at("late", &[vec![b' '; 5000], MARKS[1].into()].concat());
        let empty = at("empty", b"");
        for path in [&page, &card] {
            assert!(is_ours(path) && is_free(path), "{path:?}");
        }
        for path in [&other, &late] {
            assert!(!is_ours(path) && !is_free(path), "{path:?}");
        }
        assert!(is_free(&empty) && !is_ours(&empty));
        assert!(is_free(&folder.path().join("new")));
        let refused = require_free([page.as_path(), &other, &late]);
        let message = refused.unwrap_err().to_string();
        assert!(
            message.starts_with(other.to_str().unwrap()) && message.contains("(1 more like it)"),
            "{message}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(!is_free(&link));
        assert!(is_free(Path::new("/dev/null")));
        // Through a link the file counts that it leads to.
        fs::write(folder.path().join("nowhere"), "somebody's").unwrap();
        assert!(!is_free(&link));
    }
}
