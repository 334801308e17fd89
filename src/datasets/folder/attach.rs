//! Gives photos their masks. The two lie in different folders, so that their paths are compared without the folders' names
//! that only say what kind of file it is.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::super::layout;
use super::super::masks::{Masks, bare, stem};
use super::super::roles::{Kind, Label};
use super::photo::{Photo, Places, Role, name};

/// How much of a path is left out before two are compared: the folder of masks, those that say nothing, splits, labels but
/// for the innermost (`bad/crack/1.png`, `masks/crack/1.png`), all labels.
const LEVELS: u8 = 5;
/// Up to here a photo in a folder of good ones may have a mask: beyond it names such as `000` repeat by chance.
const LEVELS_OF_GOOD: u8 = 3;

pub(super) fn attach(root: &Path, masks: &[PathBuf], photos: &mut [Photo], places: &Places) {
    let mut used: HashSet<PathBuf> = HashSet::new();
    for level in 0..LEVELS {
        // A defective photo comes first, then those that nothing is said of.
        for turn in 0..3 {
            if turn == 2 && level >= LEVELS_OF_GOOD {
                continue;
            }
            let free = masks.iter().filter(|mask| !used.contains(*mask));
            let keyed = free.map(|mask| {
                (
                    place(layout::inside(root, mask), level, places),
                    mask.clone(),
                )
            });
            let keyed = Masks::new(keyed);
            let key = |photo: &Photo| place(&photo.place, level, places);
            let open = |photo: &Photo| photo.masks.is_empty() && self::turn(photo) == turn;
            let mut wanted: HashMap<PathBuf, usize> = HashMap::new();
            for photo in photos.iter().filter(|photo| open(photo)) {
                *wanted.entry(key(photo)).or_default() += 1;
            }
            for photo in photos.iter_mut().filter(|photo| open(photo)) {
                // What two photos could have is neither's.
                let key = key(photo);
                if level == 0 || wanted[&key] == 1 {
                    photo.masks = keyed.of(&key);
                    used.extend(photo.masks.iter().cloned());
                }
            }
        }
    }
    for key in [by_stem, by_number] {
        unique(masks, photos, &mut used, key);
    }
}

fn turn(photo: &Photo) -> usize {
    match photo.role {
        Some(Role::Defective(_)) => 0,
        Some(Role::Normal) => 2,
        _ => 1,
    }
}

fn place(path: &Path, level: u8, places: &Places) -> PathBuf {
    let folders = path.parent().unwrap_or(Path::new(""));
    let mut kept: Vec<&Path> = folders
        .ancestors()
        .filter(|p| *p != Path::new(""))
        .collect();
    kept.reverse();
    let is_label = |folder: &&&Path| {
        let said = places.said(&name(folder));
        matches!(said.label, Some(Label::Normal | Label::Defective)) && said.certain
    };
    let innermost = kept.iter().rfind(is_label).copied();
    let told = |folder: &&Path| {
        let said = places.said(&name(folder));
        match said.label {
            Some(Label::Mask | Label::MaybeMask) => false,
            Some(Label::Normal | Label::Defective) if said.certain => {
                level < 3 || level == 3 && innermost == Some(*folder)
            }
            _ if said.split.is_some() => level < 2,
            _ => level < 1 || said.kind != Kind::Neutral,
        }
    };
    let names = kept.iter().copied().filter(told).map(name);
    let names: PathBuf = names.collect();
    names.join(path.file_name().unwrap_or_default())
}

fn by_stem(path: &Path) -> Option<String> {
    let stem = stem(path);
    Some(
        bare(&stem)
            .map_or(stem.as_str(), |(bare, _)| bare)
            .to_lowercase(),
    )
}

/// `image90` and `mask90`.
fn by_number(path: &Path) -> Option<String> {
    let stem = stem(path);
    let digits = stem.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    number.then(|| digits.to_string())
}

/// Pairs what is left over by a key that no other mask and no other photo has; not of good photos.
fn unique(
    masks: &[PathBuf],
    photos: &mut [Photo],
    used: &mut HashSet<PathBuf>,
    key: fn(&Path) -> Option<String>,
) {
    let mut free: HashMap<String, Vec<&PathBuf>> = HashMap::new();
    for mask in masks.iter().filter(|mask| !used.contains(*mask)) {
        if let Some(key) = key(mask) {
            free.entry(key).or_default().push(mask);
        }
    }
    let open = |photo: &Photo| photo.masks.is_empty() && photo.role != Some(Role::Normal);
    let mut wanted: HashMap<String, usize> = HashMap::new();
    for photo in photos.iter().filter(|p| open(p)) {
        if let Some(key) = key(&photo.file) {
            *wanted.entry(key).or_default() += 1;
        }
    }
    for photo in photos.iter_mut().filter(|p| open(p)) {
        let Some(key) = key(&photo.file).filter(|key| wanted[key] == 1) else {
            continue;
        };
        if let Some([mask]) = free.get(&key).map(Vec::as_slice) {
            photo.masks = vec![(*mask).clone()];
            used.insert((*mask).clone());
        }
    }
}
