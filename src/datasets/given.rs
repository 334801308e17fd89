//! Which photos are what, said by somebody: in a file `dataset.toml` inside the folder, or by a program's flags.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::Dataset;
use super::folder::{self, DEFECT, Photo, Role};
use super::layout::{self, fault};
use super::masks::{Masks, marks};
use super::roles::Split;
use crate::imaging::{is_image_file, list_images};
use crate::{Error, Result, RoleOf};

/// The file's name.
pub(super) const FILE: &str = "dataset.toml";

/// Which photos are what. Each entry is a folder, a file, or a pattern of such (`lot_*/ok`).
///
/// Of two entries that a photo lies in, the deeper one counts. A photo with a mask that marks something is defective even
/// where its folder is said to be good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    /// Good photos to train on.
    #[serde(deserialize_with = "one_or_many")]
    pub normal: Vec<PathBuf>,
    /// Defective photos; a folder inside names a class.
    #[serde(deserialize_with = "one_or_many")]
    pub abnormal: Vec<PathBuf>,
    /// Masks, found by their photos' names.
    #[serde(deserialize_with = "one_or_many")]
    pub masks: Vec<PathBuf>,
    /// Good photos to test on.
    #[serde(deserialize_with = "one_or_many")]
    pub normal_test: Vec<PathBuf>,
    /// The data set's name, the folder's by default.
    pub name: Option<String>,
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Entry {
        One(PathBuf),
        Many(Vec<PathBuf>),
    }
    Ok(match Entry::deserialize(from)? {
        Entry::One(path) => vec![path],
        Entry::Many(paths) => paths,
    })
}

impl Roles {
    /// Whether nothing is said of photos.
    pub fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, entries)| entries.is_empty())
    }

    fn fields(&self) -> [(&'static str, &[PathBuf]); 4] {
        [
            ("normal", &self.normal),
            ("abnormal", &self.abnormal),
            ("masks", &self.masks),
            ("normal_test", &self.normal_test),
        ]
    }

    /// Those of a folder's `dataset.toml`.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
        toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..start]
                .iter()
                .filter(|b| **b == b'\n')
                .count();
            let message = error.message().replace('\n', " ");
            fault(file, format!("line {line}: {message}"))
        })
    }
}

/// A folder or file that was named, with what it holds.
struct Entry {
    path: PathBuf,
    field: &'static str,
    files: Vec<PathBuf>,
}

/// Reads photos by what is said of them; entries are relative to the first of `bases` in which there is such a thing. Without
/// a `root` it is the folder that all entries lie in.
pub(super) fn open(root: Option<&Path>, bases: &[&Path], roles: &Roles) -> Result<Dataset> {
    let place = root.unwrap_or(Path::new("."));
    if roles.normal.is_empty() {
        return Err(fault(
            place,
            "`normal` is missing: it names the photos of good products",
        ));
    }
    let mut entries = Vec::new();
    for (field, patterns) in roles.fields() {
        for pattern in patterns {
            for path in expand(pattern, field, bases)? {
                let files = images(&path)?;
                entries.push(Entry { path, field, files });
            }
        }
    }
    let root = root.map_or_else(|| common(&entries), tidy);
    no_bad_names(&root, &entries)?;
    let (mut photos, masks) = assign(&root, &entries)?;
    folder::attach_masks(&root, &masks, &mut photos);
    by_entries(&entries, &mut photos);
    if let Some(masks) = entries.iter().find(|entry| entry.field == "masks")
        && photos.iter().all(|photo| photo.masks.is_empty())
    {
        return Err(fault(&masks.path, "`masks`: none is called as a photo is"));
    }
    for photo in photos.iter_mut().filter(|p| p.role == Some(Role::Normal)) {
        if marks(&photo.masks)? {
            photo.role = Some(Role::Defective(DEFECT.into()));
        }
    }
    let name = roles
        .name
        .clone()
        .unwrap_or_else(|| layout::folder_name(&root));
    Ok(folder::assemble(&root, name, photos))
}

/// Without `./` in front: the same file has one path.
fn tidy(path: &Path) -> PathBuf {
    let tidy: PathBuf = path
        .components()
        .filter(|c| *c != Component::CurDir)
        .collect();
    match tidy.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => tidy,
    }
}

