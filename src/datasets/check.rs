//! Looks at every file of a data set before anything long starts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{Dataset, FolderRole, Sample, cifar10, folder, layout, open};
use crate::imaging::{Unread, survey};
use crate::{Error, Result, files::raw_bytes};

/// What a data set holds and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// The category.
    pub name: String,
    /// What each folder was taken for.
    pub folders: Vec<FolderRole>,
    /// Normal images to train on.
    pub train: usize,
    /// Normal images to test on.
    pub test_normal: usize,
    /// Defective images by class.
    pub defects: BTreeMap<String, usize>,
    /// Defective images with a mask.
    pub masks: usize,
    /// Images by size, the most frequent first.
    pub sizes: Vec<SizeCount>,
    /// What is wrong, by file.
    pub problems: Vec<Problem>,
}

/// How many images have a size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizeCount {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Images of this size.
    pub images: usize,
}

/// Something wrong with one file. As JSON it has `path_bytes` too where the path is no UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// The problem in words.
    pub what: String,
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let bytes = raw_bytes(&self.path);
        let mut object =
            serializer.serialize_struct("Problem", 3 + usize::from(bytes.is_some()))?;
        object.serialize_field("path", &self.path.to_string_lossy())?;
        if let Some(bytes) = bytes {
            object.serialize_field("path_bytes", &bytes)?;
        }
        object.serialize_field("kind", &self.kind)?;
        object.serialize_field("what", &self.what)?;
        object.end()
    }
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// An image or mask that cannot be decoded.
    Unreadable,
    /// What is a photo by its name and cannot be looked at: a link that leads nowhere, a closed folder. Training and
    /// evaluation do without it.
    Lost,
    /// A mask of another size than its image.
    MaskSize,
    /// A defective image without a mask, where others have one: pixel metrics leave it out.
    MaskMissing,
    /// A mask without a defective pixel.
    MaskEmpty,
    /// A mask that marks most of the photo: perhaps inverted.
    MaskInverted,
    /// A mask that belongs to no defective image.
    MaskOrphan,
    /// A test image whose pixels are those of a training image.
    TrainedOn,
    /// An image that the layout gives no role.
    Unused,
}

impl ProblemKind {
    /// Whether training or evaluation would stop at it, or do without it.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::Unreadable | Self::Lost | Self::MaskSize)
    }
}

impl CheckReport {
    /// Whether nothing would stop training or evaluation, and no photo is lost.
    pub fn is_usable(&self) -> bool {
        !self.problems.iter().any(|p| p.kind.is_fatal())
    }
}

/// What was seen of one sample.
struct Seen {
    size: Option<(u32, u32)>,
    pixels: u64,
    problem: Option<Problem>,
}

