//! What a data set's folders were taken for.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::{Dataset, Sample, layout};

/// What the photos of a folder are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// Good, to train on.
    Train,
    /// Good, to test on.
    TestGood,
    /// Defective, to test on.
    Defective,
    /// Masks.
    Masks,
}

impl Taken {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Train => "good, to train on",
            Self::TestGood => "good, to test on",
            Self::Defective => "defective",
            Self::Masks => "masks",
        }
    }
}

/// A folder, what its files were taken for, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FolderRole {
    /// Inside the data set, with `/` between folders; empty where files lie in it directly.
    pub folder: String,
    /// What they are.
    pub role: Taken,
    /// The class of defects, where all are of one.
    pub class: Option<String>,
    /// How many files.
    pub files: usize,
}

/// Folders that a summary names.
const NAMED: usize = 6;

impl Dataset {
    /// What each folder was taken for, those to train on first.
    pub fn folders(&self) -> Vec<FolderRole> {
        self.grouped()
            .into_iter()
            .map(|(folder, _)| folder)
            .collect()
    }

    /// [`Dataset::folders`] with the samples of each; of masks, those that they belong to.
    pub fn grouped(&self) -> Vec<(FolderRole, Vec<&Sample>)> {
        let mut found: BTreeMap<(Taken, String, Option<String>), Vec<&Sample>> = BTreeMap::new();
        let folder = |path: &Path| match path.parent() {
            Some(parent) if parent != self.root => layout::relative(&self.root, parent),
            _ => String::new(),
        };
        let tested = |sample: &Sample| match sample.is_defective() {
            true => Taken::Defective,
            false => Taken::TestGood,
        };
        let train = self.train.iter().map(|sample| (Taken::Train, sample));
        let test = self.test.iter().map(|sample| (tested(sample), sample));
        for (role, sample) in train.chain(test) {
            let key = (role, folder(&sample.image), sample.defect.clone());
            found.entry(key).or_default().push(sample);
            for mask in &sample.masks {
                let key = (Taken::Masks, folder(mask), None);
                found.entry(key).or_default().push(sample);
            }
        }
        let group = |((role, folder, class), samples): (_, Vec<_>)| {
            let files = samples.len();
            let folder = FolderRole {
                folder,
                role,
                class,
                files,
            };
            (folder, samples)
        };
        found.into_iter().map(group).collect()
    }

    /// In a line: how many photos of which folders are trained on, and what else there is.
    pub fn summary(&self) -> String {
        let all = self.folders();
        let of = |role: Taken| all.iter().filter(move |f| f.role == role);
        let names: Vec<&str> = of(Taken::Train).map(|f| f.folder.as_str()).collect();
        let count = plural(self.train.len(), "photo");
        let plain = self.test.is_empty();
        let mut text = match names.as_slice() {
            [one] if plain => format!("{count}, all as good{}", named_folder(one)),
            _ if plain => format!(
                "{count} in {} folders, all as good: {}",
                names.len(),
                listed(&names)
            ),
            [one] => format!("{count} of good products{}", named_folder(one)),
            _ => format!(
                "{count} of good products in {} folders: {}",
                names.len(),
                listed(&names)
            ),
        };
        if !plain {
            let defective = self.test.iter().filter(|s| s.is_defective());
            let (good, bad) = (
                self.test.len() - defective.clone().count(),
                defective.count(),
            );
            let mut classes: Vec<&str> = self
                .test
                .iter()
                .filter_map(|s| s.defect.as_deref())
                .collect();
            classes.sort_unstable();
            classes.dedup();
            text += &format!("; to test on {good} good and {bad} defective");
            if !classes.is_empty() {
                text += &format!(" ({})", listed(&classes));
            }
        }
        text
    }

    /// How many different files there are among the photos to train on, where at least half of them are copies of others.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when a file cannot be read.
    pub fn copies(&self) -> crate::Result<Option<usize>> {
        let files: Vec<&Sample> = self.train.iter().filter(|s| s.record.is_none()).collect();
        let few = |different: usize| files.len() > 1 && 2 * different <= files.len();
        let size = |sample: &&Sample| sample.image.metadata().map(|m| m.len()).unwrap_or_default();
        let sizes: HashSet<u64> = files.iter().map(size).collect();
        if !few(sizes.len()) {
            return Ok(None);
        }
        let hashes = files
            .par_iter()
            .map(|s| crate::digest::sha256_file(&s.image));
        let hashes: HashSet<String> = hashes.collect::<crate::Result<_>>()?;
        Ok(Some(hashes.len()).filter(|different| few(*different)))
    }
}

fn named_folder(folder: &str) -> String {
    match folder {
        "" => String::new(),
        some => format!(" ({some})"),
    }
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(NAMED).map(|name| match *name {
        "" => "the folder itself",
        some => some,
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
