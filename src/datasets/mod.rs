//! Folders of images as data sets.
//!
//! [`open`] recognises a data set from its layout:
//!
//! | layout | recognised by |
//! |---|---|
//! | MVTec AD | `train/good`; tests in `test/<class>`, masks in `ground_truth/<class>/<name>_mask.png` |
//! | folder | anything else that holds images, see [`open`] |

mod folder;
pub mod generated;
mod hash;
mod layout;
mod mvtec;
mod sample;
mod split;

use std::path::{Path, PathBuf};

pub use sample::Sample;

use crate::{Error, Result};

/// Fewest normal images that a detector can be trained on.
pub const MIN_NORMALS: usize = 4;

/// Normal images to train on, and (perhaps) a test set.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The folder it was read from.
    pub root: PathBuf,
    /// The category, by default the folder's name.
    pub name: String,
    /// Normal images to train on.
    pub train: Vec<Sample>,
    /// Test images, normal and defective; may be empty.
    pub test: Vec<Sample>,
}

/// Reads which images a folder holds; none is opened yet.
///
/// A folder without a known layout is read by its sub-folders' names, at any depth and in any case:
/// - `good`, `normal`, `ok`: normal images; `bad`, `defect`, `ng`, `ko`, `anomaly`, ...: defective ones,
///   of the class that a folder below it names (`bad/scratch/1.png`), or of its own name.
/// - `test`: test images; in it, a folder of any other name is a class of defects.
/// - `mask`, `masks`, `ground_truth`, `gt`: masks, found by the image's name, with or without `_mask`.
/// - Everything else is a normal image to train on, so a flat folder of photos of good products is enough.
///
/// Where there are defects but no normal test images, every fifth normal image is tested on and not
/// trained on, because a detector cannot be judged on what it was trained with.
///
/// # Errors
/// [`Error::Dataset`] when there is no such folder, it is a file, it holds no images, fewer than
/// [`MIN_NORMALS`] normal ones, or test images without a label.
pub fn open(dir: &Path) -> Result<Dataset> {
    layout::require_folder(dir)?;
    let dataset = if dir.join("train/good").is_dir() {
        mvtec::open(dir, "good")?
    } else if let [first, ..] = &categories(dir)?[..] {
        let reason = format!(
            "holds several data sets; name one of them, for example {}",
            first.display()
        );
        return Err(layout::fault(dir, reason));
    } else {
        folder::open(dir)?
    };
    if dataset.train.len() < MIN_NORMALS {
        return Err(Error::Dataset {
            path: dir.to_path_buf(),
            reason: format!(
                "holds {} normal images to train on, at least {MIN_NORMALS} are needed",
                dataset.train.len()
            ),
        });
    }
    Ok(dataset)
}

/// The data sets inside a folder, sorted: the categories of MVTec AD, for example. Each can be
/// [`open`]ed; none when the folder is one data set itself, or no known collection.
///
/// # Errors
/// [`Error::Dataset`] when there is no such folder.
pub fn categories(dir: &Path) -> Result<Vec<PathBuf>> {
    layout::require_folder(dir)?;
    let folders = layout::subfolders(dir)?
        .into_iter()
        .map(|name| dir.join(name));
    Ok(folders
        .filter(|folder| folder.join("train/good").is_dir())
        .collect())
}
