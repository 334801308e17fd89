//! `Detector::from_pretrained`: from a name to a detector that works.

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
use super::fetch::Hub;
use super::names::DetectorName;
use super::progress::Progress;
use crate::{
    Advice, Error, Result, backbones,
    detector::{BackboneRecord, Detector, LoadOptions, hash_file, locate, read_config},
};

/// Stands in for the Hub where the crate is built without it.
#[cfg(not(feature = "hub"))]
pub(super) struct Hub;

/// Where `pull --to` puts backbone weights, beside the detector's own files.
pub(super) const BACKBONES: &str = "backbones";

impl Detector {
    /// Loads a detector by its name: `bottle`, `bottle@cait`, `org/repo`, `org/repo@revision` or a
    /// folder. What is not here is downloaded and verified, the backbone's weights too.
    ///
    /// The weights are looked for in this order: [`LoadOptions::backbone_weights`], the folder that
    /// `FASTFLOW_BACKBONES` names, `backbones` in the detector's folder, the Hub.
    ///
    /// # Errors
    /// For an unknown name (with the nearest known ones), and when a file is missing or damaged.
    pub fn from_pretrained(name: &str, options: &LoadOptions) -> Result<Self> {
        from_pretrained(name, options, &|_| ())
    }
}

/// [`Detector::from_pretrained`] that tells what it is doing.
///
/// # Errors
/// As there.
pub fn from_pretrained(name: &str, options: &LoadOptions, progress: Progress) -> Result<Detector> {
    // A folder with all it needs asks nothing of the environment.
    if let DetectorName::Folder(folder) =
        DetectorName::parse(name, super::names::DEFAULT_NAMESPACE)?
    {
        return load_with(None, &folder, options, progress);
    }
    from_hub(name, options, progress)
}

#[cfg(feature = "hub")]
fn from_hub(name: &str, options: &LoadOptions, progress: Progress) -> Result<Detector> {
    let hub = Hub::from_environment()?;
    let folder = hub.fetch_detector(name, progress)?;
    load_with(Some(&hub), &folder, options, progress)
}

#[cfg(not(feature = "hub"))]
fn from_hub(name: &str, _options: &LoadOptions, _progress: Progress) -> Result<Detector> {
    Err(Error::Unknown {
        kind: "detector",
        name: name.into(),
        hint: "this program was built without the Hub (feature `hub`); give a folder".into(),
    })
}

/// Loads the detector in `folder`, fetching what its backbone lacks.
pub(super) fn load_with(
    hub: Option<&Hub>,
    folder: &Path,
    options: &LoadOptions,
    progress: Progress,
) -> Result<Detector> {
    let record = read_config(folder)?.backbone;
    let mut used = record.clone();
    let mut options = options.clone();
    if options.backbone_weights.is_none() && backbones::needs_weights(&record.id) {
        let beside = folder
            .join(BACKBONES)
            .join(&record.id)
            .join("model.safetensors");
        let here = locate(&record.id).or_else(|| beside.is_file().then_some(beside));
        options.backbone_weights = match here {
            Some(path) => Some(path),
            None => {
                let (path, found) = download(hub, record.clone(), progress).map_err(or_a_file)?;
                used = found;
                Some(path)
            }
        };
    }
    let mut detector = Detector::load(folder, &options)?;
    if record.sha256.is_none()
        && let Some(path) = &options.backbone_weights
    {
        // The first use of weights that nobody has recorded: from now on the detector knows them.
        if used.sha256.is_none() {
            used.sha256 = Some(hash_file(path)?);
        }
        detector.config_mut().backbone = used;
    }
    Ok(detector)
}

/// What else helps when weights cannot be fetched.
fn or_a_file(error: Error) -> Error {
    match error {
        error @ Error::Hub { .. } => error.advise(Advice::BackboneWeights),
        other => other,
    }
}

/// Weights of a backbone for training: a given file, those of this machine, or the Hub's; and the
/// record for the detector. None where the backbone needs no weights.
///
/// # Errors
/// For an unknown id, and when the weights cannot be had.
pub fn find_backbone(
    id: &str,
    weights: Option<&Path>,
    progress: Progress,
) -> Result<(Option<PathBuf>, BackboneRecord)> {
    let id = backbones::resolve_id(id)?;
    let mut record = BackboneRecord::embedded(&id);
    if !backbones::needs_weights(&id) {
        return Ok((None, record));
    }
    if let Some(path) = weights.map(Path::to_path_buf).or_else(|| locate(&id)) {
        record.sha256 = Some(hash_file(&path)?);
        return Ok((Some(path), record));
    }
    let (path, record) = download(None, record, progress)?;
    Ok((Some(path), record))
}

/// The weights from the Hub (`hub`, or that of the environment), and the record with their pin.
#[cfg(feature = "hub")]
fn download(
    hub: Option<&Hub>,
    record: BackboneRecord,
    progress: Progress,
) -> Result<(PathBuf, BackboneRecord)> {
    match hub {
        Some(hub) => hub.fetch_backbone(&record, progress),
        None => Hub::from_environment()?.fetch_backbone(&record, progress),
    }
}

#[cfg(not(feature = "hub"))]
fn download(
    _hub: Option<&Hub>,
    record: BackboneRecord,
    _progress: Progress,
) -> Result<(PathBuf, BackboneRecord)> {
    Err(Error::Unknown {
        kind: "file with the weights of",
        name: record.id,
        hint: "this program was built without the Hub".into(),
    }
    .advise(Advice::BackboneWeights))
}
