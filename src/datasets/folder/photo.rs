//! A photo of a user's folder, and what its place says of it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::super::roles::{Kind, Label, Said, Split};

/// What a photo is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::datasets) enum Role {
    Normal,
    /// Of a class.
    Defective(String),
    /// Its place contradicts itself, or says that nobody knows.
    Unsure,
}

/// A photo with what is known of it.
#[derive(Debug, Clone)]
pub(in crate::datasets) struct Photo {
    pub file: PathBuf,
    /// Inside the data set.
    pub place: PathBuf,
    pub split: Option<Split>,
    pub role: Option<Role>,
    pub masks: Vec<PathBuf>,
}

impl Photo {
    /// The folder that it lies in, inside the data set.
    pub fn folder(&self) -> &Path {
        self.place.parent().unwrap_or(Path::new(""))
    }
}

/// What a folder says of its photos.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub split: Option<Split>,
    pub role: Option<Role>,
    /// [`Label::Mask`] or [`Label::MaybeMask`] of a folder of masks.
    pub mask: Option<Label>,
}

/// Reads folders' names, each once.
pub(super) struct Places {
    said: HashMap<String, Said>,
    /// Folders with good and bad ones inside: their own names are titles (`defect-detection/ok`).
    titles: HashSet<PathBuf>,
}

impl Places {
    /// Of all folders that hold images, as paths inside the data set.
    pub fn new<'a>(folders: impl Iterator<Item = &'a Path>) -> Self {
        let mut places = Self {
            said: HashMap::new(),
            titles: HashSet::new(),
        };
        let mut children: HashMap<PathBuf, HashSet<Label>> = HashMap::new();
        for folder in folders {
            for part in folder.ancestors().filter(|p| *p != Path::new("")) {
                let said = *places
                    .said
                    .entry(name(part))
                    .or_insert_with(|| Said::of(&name(part)));
                if let (Some(label), Some(parent)) = (said.label, part.parent()) {
                    children
                        .entry(parent.to_path_buf())
                        .or_default()
                        .insert(label);
                }
            }
        }
        let both = |labels: &HashSet<Label>| {
            labels.contains(&Label::Normal) && labels.contains(&Label::Defective)
        };
        places.titles = children
            .into_iter()
            .filter(|(_, labels)| both(labels))
            .map(|(folder, _)| folder)
            .collect();
        places
    }

    /// What a name says.
    pub fn said(&self, name: &str) -> Said {
        self.said
            .get(name)
            .copied()
            .unwrap_or_else(|| Said::of(name))
    }

    /// What a folder says.
    pub fn read(&self, folder: &Path) -> Place {
        let mut place = Place {
            split: None,
            role: None,
            mask: None,
        };
        let mut parts: Vec<&Path> = folder.ancestors().filter(|p| *p != Path::new("")).collect();
        parts.reverse();
        let names: Vec<String> = parts.iter().map(|part| name(part)).collect();
        for (i, part) in parts.iter().enumerate() {
            let said = self.said(&names[i]);
            place.split = place.split.or(said.split);
            if self.titles.contains(*part) {
                continue;
            }
            match said.label {
                Some(label @ (Label::Mask | Label::MaybeMask)) => {
                    place.mask = place.mask.or(Some(label))
                }
                Some(label) => place.role = Some(self.with(place.role, label, &names[i..])),
                None => {}
            }
        }
        if place.role.is_none() && place.split == Some(Split::Test) {
            place.role = self.class_in_test(&names);
        }
        place
    }

    /// A role with one more label of a folder below; `names` starts with that folder's.
    fn with(&self, role: Option<Role>, label: Label, names: &[String]) -> Role {
        match (role, label) {
            (Some(Role::Defective(_)), Label::Normal) => Role::Unsure,
            (Some(role @ Role::Defective(_)), Label::Defective) => role,
            (_, Label::Normal) => Role::Normal,
            (_, Label::Defective) => {
                let class = names.get(1).filter(|name| self.is_class(name));
                Role::Defective(class.unwrap_or(&names[0]).clone())
            }
            _ => Role::Unsure,
        }
    }

    /// In a folder of test photos, a folder of any other name is a class of defects.
    fn class_in_test(&self, names: &[String]) -> Option<Role> {
        let test = names
            .iter()
            .position(|n| self.said(n).split == Some(Split::Test))?;
        let class = names.get(test + 1).filter(|name| {
            let said = self.said(name);
            said.kind == Kind::Other && said.split.is_none()
        });
        class.map(|class| Role::Defective(class.clone()))
    }

    fn is_class(&self, name: &str) -> bool {
        let said = self.said(name);
        said.label == Some(Label::Defective) || said.kind == Kind::Other
    }
}

pub(super) fn name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
