//! One file from the Hub into the cache: verified before it gets its name, and again at each use.
//!
//! The transfer is our own: hf-hub 1.0.0 takes error pages for content, does not compare hashes,
//! starts again from nothing after a cut and gives up on another process after ten seconds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reqwest::{
    blocking::Response,
    header::{CONTENT_LENGTH, ETAG},
};

use super::{
    cache::{RepoCache, checked_file, is_commit},
    client::Client,
    digest::Digest,
    failure::{Failure, Missing, Outcome},
    names::{RepoId, checked_revision},
    progress::{Event, Progress},
    transfer::Transfer,
};
use crate::{Error, Result};

/// Which file, and (where the caller knows) with which content.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) repo: &'a RepoId,
    pub(super) revision: &'a str,
    pub(super) file: &'a str,
    pub(super) sha256: Option<&'a Digest>,
}

impl Wanted<'_> {
    fn place(&self) -> String {
        match self.revision {
            "main" => format!("{}/{}", self.repo, self.file),
            revision => format!("{}@{revision}/{}", self.repo, self.file),
        }
    }
}

/// A verified file in the cache.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    pub(super) commit: String,
    pub(super) digest: Digest,
}

/// What the Hub says about a file.
pub(super) struct Remote {
    pub(super) commit: String,
    pub(super) digest: Digest,
    size: Option<u64>,
}

impl Client {
    /// The file's place in the cache, downloaded if it is not there or damaged.
    ///
    /// A commit's file is taken from the cache without asking, unless it is a copy, of which only the Hub knows the hash; a
    /// branch is looked up, and only when the Hub cannot be reached its last known commit is used.
    pub(super) fn fetch(&self, wanted: Wanted, progress: Progress) -> Result<Fetched> {
        checked_file(wanted.file)?;
        checked_revision(wanted.revision)?;
        let cache = RepoCache::new(&self.options.cache, wanted.repo);
        let cached = || from_cache(&cache, wanted);
        if self.options.offline {
            return cached().ok_or_else(|| not_cached(wanted));
        }
        if is_commit(wanted.revision)
            && let Some(found) = cached()
            && !cache.is_copy(&found.path)
        {
            return Ok(found);
        }
        let failure = match self.fetch_online(&cache, wanted, progress) {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Busy { .. })
            && let Some(found) = cached()
        {
            let error = self.at(&wanted.place(), failure);
            let notice = format!("{error}; using the cached copy");
            progress(Event::Notice(&notice));
            return Ok(found);
        }
        Err(self.at(&wanted.place(), failure))
    }

    /// Asks the Hub about a file.
    pub(super) fn look_up(
        &self,
        repo: &RepoId,
        revision: &str,
        file: &str,
        progress: Progress,
    ) -> Outcome<Remote> {
        let url = self.file_url(repo, revision, file)?;
        let asked = self.retried(progress, || self.head(url.clone()));
        match asked {
            Ok(answer) => read_head(&answer),
            Err(Failure::Missing(Missing::Something)) => {
                Err(self.what_is_missing(repo, revision, progress))
            }
            Err(failure) => Err(failure),
        }
    }

    /// A plain 404 does not tell a missing repository from a missing file; the API does.
    fn what_is_missing(&self, repo: &RepoId, revision: &str, progress: Progress) -> Failure {
        let ask = || {
            let api = self.api()?;
            let model = api.model(repo.owner(), repo.name());
            if !self.call(progress, || model.exists().send())? {
                return Ok(Missing::Repo);
            }
            match self.call(progress, || {
                model.revision_exists().revision(revision).send()
            })? {
                true => Ok(Missing::File),
                false => Ok::<_, Failure>(Missing::Revision),
            }
        };
        ask().map_or_else(|failure| failure, Failure::Missing)
    }

    fn fetch_online(
        &self,
        cache: &RepoCache,
        wanted: Wanted,
        progress: Progress,
    ) -> Outcome<Fetched> {
        // A second, whole attempt covers a hash that the server had outdated and a beginning that
        // somebody else left here wrong.
        for resume in [true, false] {
            let remote = self.look_up(wanted.repo, wanted.revision, wanted.file, progress)?;
            check_pin(wanted, &remote.digest)?;
            if let Some(path) = self.bring(cache, wanted, &remote, resume, progress)? {
                check_content(wanted, &remote.digest, &path)?;
                let Remote { commit, digest, .. } = remote;
                return Ok(Fetched {
                    path,
                    commit,
                    digest,
                });
            }
            let notice = format!(
                "{}: what came does not have the promised hash",
                wanted.place()
            );
            progress(Event::Notice(&notice));
        }
        Err(Failure::Refused(
            "twice the content did not have the hash that the Hub promises; nothing was kept. A proxy or mirror may be altering it".into(),
        ))
    }

