//! A data set's fingerprint, for the training record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;

use super::{Dataset, Sample, layout};
use crate::{
    Result,
    digest::{sha256, sha256_file},
};

impl Dataset {
    /// SHA-256, in hexadecimal, of every file's content, its path inside the data set and its role. It
    /// does not depend on where the folder lies or in which order the system lists it.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when a file cannot be read.
    pub fn hash(&self) -> Result<String> {
        let samples = || self.train.iter().chain(&self.test);
        let files: BTreeSet<&PathBuf> = samples()
            .flat_map(|s| std::iter::once(&s.image).chain(&s.masks))
            .collect();
        let contents: BTreeMap<&PathBuf, String> = files
            .into_par_iter()
            .map(|f| Ok((f, sha256_file(f)?)))
            .collect::<Result<_>>()?;
        let mut lines: Vec<String> = Vec::new();
        for (split, samples) in [("train", &self.train), ("test", &self.test)] {
            lines.extend(samples.iter().map(|s| self.line(split, s, &contents)));
        }
        lines.sort();
        Ok(sha256(lines.join("\n")))
    }

    fn line(&self, split: &str, sample: &Sample, contents: &BTreeMap<&PathBuf, String>) -> String {
        let of =
            |mask: &PathBuf| format!("{}\t{}", layout::relative(&self.root, mask), contents[mask]);
        let mask = sample.masks.iter().map(of).collect::<Vec<_>>().join("\t");
        let defect = sample.defect.as_deref().unwrap_or("");
        format!(
            "{split}\t{defect}\t{}\t{}\t{mask}",
            sample.name(&self.root),
            contents[&sample.image]
        )
    }
}
