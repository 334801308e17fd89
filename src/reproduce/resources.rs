//! A plan's data sets and backbones: each is opened, checked and found once, before anything long begins.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::cells::Cell;
use crate::{
    Error, Result,
    datasets::{self, Dataset, Limit},
    detector::BackboneRecord,
    evaluation, hub,
};

/// What was found, or why it was not: a server that is not there is not asked again for every cell.
type Kept<T> = std::result::Result<T, String>;

/// A weights file (none where none is needed) and what a detector says about it.
pub(super) type Weights = (Option<PathBuf>, BackboneRecord);

pub(super) struct Resources<'a> {
    data: &'a Path,
    limit: Limit,
    downloads: hub::Progress<'a>,
    datasets: HashMap<String, Kept<Dataset>>,
    hashes: HashMap<String, String>,
    weights: HashMap<String, Kept<Weights>>,
}

impl<'a> Resources<'a> {
    /// The categories in `data`, at most `limit` images of each; `downloads` hears of weights that have to be fetched.
    pub fn new(data: &'a Path, limit: Limit, downloads: hub::Progress<'a>) -> Self {
        Self {
            data,
            limit,
            downloads,
            datasets: HashMap::new(),
            hashes: HashMap::new(),
            weights: HashMap::new(),
        }
    }

    /// Whether a cell's images and weights are there and look sound.
    pub fn check(&mut self, cell: &Cell) -> Result<()> {
        self.dataset(&cell.category)?;
        self.weights(&cell.backbone)?;
        Ok(())
    }

    /// A category's images.
    pub fn dataset(&mut self, category: &str) -> Result<&Dataset> {
        let (folder, limit) = (self.data.join(category), self.limit);
        let kept = self.datasets.entry(category.into());
        kept_or_why(kept.or_insert_with(|| open(&folder, limit).map_err(|e| e.to_string())))
    }

    /// The hash of a category's images, masks and their roles.
    pub fn hash(&mut self, category: &str) -> Result<String> {
        if let Some(hash) = self.hashes.get(category) {
            return Ok(hash.clone());
        }
        let hash = self.dataset(category)?.hash()?;
        self.hashes.insert(category.into(), hash.clone());
        Ok(hash)
    }

    /// A backbone's weights.
    pub fn weights(&mut self, id: &str) -> Result<&Weights> {
        let find = || hub::find_backbone(id, None, self.downloads).map_err(|e| e.to_string());
        kept_or_why(self.weights.entry(id.into()).or_insert_with(find))
    }
}

fn kept_or_why<T>(kept: &Kept<T>) -> Result<&T> {
    kept.as_ref().map_err(|why| Error::Invalid(why.clone()))
}

fn open(folder: &Path, limit: Limit) -> Result<Dataset> {
    let mut dataset = datasets::open(folder)?;
    dataset.limit(limit);
    dataset.quick_check_all()?;
    evaluation::ready(&dataset)?;
    Ok(dataset)
}
