//! Generated photos as files.

use std::{fs, path::Path};

use image::DynamicImage;
use rayon::prelude::*;
use serde::Serialize;

use super::{DefectKind, GeneratedProduct, Split};
use crate::{Error, Result, files, imaging, mark};

/// Seed of the bundled samples; training and test sets use others.
const SAMPLES_SEED: u64 = 20_260;
const SAMPLES_QUALITY: u8 = 88;

/// How many photos of which size, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GenerateOptions {
    /// Everything random comes from it.
    pub seed: u64,
    /// Good photos to train on.
    pub train: usize,
    /// Good photos to test on.
    pub good: usize,
    /// Defective photos to test on; the kinds of defect take turns.
    pub defective: usize,
    /// Pixels a side.
    pub size: u32,
}

impl Default for GenerateOptions {
    /// 200 photos to train on; 60 good and 105 (15 of each kind) defective ones to test on; 256 pixels.
    fn default() -> Self {
        Self {
            seed: 0,
            train: 200,
            good: 60,
            defective: 105,
            size: 256,
        }
    }
}

/// The file that says what was generated.
pub(crate) const RECORD: &str = "generated.json";

/// What was generated; also written as `generated.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// The settings.
    pub options: GenerateOptions,
    /// What each defect measures, in the order of generation.
    pub defects: Vec<GeneratedDefect>,
}

/// One defective photo of a generated data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GeneratedDefect {
    /// The photo's path in the folder.
    pub image: String,
    /// The kind of defect.
    pub defect: DefectKind,
    /// See [`super::DefectivePhoto::contrast`].
    pub contrast: f32,
    /// Pixels under the mask.
    pub area: usize,
}

pub(super) fn data_set(folder: &Path, options: &GenerateOptions) -> Result<Generated> {
    let product = GeneratedProduct::new(options.seed, options.size)?;
    if options.train == 0 && options.good == 0 && options.defective == 0 {
        return Err(Error::Invalid(
            "nothing to generate: train, good and defective are all 0".into(),
        ));
    }
    files::write_folder(folder, |staged| {
        good(
            &product,
            Split::Train,
            options.train,
            &staged.join("train/good"),
        )?;
        good(
            &product,
            Split::Good,
            options.good,
            &staged.join("test/good"),
        )?;
        let defects = (0..options.defective)
            .into_par_iter()
            .map(|index| defective(&product, index, staged))
            .collect::<Result<_>>()?;
        let generated = Generated {
            options: *options,
            defects,
        };
        files::write_json(staged.join(RECORD), &generated)?;
        Ok(generated)
    })
}

/// Four kinds of defect and three good products.
pub(super) fn samples(folder: &Path) -> Result<Vec<String>> {
    let product = GeneratedProduct::new(SAMPLES_SEED, 256)?;
    let good = (0..3).map(|index| {
        (
            format!("good_{}.jpg", index + 1),
            product.good(Split::Good, index),
        )
    });
    let shown = [
        DefectKind::BrokenYarn,
        DefectKind::Stain,
        DefectKind::LooseThread,
        DefectKind::WrongWeave,
    ];
    let defective = (0..DefectKind::ALL.len())
        .map(|index| product.defective(index))
        .filter_map(|photo| {
            shown
                .contains(&photo.kind)
                .then(|| (format!("{}.jpg", photo.kind.name()), photo.image))
        });
    let encoded = good.chain(defective).map(|(name, image)| {
        let bytes = imaging::encode_jpeg(&image, SAMPLES_QUALITY)?;
        let path = folder.join(&name);
        Ok((name, path, bytes))
    });
    let samples = encoded.collect::<Result<Vec<_>>>()?;
    // Samples that are here stay as they are: only other photos of these names would be lost.
    let there = |path: &Path, bytes: &[u8]| fs::read(path).is_ok_and(|found| found == bytes);
    let new = || {
        samples
            .iter()
            .filter(|(_, path, bytes)| !there(path, bytes))
    };
    mark::require_free(new().map(|(_, path, _)| path.as_path()))?;
    make(folder)?;
    for (_, path, bytes) in new() {
        files::write_bytes(path, bytes)?;
    }
    Ok(samples.into_iter().map(|(name, ..)| name).collect())
}

fn good(product: &GeneratedProduct, split: Split, count: usize, folder: &Path) -> Result<()> {
    make(folder)?;
    (0..count).into_par_iter().try_for_each(|index| {
        write_png(
            &folder.join(format!("{index:03}.png")),
            &product.good(split, index).into(),
        )
    })
}

fn defective(product: &GeneratedProduct, index: usize, root: &Path) -> Result<GeneratedDefect> {
    let photo = product.defective(index);
    let (kind, number) = (photo.kind.name(), index / DefectKind::ALL.len());
    let image = format!("test/{kind}/{number:03}.png");
    let mask = format!("ground_truth/{kind}/{number:03}_mask.png");
    let area = photo.mask.pixels().filter(|pixel| pixel[0] > 0).count();
    for (path, picture) in [(&image, photo.image.into()), (&mask, photo.mask.into())] {
        let path = root.join(path);
        make(path.parent().unwrap_or(root))?;
        write_png(&path, &picture)?;
    }
    Ok(GeneratedDefect {
        image,
        defect: photo.kind,
        contrast: photo.contrast,
        area,
    })
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder))
}

/// Plainly written: the whole folder is renamed into place afterwards.
fn write_png(path: &Path, image: &DynamicImage) -> Result<()> {
    fs::write(path, imaging::encode_png(image)?).map_err(Error::io(path))
}
