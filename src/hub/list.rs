//! Which detectors there are: on the Hub, by owner and tag, and in the cache.

use std::{collections::BTreeMap, fs, path::Path, thread};

use hf_hub::{
    HFClientSync,
    repository::{ModelInfo, RepoTreeEntry},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    cache::{RepoCache, cached_repos},
    failure::{Failure, Outcome},
    fetch::{BACKBONE_OWNER, Hub, NEEDED, on_own_thread},
    names::{BACKBONE_FILE, RepoId},
    progress::{Event, Progress},
};
use crate::{Result, estimators::Method};

/// The tag that every detector's card carries, whatever its method.
pub(super) const TAG: &str = "candle-fastflow";

/// Questions asked at once.
const AT_ONCE: usize = 8;

/// A detector that can be had by its name. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// What to type.
    pub name: String,
    /// Repository, `owner/name`.
    pub repo: String,
    /// What it inspects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The backbone, as exactly as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<String>,
    /// The method's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Image AUROC on the test set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_auroc: Option<f64>,
    /// Pixel AUROC on the test set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_auroc: Option<f64>,
    /// Bytes of the detector's files, without the backbone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Downloads in the last 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloads: Option<u64>,
    /// Whether it is on the Hub; not known when the Hub was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<bool>,
    /// Whether it is in the cache.
    pub cached: bool,
}

impl Hub {
    /// The detectors of the namespace on the Hub, and all that are cached, by name. When the Hub
    /// cannot be reached (or must not be), those in the cache.
    ///
    /// # Errors
    /// When the Hub refuses to answer.
    pub fn list(&self, progress: Progress) -> Result<Vec<Listed>> {
        let mut found: BTreeMap<RepoId, Listed> = self.cached();
        if !self.client.options.offline {
            match on_own_thread(|| self.on_the_hub(progress)) {
                Ok(listed) => {
                    found
                        .values_mut()
                        .for_each(|local| local.published = Some(false));
                    merge(&mut found, listed);
                }
                Err(failure @ Failure::Busy { .. }) => {
                    let error = self.client.at(&self.client.options.endpoint, failure);
                    progress(Event::Notice(&format!("{error}; showing what is cached")));
                }
                Err(failure) => return Err(self.client.at(&self.client.options.endpoint, failure)),
            }
        }
        Ok(found.into_values().collect())
    }

    /// Whether weights of a backbone (timm's `arch.tag`) are in the cache.
    pub fn has_backbone(&self, id: &str) -> bool {
        RepoId::new(BACKBONE_OWNER, id).is_ok_and(|repo| {
            let cache = RepoCache::new(&self.client.options.cache, &repo);
            let commit = cache.commit_of("main").or_else(|| cache.any_commit());
            commit.is_some_and(|commit| cache.snapshot(&commit).join(BACKBONE_FILE).is_file())
        })
    }

    fn on_the_hub(&self, progress: Progress) -> Outcome<Vec<(RepoId, Listed)>> {
        let api = self.client.api()?;
        let author = self.client.options.namespace();
        let ask = || {
            api.list_models()
                .author(author)
                .filter(TAG)
                .full(true)
                .card_data(true)
                .send()
        };
        let models = self.client.call(progress, ask)?;
        let describe = |model: &ModelInfo| self.described(&api, model, progress);
        Ok(in_parallel(&models, describe)
            .into_iter()
            .flatten()
            .collect())
    }

    /// What the card says. Where the listing leaves the results out, and for the sizes, the
    /// repository itself is asked; what it does not answer stays unknown.
    fn described(
        &self,
        api: &HFClientSync,
        listed: &ModelInfo,
        progress: Progress,
    ) -> Option<(RepoId, Listed)> {
        let repo = RepoId::parse(&listed.id).ok()?;
        let model = api.model(repo.owner(), repo.name());
        let asked;
        let info = if listed.model_index.is_some() || index_in(listed).is_some() {
            listed
        } else {
            asked = self.client.call(progress, || model.info().send()).ok();
            asked.as_ref().unwrap_or(listed)
        };
        let tree = self
            .client
            .call(progress, || model.list_tree().recursive(true).send());
        let card = info.card_data.as_ref();
        let index = info.model_index.as_ref().or_else(|| index_in(info));
        let (arch, method, category) = match repo.detector_parts() {
            Some((arch, method, category)) => (Some(arch), Some(method), Some(category)),
            None => (None, None, None),
        };
        let base = card.and_then(|card| first_text(card.get("base_model")?));
        let entry = Listed {
            name: repo.short_name(self.client.options.namespace()),
            repo: repo.to_string(),
            category: index.and_then(category_in).or(category.map(String::from)),
            backbone: base
                .and_then(|base| Some(base.split_once('/')?.1.to_string()))
                .or(arch.map(String::from)),
            method: method_in(info).or(method).map(|method| method.to_string()),
            image_auroc: index.and_then(|index| auroc_in(index, "image-classification")),
            pixel_auroc: index.and_then(|index| auroc_in(index, "image-segmentation")),
            bytes: tree.ok().map(|tree| size_of(&tree)),
            downloads: listed.downloads,
            published: Some(true),
            cached: false,
        };
        Some((repo, entry))
    }