/// The folders and files that an entry means: itself, or all that its pattern fits.
fn expand(entry: &Path, field: &str, bases: &[&Path]) -> Result<Vec<PathBuf>> {
    for base in bases {
        let path = base.join(entry);
        if path.exists() {
            return Ok(vec![tidy(&path)]);
        }
        let Some(pattern) = path.to_str() else {
            continue;
        };
        let wrong = |e: glob::PatternError| fault(&path, format!("`{field}`: {e}"));
        let found: Vec<PathBuf> = glob::glob(pattern)
            .map_err(wrong)?
            .filter_map(|p| p.ok())
            .collect();
        let usable = |p: &PathBuf| p.is_dir() || is_image_file(p);
        let found: Vec<PathBuf> = found.into_iter().filter(usable).map(|p| tidy(&p)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let path = bases
        .first()
        .map_or(entry.to_path_buf(), |base| base.join(entry));
    Err(fault(
        &path,
        format!("`{field}`: there is no such folder or file"),
    ))
}

fn images(path: &Path) -> Result<Vec<PathBuf>> {
    let files = match path.is_dir() {
        true => list_images(path)?,
        false => vec![path.to_path_buf()],
    };
    if files.is_empty() {
        return Err(fault(path, "holds no PNG, JPEG, BMP, TIFF or WebP image"));
    }
    Ok(files.iter().map(|file| tidy(file)).collect())
}

/// The folder that all entries lie in; of one alone, itself.
fn common(entries: &[Entry]) -> PathBuf {
    let folder = |entry: &Entry| match entry.path.is_dir() {
        true => entry.path.clone(),
        false => entry.path.parent().unwrap_or(Path::new("")).to_path_buf(),
    };
    let mut folders = entries.iter().map(folder);
    let first = folders.next().unwrap_or_default();
    let shared = folders.fold(first, |shared, folder| {
        let both = shared.components().zip(folder.components());
        both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    });
    tidy(&shared)
}

/// A folder called `ng` inside one that is said to be good is trained on only if it is named itself.
fn no_bad_names(root: &Path, entries: &[Entry]) -> Result<()> {
    let known: HashSet<PathBuf> = entries.iter().map(|e| e.path.clone()).collect();
    for entry in entries.iter().filter(|e| e.field.starts_with("normal")) {
        if let Some(bad) = folder::unnamed_bad(&entry.path, &entry.files, &known) {
            let good = entry.path.display();
            let reason = format!(
                "{} is called defective and lies in {good}, which is said to be good; say of it too what it is",
                bad.display()
            );
            let said = entries
                .iter()
                .filter(|e| e.field == "normal")
                .map(|e| e.path.clone());
            let normal = RoleOf {
                field: "normal",
                paths: said.collect(),
            };
            let mut abnormal: Vec<PathBuf> = entries
                .iter()
                .filter(|e| e.field == "abnormal")
                .map(|e| e.path.clone())
                .collect();
            abnormal.push(bad);
            let abnormal = RoleOf {
                field: "abnormal",
                paths: abnormal,
            };
            return Err(Error::Roles {
                path: root.to_path_buf(),
                reason,
                guess: vec![normal, abnormal],
            });
        }
    }
    Ok(())
}

/// Masks that lie in their folder as photos do in theirs; defective photos come first.
fn by_entries(entries: &[Entry], photos: &mut [Photo]) {
    let used: HashSet<PathBuf> = photos.iter().flat_map(|p| p.masks.clone()).collect();
    let places = |field: fn(&str) -> bool| -> Vec<(PathBuf, PathBuf)> {
        let chosen = entries.iter().filter(|entry| field(entry.field));
        let placed = chosen.flat_map(|entry| {
            let inside = |file: &PathBuf| {
                (
                    layout::inside(&entry.path, file).to_path_buf(),
                    file.clone(),
                )
            };
            entry.files.iter().map(inside)
        });
        placed.collect()
    };
    let mut free = places(|field| field == "masks");
    free.retain(|(_, file)| !used.contains(file));
    let of_photos = places(|field| field != "masks");
    let place: BTreeMap<PathBuf, PathBuf> = of_photos
        .into_iter()
        .map(|(place, file)| (file, place))
        .collect();
    for defective in [true, false] {
        let masks = Masks::new(free.iter().cloned());
        let turn = |p: &Photo| {
            p.masks.is_empty() && matches!(p.role, Some(Role::Defective(_))) == defective
        };
        for photo in photos.iter_mut().filter(|p| turn(p)) {
            photo.masks = place
                .get(&photo.file)
                .map_or(Vec::new(), |place| masks.of(place));
        }
        let used: HashSet<&PathBuf> = photos.iter().flat_map(|p| &p.masks).collect();
        free.retain(|(_, file)| !used.contains(file));
    }
}

/// Each file to the deepest entry that it lies in; masks that lie beside photos are found there.
fn assign(root: &Path, entries: &[Entry]) -> Result<(Vec<Photo>, Vec<PathBuf>)> {
    let mut of: BTreeMap<&Path, &Entry> = BTreeMap::new();
    for entry in entries {
        for file in &entry.files {
            let depth = |entry: &Entry| match entry.path == Path::new(".") {
                true => 0,
                false => entry.path.components().count(),
            };
            let before = of.get(file.as_path()).copied();
            match before {
                Some(before) if depth(before) > depth(entry) => {}
                Some(before) if depth(before) == depth(entry) && before.field != entry.field => {
                    let reason = format!(
                        "is named twice, in `{}` and in `{}`",
                        before.field, entry.field
                    );
                    return Err(fault(file, reason));
                }
                _ => {
                    of.insert(file, entry);
                }
            }
        }
    }
    let is_mask = |entry: &Entry| entry.field == "masks";
    let rest: Vec<&Path> = of
        .iter()
        .filter(|(_, e)| !is_mask(e))
        .map(|(f, _)| *f)
        .collect();
    let beside = folder::masks_beside(&rest);
    let (mut photos, mut masks) = (Vec::new(), Vec::new());
    for (file, entry) in of {
        if is_mask(entry) || beside.masks.contains(file) {
            masks.push(file.to_path_buf());
        } else {
            photos.push(photo(root, file, entry));
        }
    }
    Ok((photos, masks))
}

fn photo(root: &Path, file: &Path, entry: &Entry) -> Photo {
    let role = match entry.field {
        "abnormal" => Role::Defective(class(file, &entry.path)),
        _ => Role::Normal,
    };
    Photo {
        place: layout::inside(root, file).to_path_buf(),
        split: (entry.field == "normal_test").then_some(Split::Test),
        role: Some(role),
        masks: Vec::new(),
        file: file.to_path_buf(),
    }
}

/// The folder below the one that was named, or that itself.
fn class(file: &Path, entry: &Path) -> String {
    let inside = layout::inside(entry, file);
    let mut parts = inside.components();
    match (parts.next(), parts.next()) {
        (Some(folder), Some(_)) => folder.as_os_str().to_string_lossy().into_owned(),
        _ if entry.is_dir() => layout::folder_name(entry),
        _ => DEFECT.to_string(),
    }
}