    /// Puts the content into its place; none when what came is not what was promised.
    fn bring(
        &self,
        cache: &RepoCache,
        wanted: Wanted,
        remote: &Remote,
        resume: bool,
        progress: Progress,
    ) -> Outcome<Option<PathBuf>> {
        if let Some((path, digest)) = cache.verified(&remote.commit, wanted.file)
            && (digest == remote.digest || cache.is_copy(&path) && remote.digest.is_of(&path)?)
        {
            // The cache may be read-only; then the revision is looked up again next time.
            let _ = cache.note_revision(wanted.revision, &remote.commit);
            return Ok(Some(path));
        }
        let place = wanted.place();
        let waiting = format!("{place}: waiting for another process that is fetching it");
        let _lock = cache.lock(&remote.digest, || progress(Event::Notice(&waiting)))?;
        let blob = cache.blob(&remote.digest);
        if !self.is_whole(&blob, &remote.digest, &place, progress)? {
            let incomplete = blob.with_extension("incomplete");
            create_parent(&incomplete)?;
            let url = self.file_url(wanted.repo, &remote.commit, wanted.file)?;
            Transfer {
                client: self,
                url,
                size: remote.size,
                place: &place,
                progress,
            }
            .fill(&incomplete, resume)?;
            if !remote.digest.is_of(&incomplete)? {
                fs::remove_file(&incomplete).map_err(Error::io(&incomplete))?;
                return Ok(None);
            }
            fs::rename(&incomplete, &blob).map_err(Error::io(&blob))?;
        }
        let path = cache.point(&remote.commit, wanted.file, &remote.digest)?;
        cache.note_revision(wanted.revision, &remote.commit)?;
        progress(Event::Downloaded { file: &place });
        Ok(Some(path))
    }

    /// Whether the blob is there and right; a wrong one is removed.
    fn is_whole(
        &self,
        blob: &Path,
        digest: &Digest,
        place: &str,
        progress: Progress,
    ) -> Result<bool> {
        // A link that leads nowhere counts as there, to be removed.
        if fs::symlink_metadata(blob).is_err() {
            return Ok(false);
        }
        if digest.is_of(blob).unwrap_or(false) {
            return Ok(true);
        }
        let notice = format!("{place}: the cached copy is damaged; fetching it again");
        progress(Event::Notice(&notice));
        fs::remove_file(blob).map_err(Error::io(blob))?;
        Ok(false)
    }
}

fn read_head(answer: &Response) -> Outcome<Remote> {
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let missing =
        |what| Failure::Refused(format!("the server's answer {what}; is HF_ENDPOINT a Hub?"));
    let commit = header("x-repo-commit")
        .filter(|commit| is_commit(commit))
        .ok_or_else(|| missing("names no commit"))?;
    let digest = header("x-linked-etag")
        .or_else(|| header(ETAG.as_str()))
        .and_then(Digest::parse)
        .ok_or_else(|| missing("has no hash to verify the file by"))?;
    let size = if answer.status().is_redirection() {
        header("x-linked-size")
    } else {
        header("x-linked-size").or_else(|| header(CONTENT_LENGTH.as_str()))
    };
    Ok(Remote {
        commit: commit.to_ascii_lowercase(),
        digest,
        size: size.and_then(|size| size.parse().ok()),
    })
}

fn check_pin(wanted: Wanted, found: &Digest) -> Outcome<()> {
    match wanted.sha256 {
        Some(pin) if found.is_sha256() && found != pin => Err(other_content(pin, found)),
        _ => Ok(()),
    }
}

/// A small file's hash on the Hub is not a SHA-256: then the pin is compared with the file itself.
fn check_content(wanted: Wanted, digest: &Digest, path: &Path) -> Outcome<()> {
    match wanted.sha256 {
        Some(pin) if !digest.is_sha256() && !pin.is_of(path)? => Err(other_content(pin, digest)),
        _ => Ok(()),
    }
}

fn other_content(pin: &Digest, found: &Digest) -> Failure {
    Failure::Refused(format!(
        "the Hub's file has hash {found}, but SHA-256 {pin} is what the detector was trained with"
    ))
}

fn from_cache(cache: &RepoCache, wanted: Wanted) -> Option<Fetched> {
    let commit = cache.commit_of(wanted.revision)?;
    let (path, digest) = cache.verified(&commit, wanted.file)?;
    check_pin(wanted, &digest).ok()?;
    check_content(wanted, &digest, &path).ok()?;
    Some(Fetched {
        path,
        commit,
        digest,
    })
}

fn not_cached(wanted: Wanted) -> Error {
    Error::Hub {
        place: wanted.place(),
        reason: "not in the cache, or damaged there, and HF_HUB_OFFLINE is set; unset it once to download".into(),
    }
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io(parent))
}
