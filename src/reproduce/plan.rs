//! The plan file (TOML): what is trained on what, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    Advice, Error, Result, backbones,
    datasets::{self, Limit},
    training::Settings,
};

/// The variant that the plan's own settings make.
pub(super) const BASE: &str = "base";
/// Which backbones a variant is for; the rest of its table are settings.
const BACKBONES: &str = "backbones";
const METHOD: &str = "method";

/// A plan as read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Whose tables: `mvtec-ad`, `btad`, `cifar10`, or any other name.
    pub dataset: String,
    /// The folder of the categories.
    pub data: PathBuf,
    /// Names of folders (or of CIFAR-10's classes) in it.
    pub categories: Vec<String>,
    /// Full ids.
    pub backbones: Vec<String>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Most images of each category.
    pub limit: Limit,
    /// Goes before the category in a detector's name.
    pub prefix: String,
    /// The base and the variants, in the plan's order.
    pub variants: Vec<Variant>,
    /// Settings of single categories, which go before a variant's.
    pub(super) exceptions: BTreeMap<String, Table>,
}

/// One way of training or scoring.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its name, of folders too.
    pub name: String,
    /// What it changes; nothing in the base.
    pub changes: Vec<String>,
    /// Whether it is the base's detector scored or measured another way.
    pub scoring_only: bool,
    /// The backbones it is for; full ids.
    pub backbones: Vec<String>,
    /// Whether it is of another method than the base: it takes over only what means the same to every method.
    other_method: bool,
    /// The plan's settings.
    table: Table,
    own: Table,
}

/// The file, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    dataset: String,
    data: Option<PathBuf>,
    categories: Option<Vec<String>>,
    backbones: Vec<String>,
    #[serde(default = "one_seed")]
    seeds: Vec<u64>,
    #[serde(default)]
    limit: Limit,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    settings: Table,
    #[serde(default)]
    category: BTreeMap<String, Table>,
    #[serde(default)]
    variant: Table,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

