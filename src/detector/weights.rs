//! Where a backbone's weights lie on a machine without the Hub.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A folder with `<arch.tag>/model.safetensors` for machines without the Hub.
pub const BACKBONES_VARIABLE: &str = "FASTFLOW_BACKBONES";

/// The weights file of backbone `id` in the folder that [`BACKBONES_VARIABLE`] names, if it is there.
pub fn locate(id: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(BACKBONES_VARIABLE)?;
    let path = Path::new(&folder).join(id).join("model.safetensors");
    path.is_file().then_some(path)
}

/// SHA-256 of a file, in lower-case hex.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
