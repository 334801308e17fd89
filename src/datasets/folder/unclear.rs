//! What is said where it is not certain which photos are good: what was found, and how to say it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::super::layout;
use super::super::roles::{Label, Said, Split};
use super::photo::{Photo, Role};
use crate::{Error, RoleOf};

/// Folders that are named one by one.
const FOLDERS: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    Normal,
    NormalTest,
    Abnormal,
    Open,
}

/// An error that lists the folders with their photos and guesses what they are.
pub(super) fn unclear(root: &Path, photos: &[Photo], masks: &[PathBuf], why: &str) -> Error {
    let whole: BTreeSet<&Path> = photos.iter().map(Photo::folder).collect();
    let deep = whole.len() <= FOLDERS;
    let mut found: BTreeMap<PathBuf, (Bucket, usize)> = BTreeMap::new();
    for photo in photos {
        let first = photo.folder().components().next();
        let folder = match deep {
            true => photo.folder().to_path_buf(),
            false => first.map_or(PathBuf::new(), |first| first.as_os_str().into()),
        };
        let bucket = bucket(photo);
        let entry = found.entry(folder).or_insert((bucket, 0));
        entry.1 += 1;
        if entry.0 != bucket {
            entry.0 = Bucket::Open;
        }
    }
    let listed = found
        .iter()
        .take(2 * FOLDERS)
        .map(|(folder, (bucket, count))| {
            let name = match folder.as_os_str().is_empty() {
                true => "the folder itself".to_string(),
                false => layout::relative(Path::new(""), folder),
            };
            let called = match bucket {
                Bucket::Normal | Bucket::NormalTest => ", good",
                Bucket::Abnormal => ", defective",
                Bucket::Open => "",
            };
            format!("{name} ({count} {}{called})", photos_word(*count))
        });
    let listed = listed.collect::<Vec<_>>().join(", ");
    let more = match found.len().saturating_sub(2 * FOLDERS) {
        0 => String::new(),
        more => format!(" and {more} more folders"),
    };
    Error::Roles {
        path: root.to_path_buf(),
        reason: format!("{why}: {listed}{more}"),
        guess: guess(root, &found, masks),
    }
}

/// An error about a folder of nothing but defects.
pub(super) fn no_good(root: &Path, photos: &[Photo], masks: &[PathBuf]) -> Error {
    let mut error = unclear(root, photos, masks, "holds no normal images to train on");
    if let Error::Roles { guess, .. } = &mut error {
        let paths = vec![PathBuf::from("FOLDER_OF_GOOD_PHOTOS")];
        let field = "normal";
        guess.insert(0, RoleOf { field, paths });
    }
    error
}

