//! A user's own folder, read by the names of its sub-folders, the looks of its masks and the names of its files (the rules
//! are at [`super::open`] and in docs/data.md).

mod attach;
mod beside;
mod decide;
mod photo;
mod unclear;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

pub(super) use beside::masks_beside;
pub(super) use decide::DEFECT;
pub(super) use photo::{Photo, Role};

use super::masks::{bare, looks_like_mask, stem};
use super::roles::{Label, Said, Split};
use super::{Dataset, MIN_NORMALS, Sample, layout};
use crate::imaging::list_images;
use crate::{Error, Result, RoleOf};
use photo::{Place, Places};

/// Every fifth normal image is tested on where the folder names no normal test images.
const HELD_BACK: usize = 5;
/// Files of a folder that is perhaps one of masks that are looked at.
const LOOKS: usize = 8;

pub(super) fn open(dir: &Path) -> Result<Dataset> {
    let files = list_images(dir)?;
    if files.is_empty() {
        let nothing = "holds no PNG, JPEG, BMP, TIFF or WebP image";
        return Err(layout::fault(dir, nothing));
    }
    let (mut photos, masks) = read(dir, files);
    if photos.is_empty() {
        return Err(only_masks(dir));
    }
    decide::decide(dir, &mut photos, &masks)?;
    if !decide::some_called_good(&photos) {
        return Err(unclear::no_good(dir, &photos, &masks));
    }
    Ok(assemble(dir, layout::folder_name(dir), photos))
}

/// Tells photos from masks, and gives photos the roles that their folders name, and their masks.
fn read(dir: &Path, files: Vec<PathBuf>) -> (Vec<Photo>, Vec<PathBuf>) {
    let folder = |file: &PathBuf| -> PathBuf {
        let inside = layout::inside(dir, file);
        inside.parent().unwrap_or(Path::new("")).to_path_buf()
    };
    let mut by_folder: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for file in &files {
        by_folder
            .entry(folder(file))
            .or_default()
            .push(file.clone());
    }
    let places = Places::new(by_folder.keys().map(PathBuf::as_path));
    let placed: BTreeMap<PathBuf, Place> = by_folder
        .iter()
        .map(|(folder, files)| (folder.clone(), confirmed(places.read(folder), files)))
        .collect();
    let is_mask = |file: &PathBuf| placed[&folder(file)].mask.is_some();
    let (mut masks, rest): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(is_mask);
    let beside = masks_beside(&rest.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let mut photos = Vec::new();
    for file in rest {
        if beside.masks.contains(&file) {
            masks.push(file);
            continue;
        }
        let place = &placed[&folder(&file)];
        let doubtful = beside.doubtful.contains(&file);
        photos.push(Photo {
            place: layout::inside(dir, &file).to_path_buf(),
            split: place.split,
            role: if doubtful {
                Some(Role::Unsure)
            } else {
                place.role.clone()
            },
            masks: Vec::new(),
            file,
        });
    }
    masks.sort();
    attach::attach(dir, &masks, &mut photos, &places);
    (photos, masks)
}

/// A folder called `label` or so is one of masks where they look like masks.
fn confirmed(mut place: Place, files: &[PathBuf]) -> Place {
    if place.mask == Some(Label::MaybeMask) {
        let step = files.len().div_ceil(LOOKS).max(1);
        let masks = files.iter().step_by(step).all(|f| looks_like_mask(f));
        place.mask = masks.then_some(Label::Mask);
    }
    place
}

fn only_masks(dir: &Path) -> Error {
    let paths = vec![dir.to_path_buf()];
    Error::Roles {
        path: dir.to_path_buf(),
        reason: "all photos lie where masks do, or are called as masks are".into(),
        guess: vec![RoleOf {
            field: "normal",
            paths,
        }],
    }
}

/// Gives photos of which the user said what they are their masks.
pub(super) fn attach_masks(root: &Path, masks: &[PathBuf], photos: &mut [Photo]) {
    let folders: BTreeSet<PathBuf> = photos.iter().map(|p| p.folder().to_path_buf()).collect();
    let places = Places::new(folders.iter().map(PathBuf::as_path));
    attach::attach(root, masks, photos, &places);
}

/// Photos that all have a role as a data set.
pub(super) fn assemble(root: &Path, name: String, photos: Vec<Photo>) -> Dataset {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for photo in photos {
        match photo.role {
            Some(Role::Normal) => {
                let part = match photo.split {
                    Some(Split::Test) => &mut test,
                    _ => &mut train,
                };
                let masks = photo.masks;
                part.push(Sample {
                    masks,
                    ..Sample::normal(photo.file)
                });
            }
            Some(Role::Defective(class)) => {
                test.push(Sample::defective(photo.file, &class, photo.masks));
            }
            _ => {}
        }
    }
    if test.iter().any(Sample::is_defective) && test.iter().all(Sample::is_defective) {
        hold_back(&mut train, &mut test);
    }
    Dataset {
        root: root.to_path_buf(),
        name,
        train,
        test,
    }
}

/// Whether a file is a mask by its own or a folder's name.
pub(super) fn is_mask(dir: &Path, file: &Path) -> bool {
    let place = layout::inside(dir, file);
    let folders = place.parent().into_iter().flat_map(Path::ancestors);
    let mut names = folders.map(photo::name);
    let masks =
        |name: &String| matches!(Said::of(name).label, Some(Label::Mask | Label::MaybeMask));
    bare(&stem(file)).is_some() || names.any(|name| masks(&name))
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

/// The outermost folder on a file's way that is called defective.
pub(super) fn called_bad(file: &Path) -> Option<String> {
    let folders = file.ancestors().skip(1).map(photo::name);
    let bad = folders.filter(|name| Said::of(name).label == Some(Label::Defective));
    bad.last()
}

/// A folder called defective inside an entry that was said to be good, unless it (or its files) were named themselves.
pub(super) fn unnamed_bad(
    entry: &Path,
    files: &[PathBuf],
    named: &HashSet<PathBuf>,
) -> Option<PathBuf> {
    let entry = entry.strip_prefix(".").unwrap_or(entry);
    let files = files.iter().filter(|file| !named.contains(*file));
    let folders: BTreeSet<&Path> = files.filter_map(|f| f.parent()).collect();
    let called_bad = |part: &Path| Said::of(&photo::name(part)).label == Some(Label::Defective);
    for folder in folders {
        let inside: Vec<&Path> = folder
            .ancestors()
            .take_while(|part| *part != entry)
            .collect();
        if inside.iter().any(|part| named.contains(*part)) {
            continue;
        }
        if let Some(bad) = inside.into_iter().rev().find(|part| called_bad(part)) {
            return Some(bad.to_path_buf());
        }
    }
    None
}
