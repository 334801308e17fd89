//! Files that appear whole or not at all: written beside their place, flushed to the disk, renamed.

use std::{
    fs::{self, File},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{Error, Result};

/// Writes the file `path` through `write`, so that it has either its old content or all of the new.
///
/// The bytes go to a temporary file in the same folder (which must exist), are flushed to the disk
/// and then renamed; after an error nothing is left. A symbolic link keeps its place and its target
/// is replaced. What is not a regular file (`/dev/null`, a pipe) is written directly.
///
/// Past the process's limit on file sizes (`ulimit -f`) the system ends the program there and then, leaving
/// temporary files, unless the program ignores SIGXFSZ, as `fastflow` does.
///
/// # Errors
/// What `write` returns, and what the system says, with `path` named; a full disk is called that.
pub fn write_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut File) -> io::Result<T>,
) -> Result<T> {
    let path = path.as_ref();
    replace(path, write).map_err(explained(path))
}

/// [`write_atomically`] of bytes at hand.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] of a value as indented JSON with a newline at its end.
///
/// # Errors
/// As [`write_atomically`], and when the value has no JSON form.
pub fn write_json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    write_atomically(path, |file| {
        let mut out = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut out, value)?;
        out.write_all(b"\n")?;
        out.flush()
    })
}

/// Makes the folder `path` with all that `fill` puts into the folder it is given, or not at all.
///
/// The parent folders are made where missing. `path` may exist only as an empty folder.
///
/// # Errors
/// What `fill` returns, what the system says, and when `path` exists and is not an empty folder.
pub fn write_folder<T>(path: impl AsRef<Path>, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let path = path.as_ref();
    require_free(path)?;
    let parent = parent(path);
    fs::create_dir_all(&parent).map_err(explained(&parent))?;
    let staged = beside(0o777)
        .tempdir_in(&parent)
        .map_err(explained(&parent))?;
    let value = fill(staged.path())?;
    fs::rename(staged.path(), path).map_err(explained(path))?;
    // It has been moved away: there is nothing left for the guard to remove.
    let _ = staged.keep();
    flush_folder(&parent).map_err(explained(path))?;
    Ok(value)
}

/// Checks that [`write_folder`] may have `path`, before any work is done for it.
///
/// # Errors
/// When `path` exists and is not an empty folder.
pub fn require_free(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() && !is_empty_folder(path)? {
        return Err(Error::Invalid(format!(
            "{}: exists already and is not an empty folder; name another or remove it",
            path.display()
        )));
    }
    Ok(())
}

/// The bytes of a path that is no UTF-8, in hexadecimal digits, to be told beside its text, which then cannot be opened;
/// none of others. On Windows in Rust's own coding.
pub fn raw_bytes(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    let digits = || bytes.map(|byte| format!("{byte:02x}")).collect();
    path.to_str().is_none().then(digits)
}

fn replace<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let target = match fs::metadata(path) {
        Ok(found) if found.is_file() => fs::canonicalize(path)?,
        Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(_) => return write(&mut File::options().write(true).open(path)?),
        Err(_) => path.to_path_buf(),
    };
    let parent = parent(&target);
    let mut new = beside(0o666).tempfile_in(&parent)?;
    let value = write(new.as_file_mut())?;
    new.as_file().sync_all()?;
    new.persist(&target).map_err(|failed| failed.error)?;
    flush_folder(&parent)?;
    Ok(value)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn is_empty_folder(path: &Path) -> Result<bool> {
    if !path.is_dir() {
        return Ok(false);
    }
    let mut entries = fs::read_dir(path).map_err(Error::io(path))?;
    Ok(entries.next().is_none())
}

/// A temporary file or folder of ours, with the permissions that an ordinary new one gets: `mode`
/// less the process's umask (and not, as temporary files have them, its owner's only).
#[cfg_attr(not(unix), allow(unused_variables))]
fn beside(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fastflow-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    builder
}

/// A rename is on the disk only when its folder is.
fn flush_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// Names the path, and says in plain words what a full disk is.
fn explained(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| {
        let words = match source.kind() {
            ErrorKind::StorageFull => "the disk is full; nothing was written, free some space",
            ErrorKind::QuotaExceeded => "the disk quota is used up; nothing was written",
            ErrorKind::FileTooLarge => {
                "larger than the limit on file sizes (`ulimit -f`, or the file system's own); nothing was written"
            }
            _ => {
                let source = bare(source);
                return Error::Io { path, source };
            }
        };
        let source = io::Error::new(source.kind(), words);
        Error::Io { path, source }
    }
}

/// The system's own words: an error about a temporary file names that file, which tells a user nothing.
fn bare(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|wrapped| wrapped.source());
    match cause.map(ToString::to_string) {
        Some(words) => io::Error::new(error.kind(), words),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_whole_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        write_bytes(&path, b"old").unwrap();

        let failed = write_atomically(&path, |file| {
            file.write_all(b"half of the new")?;
            Err::<(), _>(io::Error::from(ErrorKind::StorageFull))
        });
        let message = failed.unwrap_err().to_string();
        assert!(
            message.contains("config.json: the disk is full"),
            "{message}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["config.json"]);

        write_json(&path, &[1.5, 2.0]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[\n  1.5,\n  2.0\n]\n");
        assert_eq!(names(folder.path()), ["config.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn new_files_have_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plain"), "").unwrap();
        write_bytes(folder.path().join("ours"), b"").unwrap();
        let mode = |name| {
            fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("ours"), mode("plain"));
    }

    #[cfg(unix)]
    #[test]
    fn keeps_links_and_devices() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write_bytes(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_bytes(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(link.is_symlink());

        write_bytes("/dev/null", b"gone").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn names_what_it_could_not_write() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/such/file");
        let message = write_bytes(&missing, b"").unwrap_err().to_string();
        assert!(message.contains("no/such/file"), "{message}");
        assert!(write_bytes(folder.path(), b"").is_err());
    }

    #[test]
    fn folders_appear_filled_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/detector");
        let failed = write_folder(&path, |staged| {
            write_bytes(staged.join("config.json"), b"{}")?;
            Err::<(), _>(Error::Invalid("no".into()))
        });
        assert!(failed.is_err());
        assert!(names(&folder.path().join("deep")).is_empty());

        write_folder(&path, |staged| {
            write_bytes(staged.join("config.json"), b"{}")
        })
        .unwrap();
        assert_eq!(names(&folder.path().join("deep")), ["detector"]);
        assert_eq!(names(&path), ["config.json"]);
        let again = write_folder(&path, |_| Ok(())).unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
    }
    /// Runs itself again under `ulimit -f` and writes past it.
    #[cfg(unix)]
    #[test]
    fn a_full_disk_is_an_error_and_leaves_nothing() {
        const FOLDER: &str = "FASTFLOW_TEST_FULL_DISK";
        const TEST: &str = "files::tests::a_full_disk_is_an_error_and_leaves_nothing";
        if let Some(folder) = std::env::var_os(FOLDER) {
            let path = Path::new(&folder).join("model.safetensors");
            let message = write_bytes(&path, &[7; 1 << 16]).unwrap_err().to_string();
            assert!(
                message.contains("model.safetensors: larger than the limit"),
                "{message}"
            );
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        // What is ignored stays so across `exec`; unasked, the signal would end the test.
        let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact \"$1\"";
        let status = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(TEST)
            .env(FOLDER, folder.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        assert!(names(folder.path()).is_empty());
    }
}
