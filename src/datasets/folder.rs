//! A user's own folder, read by the names of its sub-folders (the rules are at [`super::open`]).

use std::path::{Path, PathBuf};

use super::layout::{self, Masks};
use super::{Dataset, MIN_NORMALS, Sample};
use crate::Result;
use crate::imaging::list_images;

const NORMAL: [&str; 4] = ["good", "normal", "normals", "ok"];
const DEFECTIVE: [&str; 13] = [
    "bad",
    "defect",
    "defects",
    "defective",
    "ng",
    "nok",
    "ko",
    "anomaly",
    "anomalies",
    "anomalous",
    "abnormal",
    "faulty",
    "reject",
];
const TEST: [&str; 2] = ["test", "testing"];
const TRAIN: [&str; 2] = ["train", "training"];
const MASK: [&str; 6] = [
    "mask",
    "masks",
    "ground_truth",
    "ground-truth",
    "groundtruth",
    "gt",
];

/// Every fifth normal image is tested on where the folder names no normal test images.
const HELD_BACK: usize = 5;

/// What an image's place says about it.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    Mask,
    Normal {
        test: bool,
    },
    Defective {
        class: String,
    },
    /// In a test folder, but not in a folder that says whether it is good.
    Unlabelled,
}

pub(super) fn open(dir: &Path) -> Result<Dataset> {
    let files = list_images(dir)?;
    if files.is_empty() {
        return Err(layout::fault(
            dir,
            "holds no PNG, JPEG, BMP, TIFF or WebP image",
        ));
    }
    let (mut masks, mut train, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        match role(layout::inside(dir, &file)) {
            Role::Mask => masks.push(file),
            Role::Normal { test: false } => train.push(Sample::normal(file)),
            Role::Normal { test: true } => test.push(Sample::normal(file)),
            Role::Defective { class } => test.push(Sample::defective(file, &class, None)),
            Role::Unlabelled => {
                return Err(layout::fault(
                    &file,
                    "a test image needs a label: put it into test/good or test/<name of the defect>",
                ));
            }
        }
    }
    attach(dir, masks, &mut test);
    if test.iter().any(Sample::is_defective) && test.iter().all(Sample::is_defective) {
        hold_back(&mut train, &mut test);
    }
    Ok(Dataset {
        root: dir.to_path_buf(),
        name: layout::folder_name(dir),
        train,
        test,
    })
}

fn role(relative: &Path) -> Role {
    let folders: Vec<String> = relative
        .parent()
        .into_iter()
        .flat_map(Path::components)
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
        .collect();
    let at = |names: &[&str]| {
        folders
            .iter()
            .position(|f| names.iter().any(|n| f.eq_ignore_ascii_case(n)))
    };
    if at(&MASK).is_some() {
        return Role::Mask;
    }
    let test = at(&TEST);
    match (at(&DEFECTIVE), at(&NORMAL), test) {
        (Some(bad), _, _) => Role::Defective {
            class: folders.get(bad + 1).unwrap_or(&folders[bad]).clone(),
        },
        (None, Some(_), _) => Role::Normal {
            test: test.is_some(),
        },
        (None, None, Some(test)) => match folders.get(test + 1) {
            Some(class) => Role::Defective {
                class: class.clone(),
            },
            None => Role::Unlabelled,
        },
        (None, None, None) => Role::Normal { test: false },
    }
}

/// Whether a file lies in a folder of masks.
pub(super) fn is_mask(dir: &Path, file: &Path) -> bool {
    role(layout::inside(dir, file)) == Role::Mask
}

/// Gives every defective image its mask. The two lie in different folders, so their paths are compared
/// without the folders' names that only say what kind of file it is.
fn attach(dir: &Path, masks: Vec<PathBuf>, test: &mut [Sample]) {
    let place = |file: &Path| bare(layout::inside(dir, file));
    let masks = Masks::new(masks.into_iter().map(|m| (place(&m), m)));
    for sample in test.iter_mut().filter(|s| s.is_defective()) {
        sample.mask = masks.of(&place(&sample.image));
    }
}

/// A path without the folders that name a split, a label or masks.
fn bare(relative: &Path) -> PathBuf {
    let kind = |name: &str| {
        [&MASK[..], &TEST, &TRAIN, &NORMAL, &DEFECTIVE]
            .concat()
            .iter()
            .any(|k| name.eq_ignore_ascii_case(k))
    };
    let folders = relative.parent().into_iter().flat_map(Path::components);
    let kept: PathBuf = folders
        .filter(|c| !kind(&c.as_os_str().to_string_lossy()))
        .collect();
    kept.join(relative.file_name().unwrap_or_default())
}

fn hold_back(train: &mut Vec<Sample>, test: &mut Vec<Sample>) {
    let held = train.len() / HELD_BACK;
    if train.len() < MIN_NORMALS + held {
        return;
    }
    let mut index = 0;
    let chosen = train.extract_if(.., |_| {
        index += 1;
        index % HELD_BACK == 0
    });
    test.splice(0..0, chosen);
}
