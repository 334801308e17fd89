//! CIFAR-10 as one-class data sets: one of its ten classes is normal, or one is the defect. It lies as the official
//! binary files or as class folders of images.

mod binary;
mod folders;

use std::path::Path;

pub(super) use binary::read;

use super::{Dataset, Sample};
use crate::Result;

/// The classes in the order of their labels.
pub const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];
/// Before a class's name: that class is the defect and the other nine are normal.
pub const INVERSE: &str = "not-";

/// An image and its class's label.
type Labelled = (Sample, usize);

/// Whether a folder holds all of CIFAR-10.
pub(super) fn is_here(dir: &Path) -> bool {
    binary::is_here(dir) || folders::is_here(dir)
}

/// What a path such as `cifar-10-batches-bin/cat` means, when its last part is a class in a folder of
/// CIFAR-10: the class, and whether it is the defect.
pub(super) fn class_at(path: &Path) -> Option<(usize, bool)> {
    let name = path.file_name()?.to_str()?;
    let (name, inverse) = match name.strip_prefix(INVERSE) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let class = CLASSES.iter().position(|c| *c == name)?;
    is_here(path.parent()?).then_some((class, inverse))
}

/// Reads one class's data set; `path` is that of [`class_at`].
pub(super) fn open(path: &Path, class: usize, inverse: bool) -> Result<Dataset> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let (train, test) = match binary::is_here(dir) {
        true => binary::images(dir)?,
        false => folders::images(dir)?,
    };
    let is_normal = |label: usize| (label == class) != inverse;
    let train = train.into_iter().filter(|(_, label)| is_normal(*label));
    let test = test.into_iter().map(|(sample, label)| Sample {
        defect: (!is_normal(label)).then(|| CLASSES[label].to_string()),
        ..sample
    });
    Ok(Dataset {
        root: dir.to_path_buf(),
        name: format!("{}{}", if inverse { INVERSE } else { "" }, CLASSES[class]),
        train: train.map(|(sample, _)| sample).collect(),
        test: test.collect(),
    })
}
