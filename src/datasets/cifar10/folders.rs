//! The images as files in class folders: `train/<class>` and `test/<class>`, as public copies have them.

use std::path::Path;

use super::{CLASSES, Labelled};
use crate::{Result, datasets::Sample, imaging::list_images};

const SPLITS: [&str; 2] = ["train", "test"];

/// Whether a folder holds a folder of every class for both splits.
pub(super) fn is_here(dir: &Path) -> bool {
    SPLITS.iter().all(|split| {
        let split = dir.join(split);
        CLASSES.iter().all(|class| split.join(class).is_dir())
    })
}

/// The images to train on and those to test on, by class and name.
///
/// # Errors
/// When a folder cannot be read.
pub(super) fn images(dir: &Path) -> Result<(Vec<Labelled>, Vec<Labelled>)> {
    let [train, test] = SPLITS.map(|split| labelled(&dir.join(split)));
    Ok((train?, test?))
}

fn labelled(split: &Path) -> Result<Vec<Labelled>> {
    let mut all = Vec::new();
    for (label, class) in CLASSES.iter().enumerate() {
        let files = list_images(&split.join(class))?.into_iter();
        all.extend(files.map(|file| (Sample::normal(file), label)));
    }
    Ok(all)
}
