//! What users fetch: a detector by name, and the weights of its backbone.

use std::{
    path::{Path, PathBuf},
    thread,
};

use serde::{Deserialize, Serialize};

use super::{
    cache::cached_repos,
    client::Client,
    digest::Digest,
    download::{Fetched, Wanted},
    environment::HubOptions,
    failure::{Failure, Missing, Outcome},
    names::{DetectorName, RepoId, nearest},
    progress::Progress,
};
use crate::{Error, Result};

/// The settings of a detector and its weights; without both it is none.
const NEEDED: [&str; 2] = ["config.json", "model.safetensors"];
pub(super) const CARD: &str = "README.md";

/// timm's organisation on the Hub, and the file that its repositories hold weights in.
const BACKBONE_OWNER: &str = "timm";
const BACKBONE_FILE: &str = "model.safetensors";

/// Which weights of a backbone: enough to fetch the same bytes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackbonePin {
    /// Repository, `owner/name`.
    pub repo: String,
    /// Commit.
    pub revision: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// The Hugging Face Hub with its cache.
///
/// Its methods block, and may be called from asynchronous code as well.
pub struct Hub {
    pub(super) client: Client,
}

impl Hub {
    /// Makes ready; nothing is sent yet.
    ///
    /// # Errors
    /// When the HTTP library cannot start (no certificates, say).
    pub fn new(options: HubOptions) -> Result<Self> {
        let client = apart(|| Client::new(options))?;
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
        match DetectorName::parse(name, &self.client.options.namespace)? {
            DetectorName::Folder(folder) => checked_folder(folder),
            DetectorName::Repo { repo, revision } => apart(|| {
                let revision = revision.as_deref().unwrap_or("main");
                self.fetch_repo(name, &repo, revision, progress)
            }),
        }
    }

    /// The weights of the backbone `id` (timm's `arch.tag`), and the pin to record: the given one,
    /// or that of the newest commit where there is none yet.
    ///
    /// # Errors
    /// When the file cannot be had, or is not the one of the pin.
    pub fn fetch_backbone(
        &self,
        id: &str,
        pin: Option<&BackbonePin>,
        progress: Progress,
    ) -> Result<(PathBuf, BackbonePin)> {
        let repo = match pin {
            Some(pin) => RepoId::parse(&pin.repo)?,
            None => RepoId::new(BACKBONE_OWNER, id)?,
        };
        let sha256 = pin.map(|pin| read_sha256(&pin.sha256)).transpose()?;
        let wanted = Wanted {
            repo: &repo,
            revision: pin.map_or("main", |pin| &pin.revision),
            file: BACKBONE_FILE,
            sha256: sha256.as_ref(),
        };
        let found = apart(|| self.client.fetch(wanted, progress))?;
        let found_pin = || -> Result<BackbonePin> {
            let sha256 = if found.digest.is_sha256() {
                found.digest.clone()
            } else {
                Digest::sha256(&found.path)?
            };
            Ok(BackbonePin {
                repo: repo.to_string(),
                revision: found.commit.clone(),
                sha256: sha256.to_string(),
            })
        };
        let pin = pin.cloned().map_or_else(found_pin, Ok)?;
        Ok((found.path, pin))
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
        let first = self
            .client
            .fetch(wanted(revision, NEEDED[0]), progress)
            .map_err(|error| self.with_suggestions(error, name, repo, progress))?;
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

    /// An unknown repository becomes an unknown detector, with names that exist.
    fn with_suggestions(
        &self,
        error: Error,
        name: &str,
        repo: &RepoId,
        progress: Progress,
    ) -> Error {
        let Error::Hub { reason, .. } = &error else {
            return error;
        };
        let unknown = Failure::Missing(Missing::Repo).at("", None);
        if !matches!(unknown, Error::Hub { reason: known, .. } if known == *reason) {
            return error;
        }
        let known = self.known_names(repo, progress);
        let others = known
            .iter()
            .map(String::as_str)
            .filter(|other| *other != name);
        let close = nearest(name, others);
        let hint = if close.is_empty() {
            format!(
                "{reason}; `fastflow list` shows the detectors of {}",
                repo.owner()
            )
        } else {
            format!(
                "did you mean {}? `fastflow list` shows all",
                close.join(", ")
            )
        };
        Error::Unknown {
            kind: "detector",
            name: name.into(),
            hint,
        }
    }

    /// Names of the owner's detectors, on the Hub (if it answers) and in the cache.
    fn known_names(&self, asked: &RepoId, progress: Progress) -> Vec<String> {
        let mut repos = self.published(asked.owner(), progress).unwrap_or_default();
        repos.extend(cached_repos(&self.client.options.cache));
        let namespace = &self.client.options.namespace;
        let detectors = repos.iter().filter(|repo| repo.detector_parts().is_some());
        detectors.map(|repo| repo.short_name(namespace)).collect()
    }

    /// The repositories of an owner that are tagged as FastFlow detectors.
    pub(super) fn published(&self, owner: &str, progress: Progress) -> Outcome<Vec<RepoId>> {
        let api = self.client.api()?;
        let found = self.client.call(progress, || {
            api.list_models().author(owner).filter("fastflow").send()
        })?;
        Ok(found
            .iter()
            .filter_map(|model| RepoId::parse(&model.id).ok())
            .collect())
    }
}

/// Runs blocking HTTP on a thread of its own: the library refuses to work inside an asynchronous
/// runtime, and users may well call us from one.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
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