/// An error about photos of one folder of which names tell some: `good` ones and `bad` ones.
pub(super) fn unclear_names(
    root: &Path,
    photos: &[Photo],
    folder: &Path,
    (good, bad): (&[&Photo], &[&Photo]),
    why: &str,
) -> Error {
    let here = full(root, folder);
    let patterns = |photos: &[&Photo]| -> Vec<PathBuf> {
        let mut patterns: Vec<PathBuf> = Vec::new();
        for photo in photos {
            let pattern = here.join(format!("*{}*", telling(photo)));
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        patterns
    };
    let (good, bad) = (patterns(good), patterns(bad));
    let elsewhere = photos
        .iter()
        .filter(|p| matches!(bucket(p), Bucket::Normal | Bucket::Open));
    let elsewhere = elsewhere.filter(|p| p.split != Some(Split::Test) && p.folder() != folder);
    let elsewhere: BTreeSet<PathBuf> = elsewhere.map(|p| full(root, p.folder())).collect();
    let inside = photos.iter().find(|p| p.folder() == folder);
    let tested = inside.is_some_and(|p| p.split == Some(Split::Test)) && !elsewhere.is_empty();
    let fields = if tested {
        let normal = elsewhere.into_iter().collect();
        [
            ("normal", normal),
            ("abnormal", vec![here.clone()]),
            ("normal_test", good),
        ]
    } else {
        [
            ("normal", vec![here.clone()]),
            ("abnormal", bad),
            ("normal_test", Vec::new()),
        ]
    };
    let said = fields.into_iter().filter(|(_, paths)| !paths.is_empty());
    Error::Roles {
        path: root.to_path_buf(),
        reason: why.to_string(),
        guess: said.map(|(field, paths)| RoleOf { field, paths }).collect(),
    }
}

/// The part of a photo's name that says what it is.
fn telling(photo: &Photo) -> String {
    let stem = super::super::masks::stem(&photo.place);
    let mut parts = stem.split(|c: char| !c.is_alphanumeric());
    let said = Said::of(&stem).label;
    let part = parts
        .find(|part| said == Said::of(part).label)
        .unwrap_or(&stem);
    let rest = part.trim_end_matches(|c: char| !c.is_alphabetic());
    if rest.is_empty() { part } else { rest }.to_string()
}

fn bucket(photo: &Photo) -> Bucket {
    match (&photo.role, photo.split) {
        (Some(Role::Normal), Some(Split::Test)) => Bucket::NormalTest,
        (Some(Role::Normal), _) => Bucket::Normal,
        (Some(Role::Defective(_)), _) => Bucket::Abnormal,
        _ => Bucket::Open,
    }
}

/// Where some are called good, the others are guessed not to be; else the largest folder is guessed to be good.
fn guess(
    root: &Path,
    found: &BTreeMap<PathBuf, (Bucket, usize)>,
    masks: &[PathBuf],
) -> Vec<RoleOf> {
    let of = |bucket: Bucket| -> Vec<PathBuf> {
        let these = found.iter().filter(|(_, (b, _))| *b == bucket);
        these.map(|(folder, _)| full(root, folder)).collect()
    };
    let (mut normal, mut abnormal) = (of(Bucket::Normal), of(Bucket::Abnormal));
    let mut open = of(Bucket::Open);
    if normal.is_empty() {
        let open_ones = found
            .iter()
            .filter(|(_, (bucket, _))| *bucket == Bucket::Open);
        // Of equals the first.
        let largest = open_ones.rev().max_by_key(|(_, (_, count))| *count);
        if let Some((folder, _)) = largest {
            let folder = full(root, folder);
            open.retain(|other| *other != folder);
            normal.push(folder);
        }
    }
    abnormal.append(&mut open);
    abnormal.sort();
    let fields = [
        ("normal", normal),
        ("abnormal", abnormal),
        ("masks", mask_folders(root, masks)),
        ("normal_test", of(Bucket::NormalTest)),
    ];
    let said = fields.into_iter().filter(|(_, paths)| !paths.is_empty());
    said.map(|(field, paths)| RoleOf { field, paths }).collect()
}

/// The folders that masks lie in, by their topmost that is called so.
fn mask_folders(root: &Path, masks: &[PathBuf]) -> Vec<PathBuf> {
    let folder = |mask: &PathBuf| -> Option<PathBuf> {
        let place = layout::inside(root, mask).parent()?;
        let mut ancestors: Vec<&Path> = place.ancestors().collect();
        ancestors.reverse();
        let is_masks = |part: &&Path| {
            let said = Said::of(&super::photo::name(part));
            matches!(said.label, Some(Label::Mask | Label::MaybeMask))
        };
        Some(full(root, ancestors.into_iter().find(is_masks)?))
    };
    let folders: BTreeSet<PathBuf> = masks.iter().filter_map(folder).collect();
    folders.into_iter().collect()
}

fn full(root: &Path, folder: &Path) -> PathBuf {
    match folder.as_os_str().is_empty() {
        true => root.to_path_buf(),
        false => root.join(folder),
    }
}

fn photos_word(count: usize) -> &'static str {
    if count == 1 { "photo" } else { "photos" }
}
