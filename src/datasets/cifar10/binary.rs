//! The official binary files.
//!
//! A file is a row of records: one byte of class, then 32x32 bytes each of red, green and blue.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use image::{Rgb, RgbImage};

use super::{CLASSES, Labelled};
use crate::{
    Error, Result,
    datasets::{Sample, layout::fault},
};

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

/// The images to train on and those to test on, in the files' order.
///
/// # Errors
/// When a file cannot be read or is not whole records of known classes.
pub(super) fn images(dir: &Path) -> Result<(Vec<Labelled>, Vec<Labelled>)> {
    let mut train = Vec::new();
    for name in TRAIN {
        train.extend(records(&dir.join(name))?);
    }
    Ok((train, records(&dir.join(TEST))?))
}

fn records(file: &Path) -> Result<Vec<Labelled>> {
    let labels = labels(file)?.into_iter().enumerate();
    Ok(labels
        .map(|(record, label)| (at(file, record), label))
        .collect())
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
pub(in crate::datasets) fn read(file: &Path, record: usize) -> Result<RgbImage> {
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