    /// The names of an owner's detectors, for suggestions.
    pub(super) fn published(&self, owner: &str, progress: Progress) -> Outcome<Vec<RepoId>> {
        let api = self.client.api()?;
        let found = self.client.call(progress, || {
            api.list_models().author(owner).filter(TAG).send()
        })?;
        Ok(found
            .iter()
            .filter_map(|model| RepoId::parse(&model.id).ok())
            .collect())
    }

    fn cached(&self) -> BTreeMap<RepoId, Listed> {
        let options = &self.client.options;
        let read = |repo: RepoId| {
            let cache = RepoCache::new(&options.cache, &repo);
            let folder = cache.snapshot(&cache.commit_of("main").or_else(|| cache.any_commit())?);
            let entry = described_here(&folder, &repo, repo.short_name(options.namespace()))?;
            Some((repo, entry))
        };
        cached_repos(&options.cache)
            .into_iter()
            .filter_map(read)
            .collect()
    }
}

/// What a cached detector's own config says; none when the folder holds something else.
fn described_here(folder: &Path, repo: &RepoId, name: String) -> Option<Listed> {
    let text = fs::read_to_string(folder.join(NEEDED[0])).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    // Other people's models have a config.json too.
    config.get("schema_version")?;
    let metric = |name: &str| config.get("metrics")?.get(name)?.as_f64();
    let sizes = NEEDED.iter().map(|file| {
        fs::metadata(folder.join(file))
            .ok()
            .map(|found| found.len())
    });
    Some(Listed {
        name,
        repo: repo.to_string(),
        category: config.get("name").and_then(Value::as_str).map(String::from),
        backbone: config
            .pointer("/backbone/id")
            .and_then(Value::as_str)
            .map(String::from),
        method: config
            .pointer("/estimator/kind")
            .and_then(Value::as_str)
            .or(Some(Method::FastFlow.word()))
            .map(String::from),
        image_auroc: metric("image_auroc"),
        pixel_auroc: metric("pixel_auroc"),
        bytes: Some(sizes.sum::<Option<u64>>()?),
        downloads: None,
        published: None,
        cached: true,
    })
}

fn merge(found: &mut BTreeMap<RepoId, Listed>, published: Vec<(RepoId, Listed)>) {
    for (repo, mut listed) in published {
        listed.cached = found.contains_key(&repo);
        found.insert(repo, listed);
    }
}

/// `work` on each item, some at a time, results in the items' order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let wave = |wave: &[T]| -> Vec<R> {
        thread::scope(|scope| {
            let running: Vec<_> = wave.iter().map(|item| scope.spawn(|| work(item))).collect();
            let joined = running.into_iter().map(|thread| thread.join());
            joined
                .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    };
    items.chunks(AT_ONCE).flat_map(wave).collect()
}

fn index_in(info: &ModelInfo) -> Option<&Value> {
    info.card_data.as_ref()?.get("model-index")
}

/// The method that is one of the card's tags.
fn method_in(info: &ModelInfo) -> Option<Method> {
    let tags = info.card_data.as_ref()?.get("tags")?.as_array()?;
    let tagged = |method: &Method| tags.iter().any(|tag| tag == method.word());
    Method::ALL.into_iter().find(tagged)
}

fn results_in(index: &Value) -> impl Iterator<Item = &Value> {
    let results = index
        .get(0)
        .and_then(|model| model.get("results")?.as_array());
    results.into_iter().flatten()
}

fn category_in(index: &Value) -> Option<String> {
    let config = results_in(index).find_map(|result| result.pointer("/dataset/config")?.as_str());
    config.map(String::from)
}

fn auroc_in(index: &Value, task: &str) -> Option<f64> {
    let is_task =
        |result: &&Value| result.pointer("/task/type").and_then(Value::as_str) == Some(task);
    let metrics = results_in(index)
        .filter(is_task)
        .filter_map(|result| result.get("metrics")?.as_array());
    let is_auroc = |metric: &&Value| metric.get("type").and_then(Value::as_str) == Some("roc_auc");
    metrics.flatten().find(is_auroc)?.get("value")?.as_f64()
}

/// A card may give one base model or a list.
fn first_text(value: &Value) -> Option<String> {
    let value = value.get(0).unwrap_or(value);
    value.as_str().map(String::from)
}

fn size_of(tree: &[RepoTreeEntry]) -> u64 {
    let sizes = tree.iter().map(|entry| match entry {
        RepoTreeEntry::File { path, size, .. } if NEEDED.contains(&path.as_str()) => *size,
        _ => 0,
    });
    sizes.sum()
}