/// Opens a data set and decodes all its images and masks. `progress` is told how many of how many
/// samples are done, from several threads.
///
/// # Errors
/// As [`open`]; problems of single files are in the report.
pub fn check(dir: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<CheckReport> {
    let data = open(dir)?;
    check_opened(&data, std::slice::from_ref(&data.root), progress)
}

/// [`check`] of a data set that is open. What has no role, or is lost, is looked for in `folders`.
///
/// # Errors
/// When one of these cannot be listed; problems of single files are in the report.
pub fn check_opened(
    data: &Dataset,
    folders: &[PathBuf],
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<CheckReport> {
    let samples: Vec<&Sample> = data.train.iter().chain(&data.test).collect();
    let done = AtomicUsize::new(0);
    let seen: Vec<Seen> = samples
        .par_iter()
        .map(|sample| {
            let seen = look(sample);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, samples.len());
            seen
        })
        .collect();
    let mut problems: Vec<Problem> = seen.iter().filter_map(|s| s.problem.clone()).collect();
    problems.extend(missing_masks(data));
    problems.extend(trained_on(data, &seen));
    problems.extend(without_a_role(data, folders)?);
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(CheckReport {
        folders: data.folders(),
        train: data.train.len(),
        test_normal: data.test.iter().filter(|s| !s.is_defective()).count(),
        defects: classes(data),
        masks: data
            .test
            .iter()
            .filter(|s| s.is_defective() && !s.masks.is_empty())
            .count(),
        sizes: sizes(&seen),
        name: data.name.clone(),
        problems,
    })
}

fn look(sample: &Sample) -> Seen {
    let broken = |size, pixels, error: Error| Seen {
        size,
        pixels,
        problem: Some(describe(sample, &error)),
    };
    let (photo_size, pixels) = match sample.fingerprint() {
        Ok(found) => found,
        Err(error) => return broken(None, 0, error),
    };
    let size = Some(photo_size);
    match (
        sample.read_mask(photo_size.0, photo_size.1),
        sample.masks.first(),
    ) {
        (Err(error), _) => broken(size, pixels, error),
        (Ok(Some(mask)), Some(path)) if sample.is_defective() && mask.area() == 0 => Seen {
            size,
            pixels,
            problem: Some(problem(
                path,
                ProblemKind::MaskEmpty,
                "the mask marks no pixel",
            )),
        },
        (Ok(Some(mask)), Some(path)) if 2 * mask.area() > mask.pixels().len() => {
            let share = 100 * mask.area() / mask.pixels().len();
            let what = format!(
                "the mask marks {share} % of the photo; where the background is meant, invert it"
            );
            Seen {
                size,
                pixels,
                problem: Some(problem(path, ProblemKind::MaskInverted, &what)),
            }
        }
        _ => Seen {
            size,
            pixels,
            problem: None,
        },
    }
}

fn describe(sample: &Sample, error: &Error) -> Problem {
    match error {
        Error::Image { path, reason } => problem(path, ProblemKind::Unreadable, reason),
        Error::Dataset { path, reason } => problem(path, ProblemKind::MaskSize, reason),
        other => problem(&sample.image, ProblemKind::Unreadable, &other.to_string()),
    }
}

fn problem(path: &Path, kind: ProblemKind, what: &str) -> Problem {
    Problem {
        path: path.to_path_buf(),
        kind,
        what: what.to_string(),
    }
}

fn missing_masks(data: &Dataset) -> Vec<Problem> {
    let what =
        "a defective image without a mask, though others have one; pixel metrics leave it out";
    let masked = data
        .test
        .iter()
        .any(|s| s.is_defective() && !s.masks.is_empty());
    let bare = data
        .test
        .iter()
        .filter(|s| masked && s.is_defective() && s.masks.is_empty());
    bare.map(|s| problem(&s.image, ProblemKind::MaskMissing, what))
        .collect()
}

/// Test images that equal a training image; `seen` is of the training and then the test images.
fn trained_on(data: &Dataset, seen: &[Seen]) -> Vec<Problem> {
    let (train, test) = seen.split_at(data.train.len());
    let readable = |s: &Seen| s.size.is_some();
    let trained: HashMap<u64, &Sample> = train
        .iter()
        .zip(&data.train)
        .filter(|(seen, _)| readable(seen))
        .map(|(seen, sample)| (seen.pixels, sample))
        .collect();
    let tested = test
        .iter()
        .zip(&data.test)
        .filter(|(seen, _)| readable(seen));
    tested
        .filter_map(|(seen, sample)| {
            let twin = trained.get(&seen.pixels)?.name(&data.root);
            let what = format!("has the same pixels as the training image {twin}");
            Some(problem(&sample.image, ProblemKind::TrainedOn, &what))
        })
        .collect()
}

fn without_a_role(data: &Dataset, places: &[PathBuf]) -> Result<Vec<Problem>> {
    // The other classes' images are there for the other data sets.
    if data.train.iter().any(|s| s.record.is_some()) || cifar10::is_here(&data.root) {
        return Ok(Vec::new());
    }
    let samples = data.train.iter().chain(&data.test);
    let inside = |path: &PathBuf| layout::inside(&data.root, path).to_path_buf();
    let used: HashSet<PathBuf> = samples
        .flat_map(|s| std::iter::once(&s.image).chain(&s.masks))
        .map(inside)
        .collect();
    let mut folders: BTreeMap<PathBuf, (Vec<PathBuf>, bool)> = BTreeMap::new();
    let (mut files, mut unread) = (BTreeSet::new(), Unread::default());
    for place in places {
        let (found, more) = survey(place)?;
        files.extend(found);
        unread.add(more);
    }
    for file in files {
        let folder = file.parent().unwrap_or(&data.root).to_path_buf();
        let (unused, some_used) = folders.entry(folder).or_default();
        match used.contains(&inside(&file)) {
            true => *some_used = true,
            false => unused.push(file),
        }
    }
    let lost = |path: &PathBuf| problem(path, ProblemKind::Lost, "a photo that is not there");
    let mut problems: Vec<Problem> = unread.lost_photos().iter().map(lost).collect();
    for (folder, (unused, some_used)) in folders {
        // A folder that is left out whole is one thing to know, not a thousand.
        if !some_used && unused.len() > 1 && folder != data.root {
            let count = unused.len();
            let (kind, what) = match folder::is_mask(&data.root, &unused[0]) {
                true => (ProblemKind::MaskOrphan, "masks that belong to no photo"),
                false => (
                    ProblemKind::Unused,
                    "images that are neither trained nor tested on",
                ),
            };
            problems.push(problem(&folder, kind, &format!("{count} {what}")));
        } else {
            problems.extend(unused.iter().map(|file| tell_unused(data, file)));
        }
    }
    Ok(problems)
}

fn tell_unused(data: &Dataset, file: &Path) -> Problem {
    let (kind, what) = match folder::is_mask(&data.root, file) {
        true => (
            ProblemKind::MaskOrphan,
            "a mask that belongs to no defective image",
        ),
        false => (
            ProblemKind::Unused,
            "an image that is neither trained nor tested on",
        ),
    };
    problem(file, kind, what)
}

fn classes(data: &Dataset) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for class in data.test.iter().filter_map(|s| s.defect.clone()) {
        *counts.entry(class).or_insert(0) += 1;
    }
    counts
}

fn sizes(seen: &[Seen]) -> Vec<SizeCount> {
    let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for size in seen.iter().filter_map(|s| s.size) {
        *counts.entry(size).or_insert(0) += 1;
    }
    let mut sizes: Vec<SizeCount> = counts
        .into_iter()
        .map(|((width, height), images)| SizeCount {
            width,
            height,
            images,
        })
        .collect();
    sizes.sort_by_key(|s| std::cmp::Reverse(s.images));
    sizes
}
