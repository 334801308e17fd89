//! DAGM's layout: `Train/0576.PNG` and `Train/Label/0576_label.PNG`, the same in `Test`. A photo is defective if it has a mask.

use std::path::Path;

use super::layout;
use super::masks::Masks;
use super::{Dataset, Sample, folder::DEFECT};
use crate::Result;
use crate::imaging::is_image_file;

const TRAIN: &str = "Train";
const TEST: &str = "Test";
const MASKS: &str = "Label";

/// Whether a folder is one of DAGM's classes.
pub(super) fn is_here(dir: &Path) -> bool {
    [TRAIN, TEST]
        .iter()
        .all(|part| dir.join(part).join(MASKS).is_dir())
}

/// Reads a class; the defective photos of its `Train` are for neither, because `Test` has its own.
pub(super) fn open(dir: &Path) -> Result<Dataset> {
    let train = photos(&dir.join(TRAIN))?.into_iter();
    Ok(Dataset {
        root: dir.to_path_buf(),
        name: layout::folder_name(dir),
        train: train.filter(|sample| !sample.is_defective()).collect(),
        test: photos(&dir.join(TEST))?,
    })
}

fn photos(folder: &Path) -> Result<Vec<Sample>> {
    let masks = Masks::below(&folder.join(MASKS))?;
    let mut samples = Vec::new();
    for file in layout::images_if_any(folder)? {
        let place = layout::inside(folder, &file);
        // Right in the folder: deeper lie the masks.
        if place.components().count() != 1 || !is_image_file(&file) {
            continue;
        }
        let found = masks.of(place);
        samples.push(match found.is_empty() {
            true => Sample::normal(file),
            false => Sample::defective(file, DEFECT, found),
        });
    }
    Ok(samples)
}
