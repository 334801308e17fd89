//! MVTec AD's layout: `train/good`, `test/good`, `test/<class>`, `ground_truth/<class>`; and its relatives. MVTec LOCO has
//! several masks a photo (`ground_truth/<class>/<name>/000.png`) and `validation/good`, MVTec AD 2 `test_public` with the
//! masks inside, MVTec 3D the photos in `rgb` and the masks in `gt` of each class.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::layout;
use super::masks::Masks;
use super::{Dataset, Sample, folder};
use crate::Result;
use crate::imaging::list_images;

const MASKS: &str = "ground_truth";
const PUBLIC: &str = "test_public";
/// Where MVTec 3D has photos (beside point clouds) and masks.
const RGB: &str = "rgb";
const RGB_MASKS: &str = "gt";

/// Reads a category; `normal` is the name of the folders of normal images.
pub(super) fn open(dir: &Path, normal: &str) -> Result<Dataset> {
    let good = photos(dir.join("train").join(normal));
    let mut train = list_images(&good)?;
    if let Some(bad) = folder::unnamed_bad(&good, &train, &HashSet::new()) {
        let reason = "is called defective and lies among the photos to train on; move it";
        return Err(layout::fault(&bad, reason));
    }
    // Good photos as well; which of them the threshold is found on is drawn later.
    train.extend(layout::images_if_any(&photos(
        dir.join("validation").join(normal),
    ))?);
    let public = !dir.join("test").is_dir() && dir.join(PUBLIC).is_dir();
    let tests = dir.join(if public { PUBLIC } else { "test" });
    let inside = tests.join(MASKS);
    let all_masks = if public { inside } else { dir.join(MASKS) };
    let mut test = Vec::new();
    for class_folder in layout::subfolders(&tests)? {
        let class = layout::folder_name(&class_folder);
        if class == MASKS {
            continue;
        }
        let own = class_folder.join(RGB_MASKS);
        let masks = match own.is_dir() {
            true => Masks::below(&own)?,
            false => Masks::below(&all_masks.join(class_folder.file_name().unwrap_or_default()))?,
        };
        let folder = photos(class_folder);
        for image in list_images(&folder)? {
            let found = masks.of(layout::inside(&folder, &image));
            test.push(if class == normal {
                Sample::normal(image)
            } else {
                Sample::defective(image, &class, found)
            });
        }
    }
    Ok(Dataset {
        root: dir.to_path_buf(),
        name: layout::folder_name(dir),
        train: train.into_iter().map(Sample::normal).collect(),
        test,
    })
}

fn photos(folder: PathBuf) -> PathBuf {
    let rgb = folder.join(RGB);
    if rgb.is_dir() { rgb } else { folder }
}
