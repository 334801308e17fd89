//! Folders of images as data sets.

use std::path::PathBuf;

/// One image of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image file.
    pub image: PathBuf,
    /// Ground-truth mask (non-zero is defective); none for normal images or where masks are not known.
    pub mask: Option<PathBuf>,
    /// The defect's class; none when the image is normal.
    pub defect: Option<String>,
}

/// Normal images to train on, and (perhaps) a test set.
#[derive(Debug, Clone, PartialEq, Eq)]
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
