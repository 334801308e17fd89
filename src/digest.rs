//! SHA-256 of bytes, readers and files, in lower-case hexadecimal digits.

use std::{
    fmt::Write,
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha2::Digest as _;

use crate::{Error, Result};

/// SHA-256 of what it is given piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// The next bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// The hash, 64 digits.
    pub fn finish(self) -> String {
        hex(self.0.finalize())
    }
}

/// SHA-256 of bytes at hand.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(sha2::Sha256::digest(bytes))
}

/// SHA-256 of all that a reader gives.
///
/// # Errors
/// What the reader fails with.
pub fn sha256_reader(reader: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::default();
    read_chunks(reader, |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let read = |path: &Path| sha256_reader(File::open(path)?);
    read(path).map_err(Error::io(path))
}

/// Shows all that a reader gives to `see`, at most a MiB at a time.
///
/// # Errors
/// What the reader fails with.
pub fn read_chunks(mut reader: impl Read, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => see(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Two lower-case digits a byte.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref().iter();
    bytes.fold(String::new(), |mut text, byte| {
        // A string takes whatever is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// FIPS 180-4's example "abc" (NIST, SHA-256 example values).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_pieces_readers_and_files_hash_alike() {
        assert_eq!(sha256("abc"), ABC);
        let mut pieces = Sha256::default();
        pieces.update("a");
        pieces.update(b"bc");
        assert_eq!(pieces.finish(), ABC);
        assert_eq!(sha256_reader(&b"abc"[..]).unwrap(), ABC);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256_file(&path).unwrap(), ABC);
        let error = sha256_file(&folder.path().join("gone")).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }

    #[test]
    fn more_than_a_chunk_is_read_to_its_end() {
        // `head -c 3000000 /dev/zero | sha256sum`.
        let zeros = io::repeat(0).take(3_000_000);
        let mut seen = 0;
        read_chunks(zeros, |bytes| seen += bytes.len()).unwrap();
        assert_eq!(seen, 3_000_000);
        let zeros = io::repeat(0).take(3_000_000);
        assert_eq!(
            sha256_reader(zeros).unwrap(),
            "35bce4eae54ec8e6cc2868baa8d157914d6ae2858811b4cc0c078c94460fa26f"
        );
    }
}