impl Plan {
    /// Reads and checks a plan; `data` stands for the folder that it names. A relative folder in the file is
    /// looked for beside the file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the file, the table and what is wrong in it, whatever cell it concerns;
    /// [`Error::Dataset`] when the folder does not exist or has no categories.
    pub fn read(path: &Path, data: Option<&Path>) -> Result<Self> {
        let fail = |reason: String| Error::Config {
            path: path.to_path_buf(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let mut file: File = toml::from_str(&text).map_err(|e| fail(in_one_line(&e, &text)))?;
        let named = file.data.take();
        let beside = path.parent().unwrap_or(Path::new("."));
        let data = match (data, named) {
            (Some(given), _) => given.to_path_buf(),
            (None, Some(named)) => beside.join(named),
            (None, None) => {
                return Err(fail("names no data".into()).advise(Advice::NameData));
            }
        };
        Self::new(file, data).map_err(|error| match error {
            folder @ (Error::Dataset { .. } | Error::Io { .. }) => folder,
            mistake => mistake.reworded(fail),
        })
    }

    fn new(file: File, data: PathBuf) -> Result<Self> {
        let backbones = full_ids("backbones", &file.backbones)?;
        let categories = match file.categories {
            Some(names) => names,
            None => found(&data)?,
        };
        check_list("categories", &categories)?;
        check_list("seeds", &file.seeds)?;
        file.limit.check()?;
        for category in &categories {
            check_name("categories", category)?;
        }
        if !file.prefix.is_empty() {
            check_name("prefix", &file.prefix)?;
        }
        for name in file.category.keys() {
            if !categories.contains(name) {
                return Err(Error::Invalid(format!(
                    "category.{name}: is not one of the plan's categories"
                )));
            }
        }
        let mut variants = vec![Variant::base(&file.settings, &backbones)];
        for (name, own) in &file.variant {
            variants.push(Variant::new(name, own, &file.settings, &backbones)?);
        }
        let mut plan = Self {
            dataset: known_id(&file.dataset),
            data,
            categories,
            backbones,
            seeds: file.seeds,
            limit: file.limit,
            prefix: file.prefix,
            variants,
            exceptions: file.category,
        };
        plan.check_settings()?;
        let variants = plan.variants.iter();
        let standardise: Vec<bool> = variants.map(|variant| plan.standardises(variant)).collect();
        for (variant, standardise) in plan.variants.iter_mut().zip(standardise) {
            variant.scoring_only &= !standardise;
        }
        Ok(plan)
    }

    /// Every mistake in the settings of any cell, before anything is trained.
    fn check_settings(&self) -> Result<()> {
        let has_own = |category: &&String| self.exceptions.contains_key(*category);
        // One without settings of its own stands for all such, and goes first: what is wrong there is wrong in the
        // variant, not in a category's table.
        let plain = self.categories.iter().find(|category| !has_own(category));
        let others = self.categories.iter().filter(has_own);
        let categories: Vec<&String> = plain.into_iter().chain(others).collect();
        for variant in &self.variants {
            for category in &categories {
                let settings = self.settings(variant, category)?;
                for backbone in &variant.backbones {
                    settings.resolve(backbone, 0).map_err(|error| {
                        let place = self.place(variant, category);
                        let at = format!("{place}, backbone {backbone}");
                        error.reworded(|text| Error::Invalid(format!("{at}: {text}")))
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Whether a category's detectors standardise their scales: the statistics for that are measured in training,
    /// of the maps that it is told, so that no other way of scoring can have them.
    fn standardises(&self, variant: &Variant) -> bool {
        let settings = |category: &String| self.settings(variant, category);
        let mut all = self.categories.iter().map(settings);
        all.any(|settings| settings.is_ok_and(|settings| settings.standardise_scales))
    }

    /// The tables that a cell's settings stand in.
    fn place(&self, variant: &Variant, category: &str) -> String {
        let table = match variant.name.as_str() {
            BASE => "[settings]".to_string(),
            name => format!("[variant.{name}]"),
        };
        match self.exceptions.contains_key(category) {
            true => format!("{table} with [category.{category}]"),
            false => table,
        }
    }

    /// The settings of a variant for a category.
    ///
    /// # Errors
    /// An unknown setting or a value of the wrong kind.
    pub fn settings(&self, variant: &Variant, category: &str) -> Result<Settings> {
        let mut table = variant.table.clone();
        table.extend(self.exceptions.get(category).cloned().unwrap_or_default());
        if variant.other_method {
            table.retain(|key, _| Settings::of_any_method(key));
        }
        table.extend(variant.own.clone());
        let fail = |e: toml::de::Error| {
            let reason = e.to_string().trim().replace('\n', " ");
            Error::Invalid(format!("{}: {reason}", self.place(variant, category)))
        };
        Value::Table(table).try_into().map_err(fail)
    }

    /// A variant by its name.
    pub fn variant(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }
}

impl Variant {
    fn base(settings: &Table, backbones: &[String]) -> Self {
        Self {
            name: BASE.into(),
            changes: Vec::new(),
            scoring_only: false,
            backbones: backbones.to_vec(),
            other_method: false,
            table: settings.clone(),
            own: Table::new(),
        }
    }

    fn new(name: &str, own: &Value, settings: &Table, backbones: &[String]) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Invalid(format!("variant.{name}: {reason}")));
        check_name("variant", name)?;
        let Value::Table(own) = own else {
            return refuse("must be a table of settings".into());
        };
        let mut own = own.clone();
        let only = match own.remove(BACKBONES) {
            None => backbones.to_vec(),
            Some(ids) => {
                let place = format!("variant.{name}.backbones");
                let ids: Vec<String> = ids
                    .try_into()
                    .map_err(|_| Error::Invalid(format!("{place}: must be ids")))?;
                full_ids(&place, &ids)?
            }
        };
        if let Some(other) = only.iter().find(|id| !backbones.contains(id)) {
            return refuse(format!("backbone {other} is not one of the plan's"));
        }
        if name == BASE || own.is_empty() {
            return refuse("is the plan's own settings; give it another name and a change".into());
        }
        Ok(Self {
            name: name.into(),
            changes: own.keys().cloned().collect(),
            scoring_only: Settings::only_scoring(own.keys().map(String::as_str)),
            backbones: only,
            other_method: names_another_method(&own, settings),
            table: settings.clone(),
            own,
        })
    }
}

impl Variant {
    /// Whether it differs from the base in nothing but the method and that method's own settings, so that the two may
    /// stand beside each other; the base itself too.
    pub fn is_of_a_method(&self) -> bool {
        let shared = |key: &String| {
            Settings::of_any_method(key) || Settings::only_scoring([key.as_str()].into_iter())
        };
        self.name == BASE || self.other_method && !self.changes.iter().any(shared)
    }

    /// Whether its method's title says all: it changes nothing else, or is called as the method.
    pub(super) fn is_plain(&self) -> bool {
        let word = self.own.get(METHOD).and_then(Value::as_str);
        self.changes == [METHOD] || word == Some(&*self.name)
    }
}

/// Whether a variant's settings name a method that is not the base's. What cannot be read is told later.
fn names_another_method(own: &Table, base: &Table) -> bool {
    let Some(method) = own.get(METHOD).and_then(Value::as_str) else {
        return false;
    };
    let base: std::result::Result<Settings, _> = Value::Table(base.clone()).try_into();
    base.is_ok_and(|base| base.chosen_method().is_none_or(|of| of.word() != method))
}

/// The categories that a folder holds.
fn found(data: &Path) -> Result<Vec<String>> {
    let name = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    let names: Vec<String> = datasets::categories(data)?
        .into_iter()
        .filter_map(name)
        .collect();
    if names.is_empty() {
        return Err(Error::Dataset {
            path: data.to_path_buf(),
            reason: "holds no data sets; name the folder of the categories' folders".into(),
        });
    }
    Ok(names)
}

fn known_id(name: &str) -> String {
    datasets::known(name).map_or(name, |set| set.id).to_string()
}

/// A list of backbones, each with its tag.
fn full_ids(place: &str, ids: &[String]) -> Result<Vec<String>> {
    let full = |id: &String| {
        backbones::resolve_id(id)
            .map_err(|error| error.reworded(|text| Error::Invalid(format!("{place}: {text}"))))
    };
    let ids = ids.iter().map(full).collect::<Result<Vec<_>>>()?;
    check_list(place, &ids)?;
    Ok(ids)
}

fn check_list<T: PartialEq + std::fmt::Display>(what: &str, list: &[T]) -> Result<()> {
    if list.is_empty() {
        return Err(Error::Invalid(format!("{what}: at least one is needed")));
    }
    match list
        .iter()
        .enumerate()
        .find(|(i, item)| list[..*i].contains(item))
    {
        Some((_, twice)) => Err(Error::Invalid(format!(
            "{what}: {twice} stands there twice"
        ))),
        None => Ok(()),
    }
}

/// Names become parts of folders' and repositories' names.
fn check_name(place: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{place}: `{}`: names consist of 1 to 64 letters, digits, -, _ and dots, no dot in front",
        name.escape_debug()
    )))
}

/// The parser's message without its picture of the line.
fn in_one_line(error: &toml::de::Error, text: &str) -> String {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = 1 + text.as_bytes()[..start]
        .iter()
        .filter(|b| **b == b'\n')
        .count();
    format!("line {line}: {}", error.message().replace('\n', " "))
}

#[cfg(test)]
mod tests;
