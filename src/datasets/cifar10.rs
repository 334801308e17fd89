//! CIFAR-10's official binary files as one-class data sets.
//!
//! A file is a row of records: one byte of class, then 32x32 bytes each of red, green and blue.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use image::{Rgb, RgbImage};

use super::layout::fault;
use super::{Dataset, Sample};
use crate::{Error, Result};

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

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PIXELS;
const TRAIN: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST: &str = "test_batch.bin";

/// Whether a folder holds the binary files.
pub(super) fn is_here(dir: &Path) -> bool {
    dir.join(TRAIN[0]).is_file() && dir.join(TEST).is_file()
}

/// What a path such as `cifar-10-batches-bin/cat` means, when its last part is a class in a folder of
/// binary files: the class, and whether it is the defect.
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
    let is_normal = |label: usize| (label == class) != inverse;
    let mut train = Vec::new();
    for file in TRAIN.map(|name| dir.join(name)) {
        let labels = labels(&file)?;
        let normal = labels
            .iter()
            .enumerate()
            .filter(|(_, label)| is_normal(**label));
        train.extend(normal.map(|(record, _)| at(&file, record)));
    }
    let file = dir.join(TEST);
    let test = labels(&file)?
        .into_iter()
        .enumerate()
        .map(|(record, label)| Sample {
            defect: (!is_normal(label)).then(|| CLASSES[label].to_string()),
            ..at(&file, record)
        });
    Ok(Dataset {
        root: dir.to_path_buf(),
        name: format!("{}{}", if inverse { INVERSE } else { "" }, CLASSES[class]),
        train,
        test: test.collect(),
    })
}

fn at(file: &Path, record: usize) -> Sample {
    Sample {
        record: Some(record),
        ..Sample::normal(file.to_path_buf())
    }
}

fn labels(file: &Path) -> Result<Vec<usize>> {
    let bytes = std::fs::read(file).map_err(Error::io(file))?;
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        return Err(fault(
            file,
            format!(
                "{} bytes are not whole records of {RECORD} bytes",
                bytes.len()
            ),
        ));
    }
    let labels: Vec<usize> = bytes
        .iter()
        .step_by(RECORD)
        .map(|b| usize::from(*b))
        .collect();
    match labels.iter().position(|&label| label >= CLASSES.len()) {
        Some(record) => Err(fault(
            file,
            format!(
                "record {record} has the class {}, not 0 to 9",
                labels[record]
            ),
        )),
        None => Ok(labels),
    }
}

/// One record as a 32x32 image.
pub(super) fn read(file: &Path, record: usize) -> Result<RgbImage> {
    let mut bytes = vec![0; RECORD];
    let mut handle = File::open(file).map_err(Error::io(file))?;
    handle
        .seek(SeekFrom::Start((record * RECORD) as u64))
        .map_err(Error::io(file))?;
    handle.read_exact(&mut bytes).map_err(Error::io(file))?;
    Ok(RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        let pixel = 1 + y as usize * SIDE + x as usize;
        Rgb([
            bytes[pixel],
            bytes[pixel + PIXELS],
            bytes[pixel + 2 * PIXELS],
        ])
    }))
}
