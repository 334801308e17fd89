//! What photos are of which no folder says it: by their masks, by their names, by the folders beside; or it is not certain.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::super::layout;
use super::super::masks::{marks, stem};
use super::super::roles::{Kind, Label, Said, Split, one_kind};
use super::photo::{Photo, Role, name};
use super::unclear::{unclear, unclear_names};
use crate::Result;

/// A defect's class where nothing names one.
pub(in crate::datasets) const DEFECT: &str = "defect";

/// Gives every photo a role.
///
/// # Errors
/// [`Error::Roles`](crate::Error::Roles) where it is not certain.
pub(super) fn decide(root: &Path, photos: &mut Vec<Photo>, masks: &[PathBuf]) -> Result<()> {
    if photos.iter().any(|p| p.role == Some(Role::Unsure)) {
        let why = "names contradict themselves or say that nobody knows, so that it is not certain which photos are good";
        return Err(unclear(root, photos, masks, why));
    }
    by_masks(root, photos, masks)?;
    by_names(root, photos)?;
    by_folders(root, photos, masks)
}

/// Whether there are photos to train on that a folder calls good.
pub(super) fn some_called_good(photos: &[Photo]) -> bool {
    let good = |p: &Photo| p.role == Some(Role::Normal) && p.split != Some(Split::Test);
    photos.iter().any(good)
}

/// What a mask marks is a defect, whatever else is said; an empty one, where every photo has one, means a good photo.
fn by_masks(root: &Path, photos: &mut Vec<Photo>, masks: &[PathBuf]) -> Result<()> {
    let look = |photo: &Photo| match &photo.role {
        Some(Role::Defective(_)) => Ok(false),
        _ => marks(&photo.masks),
    };
    let marked: Vec<bool> = photos.par_iter().map(look).collect::<Result<_>>()?;
    let mut both = photos.iter().zip(&marked);
    if let Some((photo, _)) = both.find(|(p, marked)| **marked && p.role == Some(Role::Normal)) {
        let why = format!(
            "{} lies among the good ones, and its mask {} marks a defect; it is not certain which is right",
            photo.place.display(),
            layout::inside(root, &photo.masks[0]).display()
        );
        return Err(unclear(root, photos, masks, &why));
    }
    if some_called_good(photos) {
        whole_folders(photos, &marked);
        return Ok(());
    }
    for test in [false, true] {
        let in_part = |p: &Photo| p.role.is_none() && (p.split == Some(Split::Test)) == test;
        let part = (0..photos.len()).filter(|&i| in_part(&photos[i]));
        let part: Vec<usize> = part.collect();
        each_by_its_own(root, photos, &part, &marked, masks)?;
    }
    leave_out(photos, &marked);
    Ok(())
}

/// Beside good ones, a folder with a mask that marks something is one of defects.
fn whole_folders(photos: &mut [Photo], marked: &[bool]) {
    let is_open = |photo: &Photo| photo.role.is_none() && photo.folder() != Path::new("");
    let both = photos.iter().zip(marked);
    let folders: BTreeSet<PathBuf> = both
        .filter(|(photo, marked)| **marked && is_open(photo))
        .map(|(photo, _)| photo.folder().to_path_buf())
        .collect();
    for photo in photos.iter_mut().filter(|photo| is_open(photo)) {
        if folders.contains(photo.folder()) {
            photo.role = Some(Role::Defective(name(photo.folder())));
        }
    }
}

/// Where nothing is called good, each photo of a part has a mask or none has one.
fn each_by_its_own(
    root: &Path,
    photos: &mut [Photo],
    part: &[usize],
    marked: &[bool],
    masks: &[PathBuf],
) -> Result<()> {
    let masked = part.iter().filter(|&&i| !photos[i].masks.is_empty());
    let masked = masked.count();
    if masked == 0 {
        return Ok(());
    }
    if masked < part.len() {
        let without = part.len() - masked;
        let why = format!(
            "{masked} photos have a mask and {without} have none, and it is not certain whether those are good"
        );
        return Err(unclear(root, photos, masks, &why));
    }
    let classes = classes(photos, part);
    for &i in part {
        photos[i].role = Some(match marked[i] {
            true => Role::Defective(classes[&i].clone()),
            false => Role::Normal,
        });
    }
    Ok(())
}

/// Defects by the folders that photos lie in, where those differ and are not merely numbered.
fn classes(photos: &[Photo], part: &[usize]) -> HashMap<usize, String> {
    let class = |photo: &Photo| {
        let folders = photo.folder().ancestors().map(name);
        let mut named = folders.filter(|n| {
            let said = Said::of(n);
            said.kind == Kind::Other
                && said.split.is_none()
                && !n.ends_with(|c: char| c.is_ascii_digit())
        });
        named.next()
    };
    let named: Vec<Option<String>> = part.iter().map(|&i| class(&photos[i])).collect();
    let several = named.iter().collect::<BTreeSet<_>>().len() > 1;
    let chosen = named.into_iter().map(|n| n.filter(|_| several));
    let chosen = chosen.map(|name| name.unwrap_or_else(|| DEFECT.to_string()));
    part.iter().copied().zip(chosen).collect()
}

/// Where the part for tests has defects of its own, those that lie in the part for training are for neither.
fn leave_out(photos: &mut Vec<Photo>, marked: &[bool]) {
    let defective = |p: &Photo| matches!(p.role, Some(Role::Defective(_)));
    if !photos
        .iter()
        .any(|p| p.split == Some(Split::Test) && defective(p))
    {
        return;
    }
    let mut marked = marked.iter();
    photos.retain(|photo| {
        let marked = marked.next().is_some_and(|marked| *marked);
        !(marked && photo.split == Some(Split::Train))
    });
}

