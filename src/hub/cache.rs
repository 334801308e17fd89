//! The cache's layout, which is that of Python's `huggingface_hub`: each reads the other's.
//!
//! Where a cache was copied without its links (`cp -rL`, Windows, network shares), snapshots hold the content itself.
//!
//! `models--org--name/blobs/<hash>` holds content, `snapshots/<commit>/<file>` links to it,
//! `refs/<revision>` holds a commit, and `.locks/models--org--name/<hash>.lock` guards a transfer.

use std::{
    fs::{self, File, TryLockError},
    path::{Component, Path, PathBuf},
    thread,
    time::Duration,
};

use super::{digest::Digest, names::RepoId};
use crate::{Error, Result, files};

/// The part of the cache that one repository owns.
pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &RepoId) -> Self {
        let folder = format!("models--{}--{}", repo.owner(), repo.name());
        Self {
            root: cache.join(&folder),
            locks: cache.join(".locks").join(folder),
        }
    }

    /// The commit that a revision (already checked) meant when it was last looked up.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.into());
        }
        let commit = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.into())
    }

    /// Some commit of which there are files.
    pub(super) fn any_commit(&self) -> Option<String> {
        let snapshots = fs::read_dir(self.root.join("snapshots")).ok()?;
        let mut commits = snapshots.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        commits.find(|commit| is_commit(commit))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.as_str())
    }

    /// The hash that a cached file should have: its link's target is named so. None when the file
    /// is not cached, or (where there are no links) is a copy.
    pub(super) fn digest_of(&self, commit: &str, file: &str) -> Option<Digest> {
        let target = fs::read_link(self.snapshot(commit).join(file)).ok()?;
        Digest::parse(target.file_name()?.to_str()?)
    }

    /// Whether a file of a snapshot is no link: then nothing says which hash it should have.
    pub(super) fn is_copy(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
    }

    /// The file at a commit, if it is cached and has the content that its link's name promises; of a copy with the
    /// SHA-256 that it has.
    pub(super) fn verified(&self, commit: &str, file: &str) -> Option<(PathBuf, Digest)> {
        let path = self.snapshot(commit).join(file);
        if self.is_copy(&path) {
            let digest = Digest::sha256(&path).ok()?;
            return Some((path, digest));
        }
        let digest = self.digest_of(commit, file)?;
        matches!(digest.is_of(&path), Ok(true)).then_some((path, digest))
    }

    /// Waits until no other process or thread moves this content; the lock ends with the file.
    pub(super) fn lock(&self, digest: &Digest, on_wait: impl FnOnce()) -> Result<File> {
        fs::create_dir_all(&self.locks).map_err(Error::io(&self.locks))?;
        let path = self.locks.join(format!("{digest}.lock"));
        let file = File::create(&path).map_err(Error::io(&path))?;
        let mut on_wait = Some(on_wait);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if let Some(tell) = on_wait.take() {
                        tell();
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
            }
        }
    }

    /// Makes `file` of `commit` lead to a blob that is in its place.
    pub(super) fn point(&self, commit: &str, file: &str, digest: &Digest) -> Result<PathBuf> {
        let pointer = self.snapshot(commit).join(file);
        let folder = pointer.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        link(&self.blob(digest), &pointer, file).map_err(Error::io(&pointer))?;
        Ok(pointer)
    }

    /// Notes which commit a revision means.
    pub(super) fn note_revision(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        files::write_bytes(&path, commit.as_bytes())
    }
}

#[cfg(unix)]
fn link(blob: &Path, pointer: &Path, file: &str) -> std::io::Result<()> {
    let name = blob.file_name().unwrap_or_default();
    let mut target: PathBuf = Path::new(file).components().map(|_| "..").collect();
    target = target.join("..").join("blobs").join(name);
    if fs::read_link(pointer).is_ok_and(|found| found == target) {
        return Ok(());
    }
    // Made beside and renamed: at no moment is the pointer missing for a reader.
    let beside = pointer.with_file_name(format!(".{}.{}", name.display(), std::process::id()));
    let _ = fs::remove_file(&beside);
    std::os::unix::fs::symlink(target, &beside)?;
    fs::rename(beside, pointer)
}

#[cfg(not(unix))]
fn link(blob: &Path, pointer: &Path, _file: &str) -> std::io::Result<()> {
    // Links need privileges on Windows; Python's client copies there too.
    fs::copy(blob, pointer).map(|_| ())
}

/// Whether a revision is a whole commit hash.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// Repositories of the cache, whoever put them there.
pub(super) fn cached_repos(cache: &Path) -> Vec<RepoId> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut repos: Vec<RepoId> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (owner, name) = name.strip_prefix("models--")?.split_once("--")?;
            RepoId::new(owner, name).ok()
        })
        .collect();
    repos.sort();
    repos
}

/// A file name from the network or a caller that stays inside its folder.
pub(super) fn checked_file(file: &str) -> Result<&str> {
    let inside = Path::new(file)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if inside && !file.is_empty() && !file.contains(['\\', ':', '\0']) {
        return Ok(file);
    }
    Err(Error::Invalid(format!(
        "`{}` is not a file name inside a repository",
        file.escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn file_names_stay_inside() {
        for file in ["config.json", "a/b.json", "model.safetensors"] {
            assert_eq!(checked_file(file).unwrap(), file);
        }
        for file in [
            "",
            "..",
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a\\..\\x",
            "C:x",
            "./x",
            "a\0b",
        ] {
            assert!(checked_file(file).is_err(), "{file:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn pointers_lead_to_blobs_and_refs_to_commits() {
        let folder = tempfile::tempdir().unwrap();
        let repo = RepoId::parse("org/name").unwrap();
        let cache = RepoCache::new(folder.path(), &repo);
        let content = folder.path().join("content");
        fs::write(&content, "hello").unwrap();
        let digest = Digest::git_blob(&content).unwrap();
        let blob = cache.blob(&digest);
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::rename(&content, &blob).unwrap();

        let commit = "0123456789012345678901234567890123456789";
        for file in ["config.json", "deep/er/config.json"] {
            let path = cache.point(commit, file, &digest).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
            assert_eq!(cache.verified(commit, file).unwrap().0, path);
        }
        cache.note_revision("refs/pr/1", commit).unwrap();
        assert_eq!(cache.commit_of("refs/pr/1").unwrap(), commit);
        assert_eq!(cached_repos(folder.path()), [repo]);

        fs::write(&blob, "hacked").unwrap();
        assert!(cache.verified(commit, "config.json").is_none());
        fs::write(cache.root.join("refs/main"), "../../../etc").unwrap();
        assert_eq!(cache.commit_of("main"), None);
    }

    #[test]
    fn a_lock_waits_for_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), &RepoId::parse("org/name").unwrap());
        let digest = Digest::parse(&"a".repeat(40)).unwrap();
        let held = cache.lock(&digest, || ()).unwrap();
        let (send, waited) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| cache.lock(&digest, || send.send(()).unwrap()).map(drop));
            waited.recv().unwrap();
            assert!(!second.is_finished());
            drop(held);
            second.join().unwrap().unwrap();
        });
    }
}
