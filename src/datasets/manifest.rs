//! A list of images as CSV, for data that is not sorted into folders.

use std::path::Path;

use serde::Deserialize;

use super::layout::{self, fault};
use super::{Dataset, Sample, folder};
use crate::Result;

/// The file's name where a folder is opened.
pub(super) const FILE: &str = "manifest.csv";

const NORMAL: [&str; 4] = ["", "good", "normal", "ok"];

/// A row; only `image` is needed. Paths are relative to the CSV file.
#[derive(Deserialize)]
struct Row {
    image: String,
    label: Option<String>,
    split: Option<String>,
    mask: Option<String>,
}

pub(super) fn open(file: &Path) -> Result<Dataset> {
    let root = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (index, row) in layout::rows::<Row>(file)?.into_iter().enumerate() {
        let wrong = |what: String| fault(file, format!("line {}: {what}", index + 2));
        let existing = |name: &str| {
            let path = root.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(wrong(format!("there is no file {}", path.display())))
            }
        };
        let image = existing(&row.image)?;
        let label = row.label.unwrap_or_default();
        let split = row.split.unwrap_or_default();
        if let (true, Some(folder)) = (label.is_empty(), folder::called_bad(Path::new(&row.image)))
        {
            return Err(wrong(format!(
                "has no label and lies in a folder called `{folder}`; give it one"
            )));
        }
        if NORMAL.iter().any(|n| label.eq_ignore_ascii_case(n)) {
            match split.as_str() {
                "" | "train" => train.push(Sample::normal(image)),
                "test" => test.push(Sample::normal(image)),
                other => {
                    return Err(wrong(format!(
                        "split must be train or test, found `{other}`"
                    )));
                }
            }
        } else if split == "train" {
            return Err(wrong(format!(
                "a defective image (`{label}`) cannot be trained on; its split is test"
            )));
        } else {
            let mask = row
                .mask
                .filter(|m| !m.is_empty())
                .map(|m| existing(&m))
                .transpose()?;
            test.push(Sample::defective(image, &label, mask));
        }
    }
    Ok(Dataset {
        root: root.to_path_buf(),
        name: layout::folder_name(root),
        train,
        test,
    })
}