/// `good_01.png` and `bad_01.png` in one folder.
fn by_names(root: &Path, photos: &mut [Photo]) -> Result<()> {
    let said = photos.iter().map(|p| Said::of(&stem(&p.place)).label);
    let said: Vec<Option<Label>> = said.collect();
    let both = photos.iter().zip(&said);
    let mut bad = both.filter(|(_, said)| **said == Some(Label::Defective));
    if let Some((photo, _)) = bad.find(|(p, _)| p.role == Some(Role::Normal)) {
        let file = photo.place.display();
        let why = format!(
            "{file} lies among the good ones and is called defective; it is not certain which is right"
        );
        let names: (&[&Photo], &[&Photo]) = (&[], &[photo]);
        return Err(unclear_names(root, photos, photo.folder(), names, &why));
    }
    let mut folders: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for i in (0..photos.len()).filter(|&i| photos[i].role.is_none()) {
        let folder = photos[i].folder().to_path_buf();
        folders.entry(folder).or_default().push(i);
    }
    for (folder, inside) in folders {
        names_of(root, photos, (&folder, &inside), &said)?;
    }
    Ok(())
}

/// Names tell either all photos of a folder or none.
fn names_of(
    root: &Path,
    photos: &mut [Photo],
    (folder, inside): (&Path, &[usize]),
    said: &[Option<Label>],
) -> Result<()> {
    let of = |label: Label| -> Vec<usize> {
        let these = inside.iter().filter(|&&i| said[i] == Some(label));
        these.copied().collect()
    };
    let (good, defective) = (of(Label::Normal), of(Label::Defective));
    let told = good.len() + defective.len();
    if told > 0 && told < inside.len() {
        let place = match folder.as_os_str().is_empty() {
            true => "it".to_string(),
            false => folder.display().to_string(),
        };
        let why = format!(
            "of {} photos in {place} {} are called good and {} defective by their names, and of the others it is not certain",
            inside.len(),
            good.len(),
            defective.len()
        );
        let pick = |these: &[usize]| these.iter().map(|&i| &photos[i]).collect::<Vec<_>>();
        let (good, bad) = (pick(&good), pick(&defective));
        return Err(unclear_names(root, photos, folder, (&good, &bad), &why));
    }
    for i in good {
        photos[i].role = Some(Role::Normal);
    }
    for i in defective {
        let stem = stem(&photos[i].place);
        let class = stem.trim_end_matches(|c: char| !c.is_alphabetic());
        photos[i].role = Some(Role::Defective(class.to_string()));
    }
    Ok(())
}

/// A flat folder, or folders that hold more of the same, are good photos; anything else is not certain.
fn by_folders(root: &Path, photos: &mut [Photo], masks: &[PathBuf]) -> Result<()> {
    let open = |p: &&Photo| p.role.is_none();
    if !photos.iter().any(|p| p.role.is_none()) {
        return Ok(());
    }
    let stop = |why: &str| Err(unclear(root, photos, masks, why));
    if photos
        .iter()
        .filter(open)
        .any(|p| p.split == Some(Split::Test))
    {
        return stop(
            "a test photo needs a label: put it into test/good or test/<name of the defect>, or say where the good ones are",
        );
    }
    if some_called_good(photos) {
        return stop(
            "some folders are called good, and of the others it is not certain what they hold",
        );
    }
    let nothing_said = |p: &Photo| p.role.is_none() && p.masks.is_empty();
    if !masks.is_empty() && photos.iter().all(nothing_said) {
        let why = "there are masks, which by their names belong to no photo, so that it is not certain which photos are good";
        return Err(unclear(root, photos, &[], why));
    }
    let folders: BTreeSet<&Path> = photos.iter().filter(open).map(Photo::folder).collect();
    if !uniform(&folders) {
        return stop(
            "several folders hold photos, and it is not certain which are of good products (if all are, name the whole folder)",
        );
    }
    let bad =
        |p: &Photo| matches!(p.role, Some(Role::Defective(_))) && p.split != Some(Split::Test);
    let parts = folders.iter().flat_map(|folder| folder.ancestors());
    let plain = parts
        .map(name)
        .all(|n| n.is_empty() || Said::of(&n).kind != Kind::Other);
    if photos.iter().any(bad) && !plain {
        return stop(
            "some photos are called defective, and of the others it is not certain that they are good",
        );
    }
    let title = Said::of(&layout::folder_name(root));
    if photos.iter().all(|p| p.role.is_none())
        && title.certain
        && title.label == Some(Label::Defective)
    {
        return stop("the folder is called as if its photos were defective");
    }
    for photo in photos.iter_mut().filter(|p| p.role.is_none()) {
        photo.role = Some(Role::Normal);
    }
    Ok(())
}

/// Whether folders that branch do so by dates, lots, cameras and the like.
fn uniform(folders: &BTreeSet<&Path>) -> bool {
    let mut children: BTreeMap<&Path, BTreeSet<String>> = BTreeMap::new();
    for folder in folders {
        for part in folder.ancestors() {
            if let Some(parent) = part.parent() {
                children.entry(parent).or_default().insert(name(part));
            }
        }
    }
    children.iter().all(|(parent, names)| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let alone = names.len() == 1 && !folders.contains(parent);
        alone || one_kind(&names)
    })
}
