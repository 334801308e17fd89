//! A list of images as CSV, for data that is not sorted into folders.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de::Visitor};

use super::layout::{self, fault};
use super::{Dataset, Sample, folder};
use crate::Result;

/// The file's name where a folder is opened.
pub(super) const FILE: &str = "manifest.csv";

const NORMAL: [&str; 4] = ["", "good", "normal", "ok"];

/// A row; only `image` is needed. Paths are relative to the CSV file, of whatever bytes they are.
#[derive(Deserialize)]
struct Row {
    image: Text,
    label: Option<Text>,
    split: Option<Text>,
    mask: Option<Text>,
}

/// A field's bytes, which need not be UTF-8.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    /// On systems whose names are not bytes, what is no UTF-8 names nothing.
    fn path(&self) -> PathBuf {
        #[cfg(unix)]
        return <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&self.0).into();
        #[cfg(not(unix))]
        return self.words().into();
    }

    fn words(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> std::result::Result<Text, E> {
                Ok(Text(bytes.to_vec()))
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<Text, E> {
                Ok(Text(text.into()))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

pub(super) fn open(file: &Path) -> Result<Dataset> {
    let root = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (index, row) in layout::rows::<Row>(file)?.into_iter().enumerate() {
        let wrong = |what: String| fault(file, format!("line {}: {what}", index + 2));
        let existing = |name: &Text| {
            let path = root.join(name.path());
            if path.is_file() {
                Ok(path)
            } else {
                Err(wrong(format!("there is no file {}", path.display())))
            }
        };
        let image = existing(&row.image)?;
        let label = row.label.unwrap_or_default().words();
        let split = row.split.unwrap_or_default().words();
        if let (true, Some(folder)) = (label.is_empty(), folder::called_bad(&row.image.path())) {
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
                .filter(|m| !m.0.is_empty())
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
