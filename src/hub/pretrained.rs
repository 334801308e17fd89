//! `Detector::from_pretrained`: from a name to a detector that works.

use std::path::Path;

use super::{
    names::{self, DetectorName},
    progress::Progress,
    weights::{Hub, Places},
};
use crate::{
    Advice, Error, Result,
    detector::{Detector, DetectorConfig, LoadOptions, read_config, warn_of_other_weights},
};

impl Detector {
    /// Loads a detector by its name: `bottle`, `bottle@cait`, `bottle@cait-padim`, `org/repo`, `org/repo@revision` or a
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
    if let DetectorName::Folder(folder) = DetectorName::parse(name, names::DEFAULT_NAMESPACE)? {
        let config = read_config(&folder)?;
        return load_with(None, &folder, config, options, progress);
    }
    from_hub(name, options, progress)
}

#[cfg(feature = "hub")]
fn from_hub(name: &str, options: &LoadOptions, progress: Progress) -> Result<Detector> {
    let hub = Hub::from_environment()?;
    let folder = hub.fetch_detector(name, progress)?;
    let config = read_config(&folder)?;
    load_with(Some(&hub), &folder, config, options, progress)
}

#[cfg(not(feature = "hub"))]
fn from_hub(name: &str, _options: &LoadOptions, _progress: Progress) -> Result<Detector> {
    Err(Error::Unknown {
        kind: "detector",
        name: name.into(),
        hint: "this program was built without the Hub (feature `hub`); give a folder".into(),
    })
}

/// Loads the detector in `folder`, whose config is at hand, fetching what its backbone lacks.
pub(super) fn load_with(
    hub: Option<&Hub>,
    folder: &Path,
    config: DetectorConfig,
    options: &LoadOptions,
    progress: Progress,
) -> Result<Detector> {
    let recorded = config.backbone.clone();
    let places = Places {
        given: options.backbone_weights.as_deref(),
        detector: Some(folder),
        hub,
    };
    let Some(found) = places.find(&recorded, progress).map_err(or_a_file)? else {
        return Detector::load_config(folder, config, options);
    };
    if let Some(sha256) = &found.record.sha256 {
        warn_of_other_weights(&recorded, &found.path, sha256);
    }
    let options = LoadOptions {
        backbone_weights: Some(found.path),
        ..options.clone()
    };
    let mut detector = Detector::load_config(folder, config, &options)?;
    if recorded.sha256.is_none() {
        // The first use of weights that nobody has recorded: from now on the detector knows them.
        detector.set_backbone_record(found.record)?;
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
