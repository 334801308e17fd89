//! VisA's layout: `<category>/Data/Images/{Normal,Anomaly}`, split by `split_csv/1cls.csv` beside the
//! categories.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::layout::{self, fault};
use super::{Dataset, Sample};
use crate::{Error, Result};

const SPLIT: &str = "split_csv/1cls.csv";

/// A row of the split; paths are relative to the folder of all categories.
#[derive(Deserialize)]
struct Row {
    object: String,
    split: String,
    label: String,
    image: String,
    mask: Option<String>,
}

/// A row of a category's `image_anno.csv`: which defects an image shows.
#[derive(Deserialize)]
struct Annotation {
    image: String,
    label: String,
}

/// Whether a folder is a category of VisA.
pub(super) fn is_here(dir: &Path) -> bool {
    dir.join("Data/Images/Normal").is_dir()
}

pub(super) fn open(dir: &Path) -> Result<Dataset> {
    // `.` and `a/..` have no parent that a path shows.
    let dir = dir.canonicalize().map_err(Error::io(dir))?;
    let root = dir.parent().unwrap_or(&dir);
    let name = layout::folder_name(&dir);
    let split = root.join(SPLIT);
    if !split.is_file() {
        return Err(fault(
            &split,
            "VisA's split is missing: it says which images are for training",
        ));
    }
    let classes = classes(&dir.join("image_anno.csv"))?;
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for row in layout::rows::<Row>(&split)?
        .into_iter()
        .filter(|row| row.object == name)
    {
        let image = root.join(&row.image);
        if row.label == "normal" {
            let samples = if row.split == "train" {
                &mut train
            } else {
                &mut test
            };
            samples.push(Sample::normal(image));
        } else {
            let mask = row.mask.filter(|m| !m.is_empty()).map(|m| root.join(m));
            let class = classes.get(&row.image).unwrap_or(&row.label);
            test.push(Sample::defective(image, class, mask));
        }
    }
    if train.is_empty() {
        return Err(fault(
            &split,
            format!("names no normal training image of `{name}`"),
        ));
    }
    Ok(Dataset {
        root: dir,
        name,
        train,
        test,
    })
}

/// Defects by image; empty where the category brings no annotations.
fn classes(file: &Path) -> Result<HashMap<String, String>> {
    if !file.is_file() {
        return Ok(HashMap::new());
    }
    Ok(layout::rows::<Annotation>(file)?
        .into_iter()
        .map(|row| (row.image, row.label))
        .collect())
}
