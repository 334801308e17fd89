//! Which files beside photos are masks: by their names and, where those are not enough, by their looks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::super::masks::{bare, looks_like_mask, stem};
use super::super::roles::Label;
use crate::imaging;

/// Files that are looked at before all are.
const LOOKS: usize = 8;
/// Folders up to which each is looked at.
const FOLDERS: usize = 200;

/// What was found.
#[derive(Default)]
pub(in crate::datasets) struct Beside {
    pub masks: HashSet<PathBuf>,
    /// Called masks, though they do not look like any.
    pub doubtful: HashSet<PathBuf>,
}

/// Looks for masks among files that lie in no folder of masks.
pub(in crate::datasets) fn masks_beside(files: &[&Path]) -> Beside {
    let mut folders: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for file in files {
        let folder = file.parent().unwrap_or(Path::new(""));
        folders.entry(folder).or_default().push(file);
    }
    let mut found = Beside::default();
    for files in folders.values() {
        by_name(files, &mut found);
        let rest = files.iter().filter(|f| !found.masks.contains(**f));
        let rest: Vec<&Path> = rest.copied().collect();
        found.masks.extend(by_looks(&rest));
    }
    if folders.len() <= FOLDERS {
        whole_folders(&folders, &mut found);
    }
    found
}

fn by_name(files: &[&Path], found: &mut Beside) {
    let stems: HashSet<String> = files.iter().map(|f| stem(f).to_lowercase()).collect();
    let judge = |file: &&Path| {
        let stem = stem(file);
        let (photo, label) = bare(&stem)?;
        let beside = stems.contains(&photo.to_lowercase());
        let mask = match (label, beside) {
            (Label::Mask, true) => true,
            (Label::Mask, false) => looks_like_mask(file),
            (_, true) => looks_like_mask(file),
            (_, false) => return None,
        };
        Some((file.to_path_buf(), mask, beside))
    };
    let judged: Vec<_> = files.par_iter().filter_map(judge).collect();
    for (file, mask, beside) in judged {
        if mask {
            found.masks.insert(file);
        } else if beside {
            found.doubtful.insert(file);
        }
    }
}

/// Files whose names go on where a photo's ends (`12.png`, `12_x.png`), or differ in the extension alone, and that look like
/// masks.
fn by_looks(files: &[&Path]) -> Vec<PathBuf> {
    let mut by_stem: HashMap<String, Vec<&Path>> = HashMap::new();
    for file in files {
        by_stem
            .entry(stem(file).to_lowercase())
            .or_default()
            .push(file);
    }
    let partner = |file: &&Path| -> Option<PathBuf> {
        let stem = stem(file).to_lowercase();
        if let Some(other) = by_stem[&stem].iter().find(|other| *other != file) {
            return Some(other.to_path_buf());
        }
        let ends = stem.match_indices(|c: char| !c.is_alphanumeric());
        let mut shorter = ends.filter_map(|(end, _)| by_stem.get(&stem[..end]));
        shorter.next().map(|photos| photos[0].to_path_buf())
    };
    let pairs: Vec<(&Path, PathBuf)> = files
        .iter()
        .filter_map(|file| Some((*file, partner(file)?)))
        .collect();
    let is_mask = |(file, photo): &&(&Path, PathBuf)| {
        same_size(file, photo) && looks_like_mask(file) && !looks_like_mask(photo)
    };
    // Two of each step: photos and masks may take turns.
    let step = pairs.len().div_ceil(LOOKS).max(2);
    let mut some = pairs.iter().enumerate().filter(|(i, _)| i % step < 2);
    if !some.any(|(_, pair)| is_mask(&pair)) {
        return Vec::new();
    }
    let masks = pairs.par_iter().filter(is_mask);
    masks.map(|(file, _)| file.to_path_buf()).collect()
}

/// Folders whose files are called as another folder's are, and look like masks of those.
fn whole_folders(folders: &BTreeMap<&Path, Vec<&Path>>, found: &mut Beside) {
    let stems = |files: &[&Path]| -> HashMap<String, PathBuf> {
        let named = files.iter().map(|f| (stem(f), f.to_path_buf()));
        named.collect()
    };
    let photos: Vec<(&Path, HashMap<String, PathBuf>)> = folders
        .iter()
        .map(|(folder, files)| (*folder, stems(files)))
        .collect();
    for (folder, files) in folders {
        let Some(first) = files.first() else { continue };
        if found.masks.contains(*first) || !looks_like_mask(first) {
            continue;
        }
        let twin = photos.iter().find(|(other, named)| {
            let shared = files.iter().filter(|f| named.contains_key(&stem(f)));
            other != folder && 5 * shared.count() >= 4 * files.len()
        });
        let Some((_, named)) = twin else { continue };
        let step = files.len().div_ceil(LOOKS).max(1);
        let all = files.par_iter().step_by(step).all(|file| {
            let photo = named.get(&stem(file));
            photo.is_none_or(|photo| same_size(file, photo) && !looks_like_mask(photo))
                && looks_like_mask(file)
        });
        if all {
            found.masks.extend(files.iter().map(|f| f.to_path_buf()));
        }
    }
}

fn same_size(one: &Path, other: &Path) -> bool {
    match (imaging::dimensions(one), imaging::dimensions(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
