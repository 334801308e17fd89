//! What users fetch: a detector by name, and the weights of its backbone.

use std::{
    path::{Path, PathBuf},
    thread,
};

use super::{
    cache::cached_repos,
    client::Client,
    digest::Digest,
    download::{Fetched, Wanted},
    environment::HubOptions,
    failure::{Failure, Missing, UNREACHABLE},
    names::{BACKBONE_FILE, DetectorName, RepoId},
    progress::Progress,
};
use crate::{Error, Result, detector::BackboneRecord, spelling::nearest};

/// The settings of a detector and its weights; without both it is none.
pub(super) const NEEDED: [&str; 2] = ["config.json", "model.safetensors"];
pub(super) const CARD: &str = "README.md";

/// timm's organisation on the Hub.
pub(super) const BACKBONE_OWNER: &str = "timm";

/// The Hugging Face Hub with its cache.
///
/// Its methods block, and may be called from asynchronous code as well.
pub struct Hub {
    pub(super) client: Client,
}

/// Where detectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Hub,
    Cache,
}

impl Hub {
    /// Makes ready; nothing is sent yet.
    ///
    /// # Errors
    /// When the HTTP library cannot start (no certificates, say).
    pub fn new(options: HubOptions) -> Result<Self> {
        let client = on_own_thread(|| Client::new(options))?;
        Ok(Self { client })
    }

    /// [`Hub::new`] with [`HubOptions::from_environment`].
    ///
    /// # Errors
    /// As the two.
    pub fn from_environment() -> Result<Self> {
        Self::new(HubOptions::from_environment()?)
    }

    /// Its settings.
    pub fn options(&self) -> &HubOptions {
        &self.client.options
    }

    /// The folder with a detector's `config.json`, `model.safetensors` and card: in the cache for
    /// a name, each file verified; a name that is a folder is only looked at.
    ///
    /// # Errors
    /// For an unknown name (with the nearest known ones), and when a file cannot be had.
    pub fn fetch_detector(&self, name: &str, progress: Progress) -> Result<PathBuf> {
        match DetectorName::parse(name, self.client.options.namespace())? {
            DetectorName::Folder(folder) => checked_folder(folder),
            DetectorName::Repo { repo, revision } => on_own_thread(|| {
                let revision = revision.as_deref().unwrap_or("main");
                self.fetch_repo(name, &repo, revision, progress)
            }),
        }
    }

    /// The weights that a detector records, and the record with repository, commit and hash: where
    /// it had none, those of the newest commit of timm's repository. Weights recorded as local (a
    /// hash, no repository) are looked for there too, and may then be others.
    ///
    /// # Errors
    /// When the file cannot be had, or is not the recorded one.
    pub fn fetch_backbone(
        &self,
        record: &BackboneRecord,
        progress: Progress,
    ) -> Result<(PathBuf, BackboneRecord)> {
        let pinned = record.repo.is_some();
        let repo = match &record.repo {
            Some(repo) => RepoId::parse(repo)?,
            None => RepoId::new(BACKBONE_OWNER, &record.id)?,
        };
        let sha256 = match &record.sha256 {
            Some(sha256) if pinned => Some(read_sha256(sha256)?),
            _ => None,
        };
        let wanted = Wanted {
            repo: &repo,
            revision: record
                .revision
                .as_deref()
                .filter(|_| pinned)
                .unwrap_or("main"),
            file: BACKBONE_FILE,
            sha256: sha256.as_ref(),
        };
        let found = on_own_thread(|| self.client.fetch(wanted, progress))?;
        let sha256 = match sha256 {
            Some(pin) => pin,
            None if found.digest.is_sha256() => found.digest,
            None => Digest::sha256(&found.path)?,
        };
        let record = BackboneRecord {
            id: record.id.clone(),
            repo: Some(repo.to_string()),
            revision: Some(found.commit),
            sha256: Some(sha256.to_string()),
            taps: record.taps.clone(),
        };
        Ok((found.path, record))
    }

