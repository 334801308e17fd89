//! Folders of images as data sets.
//!
//! [`open`] recognises a data set from its layout (docs/data.md shows each):
//!
//! | layout | recognised by |
//! |---|---|
//! | said | `dataset.toml`, see [`Roles`] |
//! | list | `manifest.csv`, or a CSV file itself: columns `image`, `label`, `split` (train, test), `mask`; all but the first are optional |
//! | MVTec AD, LOCO, AD 2, 3D | `train/good`; tests in `test/<class>`, masks in `ground_truth/<class>/<name>_mask.png` |
//! | BTAD | `train/ok` and `test/ko`; masks in `ground_truth/ko` |
//! | VisA | `Data/Images/Normal`; needs `split_csv/1cls.csv` beside the categories |
//! | DAGM | `Train/Label` and `Test/Label` |
//! | CIFAR-10 | a class's name below the folder of the binary files, or of `train/<class>` and `test/<class>`: `cifar-10-batches-bin/cat` has cats as normal, `.../not-cat` has them as defects and the other nine classes as normal |
//! | folder | anything else that holds images, KolektorSDD and KolektorSDD2 among them, see [`open`] |

mod check;
pub mod cifar10;
mod dagm;
mod edit;
mod folder;
pub mod generated;
mod given;
mod hash;
mod known;
mod layout;
mod limit;
mod manifest;
mod masks;
mod measured;
mod mvtec;
mod perturbed;
mod quick_check;
mod roles;
mod sample;
mod split;
mod synthetic_defects;
mod taken;
mod visa;

use std::path::{Path, PathBuf};

pub use check::{CheckReport, Problem, ProblemKind, SizeCount, check, check_opened};
pub use edit::Edit;
pub use given::Roles;
pub use known::{KnownDataset, known, recognise};
pub use layout::folder_name;
pub use limit::Limit;
pub use measured::Measured;
pub use perturbed::Perturbation;
pub use sample::Sample;
pub use synthetic_defects::synthetic_defects;
pub use taken::{FolderRole, Taken};

use crate::Result;

/// Fewest normal images of which some can be kept out of the fit, for the threshold.
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
/// A folder without a known layout is read by its sub-folders' names, at any depth, in any case and in a dozen languages:
/// - `good`, `OK parts`, `no_defect`, ...: normal images; `bad`, `NG`, `not_good`, ...: defective ones, of the class that a
///   folder below it names (`bad/scratch/1.png`), or of its own name.
/// - `test`: test images; in it, a folder of any other name is a class of defects.
/// - `mask`, `ground_truth`, ...: masks, found by the image's name. Masks may lie beside images too (`1_mask.png`, `1_GT.png`),
///   or be known by their looks. What a mask marks is a defect; where each image has one, an empty one means a normal image.
/// - A flat folder, or folders of dates, lots, cameras and the like, are normal images.
/// - Anything else is not certain and refused.
///
/// Where there are defects but no normal test images, every fifth normal image is tested on and not
/// trained on, because a detector cannot be judged on what it was trained with.
///
/// # Errors
/// [`Error::Dataset`](crate::Error::Dataset) when there is no such folder, it is a file, it holds no images, or no normal one
/// to train on; [`Error::Roles`](crate::Error::Roles) where it is not certain which images are normal.
pub fn open(dir: &Path) -> Result<Dataset> {
    trainable(read(dir)?)
}

/// [`open`] where somebody says which photos are what; the paths are relative to the working folder or to `dir`. Without a
/// `dir` the data set's folder is the one that all of them lie in.
///
/// # Errors
/// As [`open`]; [`Error::Dataset`](crate::Error::Dataset) also when nothing is where it is said to be.
pub fn open_as(dir: Option<&Path>, roles: &Roles) -> Result<Dataset> {
    let bases: Vec<&Path> = [Some(Path::new("")), dir].into_iter().flatten().collect();
    trainable(given::open(dir, &bases, roles)?)
}

fn trainable(dataset: Dataset) -> Result<Dataset> {
    if dataset.train.is_empty() {
        let none = "holds no normal images to train on";
        return Err(layout::fault(&dataset.root, none));
    }
    Ok(dataset)
}

/// By the folder's `dataset.toml`; one that only has a name leaves the rest to what the folder looks like.
fn read(dir: &Path) -> Result<Dataset> {
    let file = dir.join(given::FILE);
    if !file.is_file() {
        return recognised(dir);
    }
    let roles = Roles::read(&file)?;
    if !roles.is_empty() {
        return given::open(Some(dir), &[dir], &roles);
    }
    let dataset = recognised(dir)?;
    let name = roles.name.unwrap_or_else(|| dataset.name.clone());
    Ok(Dataset { name, ..dataset })
}

fn recognised(dir: &Path) -> Result<Dataset> {
    if let Some((class, inverse)) = cifar10::class_at(dir) {
        return cifar10::open(dir, class, inverse);
    }
    if dir.is_file()
        && dir
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("csv"))
    {
        return manifest::open(dir);
    }
    layout::require_folder(dir)?;
    if dir.join(manifest::FILE).is_file() {
        manifest::open(&dir.join(manifest::FILE))
    } else if dir.join("train/good").is_dir() {
        mvtec::open(dir, "good")
    } else if is_btad(dir) {
        mvtec::open(dir, "ok")
    } else if visa::is_here(dir) {
        visa::open(dir)
    } else if dagm::is_here(dir) {
        dagm::open(dir)
    } else if let [first, ..] = &categories(dir)?[..] {
        let reason = format!(
            "holds several data sets; name one of them, for example {}",
            first.display()
        );
        Err(layout::fault(dir, reason))
    } else {
        folder::open(dir)
    }
}

fn is_btad(dir: &Path) -> bool {
    dir.join("train/ok").is_dir() && dir.join("test/ko").is_dir()
}

/// The data sets inside a folder, sorted: the categories of MVTec AD, BTAD or VisA, the classes of CIFAR-10
/// (each as the normal one). Each can be [`open`]ed; none when the folder is one data set itself, or no
/// known collection.
///
/// # Errors
/// [`Error::Dataset`](crate::Error::Dataset) when there is no such folder.
pub fn categories(dir: &Path) -> Result<Vec<PathBuf>> {
    layout::require_folder(dir)?;
    if dir.join(given::FILE).is_file() {
        return Ok(Vec::new());
    }
    if cifar10::is_here(dir) {
        return Ok(cifar10::CLASSES.map(|class| dir.join(class)).to_vec());
    }
    Ok(layout::subfolders(dir)?
        .into_iter()
        .filter(|dir| is_category(dir))
        .collect())
}

/// Folders beside [`categories`] that look like one (they have a `train` or `test` folder) and are none.
///
/// # Errors
/// [`Error::Dataset`](crate::Error::Dataset) when there is no such folder.
pub fn no_categories(dir: &Path) -> Result<Vec<PathBuf>> {
    let alike = |dir: &PathBuf| ["train", "test"].iter().any(|part| dir.join(part).is_dir());
    let mut folders = layout::subfolders(dir)?;
    folders.retain(|dir| !is_category(dir) && alike(dir));
    Ok(folders)
}

fn is_category(dir: &Path) -> bool {
    dir.join("train/good").is_dir()
        || is_btad(dir)
        || visa::is_here(dir)
        || dagm::is_here(dir)
        || dir.join(given::FILE).is_file()
}
