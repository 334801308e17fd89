//! MVTec AD's layout: `train/good`, `test/good`, `test/<class>`, `ground_truth/<class>`.

use std::path::Path;

use super::layout::{self, Masks};
use super::{Dataset, Sample};
use crate::Result;
use crate::imaging::list_images;

/// Reads a category; `normal` is the name of the folders of normal images.
pub(super) fn open(dir: &Path, normal: &str) -> Result<Dataset> {
    let train = list_images(&dir.join("train").join(normal))?;
    let mut test = Vec::new();
    for folder in layout::subfolders(&dir.join("test"))? {
        let class = layout::folder_name(&folder);
        let truth = dir.join("ground_truth");
        let masks = Masks::below(&truth.join(folder.file_name().unwrap_or_default()))?;
        for image in list_images(&folder)? {
            let mask = masks.of(layout::inside(&folder, &image));
            test.push(if class == normal {
                Sample::normal(image)
            } else {
                Sample::defective(image, &class, mask)
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
