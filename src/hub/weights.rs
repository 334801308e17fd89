//! A backbone's weights: where they are looked for, and what is known of the file that was found. Each file is read
//! through once for its hash.

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
pub(super) use super::fetch::Hub;
use super::{names::BACKBONE_FILE, progress::Progress};
#[cfg(not(feature = "hub"))]
use crate::Error;
use crate::{Result, backbones, detector::BackboneRecord, digest::sha256_file};

/// Stands in for the Hub where the crate is built without it.
#[cfg(not(feature = "hub"))]
pub(super) struct Hub;

/// Names a folder with `<arch.tag>/model.safetensors` for machines without the Hub.
pub const BACKBONES_VARIABLE: &str = "FASTFLOW_BACKBONES";

/// Where `pull --to` puts backbone weights, beside the detector's own files.
pub(super) const BACKBONES: &str = "backbones";

/// Where weights may lie, in the order in which they are looked for; the folder that [`BACKBONES_VARIABLE`] names comes
/// after `given`, the Hub last.
#[derive(Clone, Copy, Default)]
pub(super) struct Places<'a> {
    /// The user's own choice.
    pub(super) given: Option<&'a Path>,
    /// The detector's folder.
    pub(super) detector: Option<&'a Path>,
    /// That of the environment by default.
    pub(super) hub: Option<&'a Hub>,
}

/// Weights on this machine.
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// The backbone with this file's hash, and repository and commit where it comes from the Hub.
    pub(super) record: BackboneRecord,
}

impl Places<'_> {
    /// The weights of `record`'s backbone; none where it has none. Those of another hash than the recorded one are
    /// found too, unless the record says where on the Hub its file is.
    pub(super) fn find(self, record: &BackboneRecord, progress: Progress) -> Result<Option<Found>> {
        if !backbones::needs_weights(&record.id) {
            return Ok(None);
        }
        let here = self.given.map(Path::to_path_buf);
        let here = here
            .or_else(|| locate_weights(&record.id))
            .or_else(|| in_folder(&self.detector?.join(BACKBONES), &record.id));
        let (path, record) = match here {
            Some(path) => {
                let sha256 = Some(sha256_file(&path)?);
                let record = BackboneRecord {
                    sha256,
                    ..record.clone()
                };
                (path, record)
            }
            None => download(self.hub, record, progress)?,
        };
        Ok(Some(Found { path, record }))
    }
}

/// The weights file of backbone `id` in the folder that [`BACKBONES_VARIABLE`] names, if it is there.
pub fn locate_weights(id: &str) -> Option<PathBuf> {
    in_folder(Path::new(&std::env::var_os(BACKBONES_VARIABLE)?), id)
}

fn in_folder(folder: &Path, id: &str) -> Option<PathBuf> {
    let path = folder.join(id).join(BACKBONE_FILE);
    path.is_file().then_some(path)
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
    let record = BackboneRecord::embedded(&backbones::resolve_id(id)?);
    let places = Places {
        given: weights,
        ..Places::default()
    };
    Ok(match places.find(&record, progress)? {
        Some(found) => (Some(found.path), found.record),
        None => (None, record),
    })
}

/// The weights from the Hub (`hub`, or that of the environment), and the record with their pin.
#[cfg(feature = "hub")]
fn download(
    hub: Option<&Hub>,
    record: &BackboneRecord,
    progress: Progress,
) -> Result<(PathBuf, BackboneRecord)> {
    match hub {
        Some(hub) => hub.fetch_backbone(record, progress),
        None => Hub::from_environment()?.fetch_backbone(record, progress),
    }
}

#[cfg(not(feature = "hub"))]
fn download(
    _hub: Option<&Hub>,
    record: &BackboneRecord,
    _progress: Progress,
) -> Result<(PathBuf, BackboneRecord)> {
    Err(Error::Unknown {
        kind: "file with the weights of",
        name: record.id.clone(),
        hint: "give --backbone-weights FILE; this program was built without the Hub".into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::digest::sha256;

    #[test]
    fn a_given_file_goes_before_the_folders_and_both_are_hashed() {
        let id = "resnet18.only_of_this_test";
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("given.safetensors");
        fs::write(&given, "given").unwrap();
        let beside = folder.path().join(BACKBONES).join(id).join(BACKBONE_FILE);
        fs::create_dir_all(beside.parent().unwrap()).unwrap();
        fs::write(&beside, "beside").unwrap();
        let recorded = BackboneRecord {
            sha256: Some("another".into()),
            taps: Some("1,2".parse().unwrap()),
            ..BackboneRecord::embedded(id)
        };
        let mut places = Places {
            given: Some(&given),
            detector: Some(folder.path()),
            hub: None,
        };
        let found = |places: Places| places.find(&recorded, &|_| ()).unwrap().unwrap();
        let first = found(places);
        assert_eq!(first.path, given);
        assert_eq!(first.record.sha256, Some(sha256("given")));
        places.given = None;
        let second = found(places);
        assert_eq!(second.path, beside);
        let expected = BackboneRecord {
            sha256: Some(sha256("beside")),
            ..recorded.clone()
        };
        assert_eq!(second.record, expected);
    }

    #[test]
    fn a_backbone_without_weights_finds_none() {
        let (path, record) = find_backbone("wavelet", None, &|_| ()).unwrap();
        assert_eq!((path, record), (None, BackboneRecord::embedded("wavelet")));
        let gone = Path::new("no/such/file");
        let error = find_backbone("resnet18", Some(gone), &|_| ()).unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