    fn fetch_repo(
        &self,
        name: &str,
        repo: &RepoId,
        revision: &str,
        progress: Progress,
    ) -> Result<PathBuf> {
        // The first file settles the commit, so that all are of one.
        let wanted = |revision, file| Wanted {
            repo,
            revision,
            file,
            sha256: None,
        };
        let first = match self.client.fetch(wanted(revision, NEEDED[0]), progress) {
            Ok(first) => first,
            Err(error) => {
                let only = |place| self.only_variant(name, repo, place, progress);
                if let Some(only) = self.where_else(&error, repo).and_then(only) {
                    let name = only.short_name(self.client.options.namespace());
                    return self.fetch_repo(&name, &only, "main", progress);
                }
                return Err(self.with_suggestions(error, name, repo, progress));
            }
        };
        let model = self
            .client
            .fetch(wanted(&first.commit, NEEDED[1]), progress)?;
        // A card is for people: a detector works without one.
        let card = self.client.fetch(wanted(&first.commit, CARD), progress);
        if let Err(error) = card {
            tracing::debug!("no card: {error}");
        }
        Ok(folder_of(&model))
    }

    /// Where another detector of the category may be: on the Hub if that knows no such repository, in the cache if it cannot
    /// be asked and there is nothing of this one.
    fn where_else(&self, error: &Error, repo: &RepoId) -> Option<Place> {
        let options = &self.client.options;
        let unreachable =
            matches!(error, Error::Hub { reason, .. } if reason.starts_with(UNREACHABLE));
        match options.offline || unreachable {
            true => (!cached_repos(&options.cache).contains(repo)).then_some(Place::Cache),
            false => is_unknown(error).then_some(Place::Hub),
        }
    }

    /// An unknown repository becomes an unknown detector, with names that exist.
    fn with_suggestions(
        &self,
        error: Error,
        name: &str,
        repo: &RepoId,
        progress: Progress,
    ) -> Error {
        let is_unknown = is_unknown(&error);
        let Error::Hub { place, reason } = error else {
            return error;
        };
        if !is_unknown && !self.client.options.offline {
            // What was meant as a folder ends here too, where the Hub could not say that there is no such name. Where
            // it answered about the repository, a folder was not meant.
            let reason = match reason.starts_with(UNREACHABLE) {
                true => format!("{reason} (nor is there a detector's folder `{name}` here)"),
                false => reason,
            };
            return Error::Hub { place, reason };
        }
        let known = self.known_names(repo, progress);
        let others = known
            .iter()
            .map(String::as_str)
            .filter(|other| *other != name);
        let close = nearest(name, others).join(", ");
        let hint = match (is_unknown, close.is_empty()) {
            (true, true) => {
                let owner = repo.owner();
                format!("{reason}; `fastflow list` shows the detectors of {owner}")
            }
            (true, false) => format!("did you mean {close}? `fastflow list` shows all"),
            (false, true) => reason,
            (false, false) => format!("{reason}; did you mean {close}?"),
        };
        Error::Unknown {
            kind: "detector",
            name: name.into(),
            hint,
        }
    }

    /// Names of the owner's detectors, on the Hub (if it answers) and in the cache.
    fn known_names(&self, asked: &RepoId, progress: Progress) -> Vec<String> {
        let mut repos = match self.client.options.offline {
            true => Vec::new(),
            false => self.published(asked.owner(), progress).unwrap_or_default(),
        };
        repos.extend(cached_repos(&self.client.options.cache));
        let namespace = self.client.options.namespace();
        let detectors = repos.iter().filter(|repo| repo.detector_parts().is_some());
        detectors.map(|repo| repo.short_name(namespace)).collect()
    }
}

fn is_unknown(error: &Error) -> bool {
    let unknown = Failure::Missing(Missing::Repo).at("", None);
    match (error, unknown) {
        (Error::Hub { reason, .. }, Error::Hub { reason: known, .. }) => *reason == known,
        _ => false,
    }
}

/// Runs blocking HTTP on a thread of its own: the library refuses to work inside an asynchronous
/// runtime, and users may well call us from one.
pub(super) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let running = scope.spawn(work);
        running
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn checked_folder(folder: PathBuf) -> Result<PathBuf> {
    for file in NEEDED {
        if !folder.join(file).is_file() {
            return Err(Error::Config {
                path: folder,
                reason: format!("no detector: there is no file `{file}` in this folder"),
            });
        }
    }
    Ok(folder)
}

fn folder_of(file: &Fetched) -> PathBuf {
    file.path.parent().unwrap_or(Path::new(".")).to_path_buf()
}

fn read_sha256(text: &str) -> Result<Digest> {
    Digest::parse(text)
        .filter(Digest::is_sha256)
        .ok_or_else(|| {
            Error::Invalid(format!(
                "backbone.sha256: `{text}` is not a SHA-256 of 64 hexadecimal digits"
            ))
        })
}
