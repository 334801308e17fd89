//! A folder with all that a machine without the Hub needs: the detector and its backbone's weights.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use candle_core::Device;

use super::{
    fetch::{CARD, Hub, NEEDED},
    names::BACKBONE_FILE,
    progress::{Event, Progress},
    weights::BACKBONES,
};
use crate::{
    Error, Result,
    backbones::{self, Weights},
    detector::{BackboneRecord, CONFIG_FILE, other_weights, read_config},
    digest::sha256_file,
    files,
};

impl Hub {
    /// Puts a detector and its backbone's weights (`backbone`, or the recorded ones) into a folder
    /// of its own, for a machine without the Hub. It appears whole or not at all. Where the detector
    /// did not record its weights' hash, the folder's copy of its config does.
    ///
    /// # Errors
    /// When a file cannot be had, or `folder` exists and is not empty.
    pub fn pull_to(
        &self,
        name: &str,
        folder: &Path,
        backbone: Option<&Path>,
        progress: Progress,
    ) -> Result<()> {
        files::require_free(folder)?;
        if let Some(path) = backbone {
            // Better found out here than on the machine without the Hub.
            Weights::open(path, &Device::Cpu)?;
        }
        let source = self.fetch_detector(name, progress)?;
        let mut config = read_config(&source)?;
        let unpinned = config.backbone.sha256.is_none();
        let weights = self.weights(&mut config.backbone, backbone, progress)?;
        files::write_folder(folder, |staged| {
            let present = NEEDED.iter().chain([&CARD]);
            for file in present.filter(|file| source.join(file).is_file()) {
                copy(&source.join(file), &staged.join(file))?;
            }
            if let Some(weights) = &weights {
                let beside = staged.join(BACKBONES).join(&config.backbone.id);
                fs::create_dir_all(&beside).map_err(Error::io(&beside))?;
                copy(weights, &beside.join(BACKBONE_FILE))?;
                if unpinned {
                    files::write_json(staged.join(CONFIG_FILE), &config)?;
                }
            }
            Ok(())
        })
    }

    /// The weights file to copy, if the backbone needs one; what the record lacks is filled in.
    fn weights(
        &self,
        record: &mut BackboneRecord,
        given: Option<&Path>,
        progress: Progress,
    ) -> Result<Option<PathBuf>> {
        if !backbones::needs_weights(&record.id) {
            return Ok(None);
        }
        let Some(given) = given else {
            let (path, found) = self.fetch_backbone(record, progress)?;
            if record.sha256.is_none() {
                *record = found;
            }
            return Ok(Some(path));
        };
        let sha256 = sha256_file(given)?;
        if let Some(notice) = other_weights(record, given, &sha256) {
            progress(Event::Notice(&notice));
        }
        record.sha256.get_or_insert(sha256);
        Ok(Some(given.into()))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io(from))?;
    let mut target = File::create(to).map_err(Error::io(to))?;
    io::copy(&mut source, &mut target).map_err(Error::io(to))?;
    target.sync_all().map_err(Error::io(to))
}
