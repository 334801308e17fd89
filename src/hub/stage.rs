//! What will be published: an artifact that has proved to work, with its card, in a folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::DType;
use serde::Serialize;
use tempfile::TempDir;

use super::{
    card::{CardFacts, DatasetFacts, render},
    digest::Digest,
    failure::{Failure, Missing},
    fetch::{CARD, Hub, NEEDED, on_own_thread},
    names::RepoId,
    pretrained::load_with,
    progress::{Event, Progress},
};
use crate::{
    Error, Result,
    detector::{CONFIG_FILE, DetectorConfig, LoadOptions, MODEL_FILE, read_config},
    tensors,
};

/// How a detector is published.
#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    /// Repository; by default named after backbone, method and category, of `FASTFLOW_NAMESPACE` or the
    /// token's owner.
    pub repo: Option<RepoId>,
    /// The data set, for the card; by default the recorded one.
    pub dataset: Option<DatasetFacts>,
    /// SPDX id of the detector's licence, for the card; by default the recorded one.
    pub licence: Option<String>,
    /// A tag for the commit.
    pub tag: Option<String>,
    /// The branch, made if it does not exist; by default `main`.
    pub revision: Option<String>,
    /// Open a pull request instead of changing the branch.
    pub create_pr: bool,
    /// Make a new repository private.
    pub private: bool,
    /// First line of the commit; by default made from the detector's name.
    pub message: Option<String>,
    /// How the detector is loaded to be checked.
    pub load: LoadOptions,
}

/// A checked detector, ready to go.
#[derive(Debug)]
pub struct Staged {
    /// Where it goes.
    pub repo: RepoId,
    /// What will be there.
    pub files: Vec<StagedFile>,
    pub(super) config: DetectorConfig,
    folder: TempDir,
}

/// One file of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StagedFile {
    /// Name in the repository.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

impl Staged {
    /// The folder with exactly the files to upload; it goes with the value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn path(&self, file: &StagedFile) -> PathBuf {
        self.folder().join(&file.name)
    }
}

impl Hub {
    /// Checks the detector in `folder` (it loads, its weights are finite, the recorded test
    /// pattern scores as recorded), writes its card and puts the files together. Only missing
    /// backbone weights are downloaded; nothing is uploaded.
    ///
    /// # Errors
    /// The first check that fails, naming file and field.
    pub fn stage(
        &self,
        folder: &Path,
        options: &PublishOptions,
        progress: Progress,
    ) -> Result<Staged> {
        let config = read_config(folder)?;
        progress(Event::Notice(&format!("checking {}", folder.display())));
        if config.fixture_score.is_none() {
            return Err(Error::Config {
                path: folder.join(CONFIG_FILE),
                reason: "fixture_score is missing: nothing shows that the detector works elsewhere as here; train it with this program".into(),
            });
        }
        check_finite(&folder.join(MODEL_FILE))?;
        load_with(Some(self), folder, config.clone(), &options.load, progress)?.verify()?;
        let repo = match &options.repo {
            Some(repo) => repo.clone(),
            None => {
                let owner = self.publisher(progress)?;
                let method = config.estimator.method();
                RepoId::of_detector(&owner, &config.backbone.id, method, &config.name)?
            }
        };

        let facts = CardFacts {
            reference: Some(repo.short_name(self.options().namespace())),
            dataset: options.dataset.clone(),
            licence: options.licence.clone(),
        };
        let staged = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
        for file in NEEDED {
            let target = staged.path().join(file);
            fs::copy(folder.join(file), &target).map_err(Error::io(&target))?;
        }
        let card = staged.path().join(CARD);
        fs::write(&card, render(&config, &facts)?).map_err(Error::io(&card))?;
        let files = NEEDED
            .iter()
            .chain([&CARD])
            .map(|file| described(staged.path(), file));
        Ok(Staged {
            repo,
            files: files.collect::<Result<_>>()?,
            config,
            folder: staged,
        })
    }
}

impl Hub {
    /// Who publishes: the namespace where one was named, else the token's owner. Nothing is ever
    /// sent to an organisation that was not named.
    fn publisher(&self, progress: Progress) -> Result<String> {
        let options = self.options();
        if let Some(namespace) = &options.namespace {
            return Ok(namespace.clone());
        }
        let default = options.namespace();
        if options.token.is_none() || options.offline {
            progress(Event::Unnamed { namespace: default });
            return Ok(default.into());
        }
        let asked = on_own_thread(|| {
            let api = self.client.api()?;
            self.client.call(progress, || api.whoami().send())
        });
        match asked {
            Ok(user) => Ok(user.username),
            // A mirror need not know of users; it refuses what it does not allow.
            Err(Failure::Missing(Missing::Something)) => Ok(default.into()),
            Err(failure) => Err(self.client.at("whose token this is (HF_TOKEN)", failure)),
        }
    }
}

fn described(folder: &Path, name: &str) -> Result<StagedFile> {
    let path = folder.join(name);
    Ok(StagedFile {
        name: name.into(),
        bytes: fs::metadata(&path).map_err(Error::io(&path))?.len(),
        sha256: Digest::sha256(&path)?.to_string(),
    })
}

fn check_finite(path: &Path) -> Result<()> {
    let (tensors, _) = tensors::read(path)?;
    for (name, tensor) in tensors {
        if !tensor.dtype().is_float() {
            continue;
        }
        let values = tensor
            .flatten_all()?
            .to_dtype(DType::F32)?
            .to_vec1::<f32>()?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::Tensor {
                path: path.into(),
                tensor: name,
                reason: "holds a value that is not a finite number; train again before publishing"
                    .into(),
            });
        }
    }
    Ok(())
}
