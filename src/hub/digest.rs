//! The two hashes by which the Hub names a file's content: SHA-256 (large files) and git's SHA-1.

use std::{fmt, fs::File, path::Path};

use sha1::{Digest as _, Sha1};

use crate::{
    Error, Result,
    digest::{hex, read_chunks, sha256_file},
};

/// A content hash in lower-case hexadecimal digits: 64 of SHA-256 or 40 of a git blob's SHA-1.
///
/// It names files in the cache, so it is checked to be nothing but digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// Reads an ETag or a hash; none when it is not one of the two.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bare = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let fits = [40, 64].contains(&bare.len()) && bare.chars().all(|c| c.is_ascii_hexdigit());
        fits.then(|| Self(bare.to_ascii_lowercase()))
    }

    /// SHA-256 of a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sha256(path: &Path) -> Result<Self> {
        Ok(Self(sha256_file(path)?))
    }

    /// The SHA-1 that git gives a file of this content.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn git_blob(path: &Path) -> Result<Self> {
        let mut hasher = Sha1::new();
        let mut read = |path: &Path| {
            let file = File::open(path)?;
            hasher.update(format!("blob {}\0", file.metadata()?.len()));
            read_chunks(file, |bytes| hasher.update(bytes))
        };
        read(path).map_err(Error::io(path))?;
        Ok(Self(hex(hasher.finalize())))
    }

    /// Whether the file has this content.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn is_of(&self, path: &Path) -> Result<bool> {
        let found = if self.is_sha256() {
            Self::sha256(path)?
        } else {
            Self::git_blob(path)?
        };
        Ok(found == *self)
    }

    /// Whether it is a SHA-256.
    pub fn is_sha256(&self) -> bool {
        self.0.len() == 64
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn agrees_with_sha256sum_and_git() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello");
        std::fs::write(&path, "hello world\n").unwrap();
        // `sha256sum hello` and `git hash-object hello`.
        let sha256 = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";
        let blob = "3b18e512dba79e4c8300dd08aeb37f8e728b8dad";
        assert_eq!(Digest::sha256(&path).unwrap().as_str(), sha256);
        assert_eq!(Digest::git_blob(&path).unwrap().as_str(), blob);
        for hash in [sha256, blob] {
            assert!(Digest::parse(hash).unwrap().is_of(&path).unwrap());
        }
        std::fs::write(&path, "hello w0rld\n").unwrap();
        for hash in [sha256, blob] {
            assert!(!Digest::parse(hash).unwrap().is_of(&path).unwrap());
        }
    }

    #[test]
    fn only_hashes_are_read() {
        let blob = "3b18e512dba79e4c8300dd08aeb37f8e728b8dad";
        for etag in [
            blob.to_string(),
            format!("\"{blob}\""),
            format!("W/\"{}\"", blob.to_uppercase()),
        ] {
            assert_eq!(Digest::parse(&etag).unwrap().as_str(), blob);
        }
        for etag in [
            "",
            "abc",
            "../../../etc/passwd",
            "zb18e512dba79e4c8300dd08aeb37f8e728b8dad",
        ] {
            assert_eq!(Digest::parse(etag), None, "{etag}");
        }
    }
}
