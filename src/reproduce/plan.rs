//! The plan file (TOML): what is trained on what, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::settings::{Settings, only_scoring};
use crate::{Error, Result, backbones, datasets};

/// The variant that the plan's own settings make.
pub(super) const BASE: &str = "base";
/// Which backbones a variant is for; the rest of its table are settings.
const BACKBONES: &str = "backbones";

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
    /// The plan's settings with its own in their place.
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
    /// [`Error::Config`] naming the file and what is wrong in it; [`Error::Dataset`] when the folder does not
    /// exist or has no categories.
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
                return Err(fail(
                    "names no data; give the folder with --data DIR".into(),
                ));
            }
        };
        Self::new(file, data).map_err(|error| match error {
            Error::Invalid(reason) => fail(reason),
            other => other,
        })
    }

    fn new(file: File, data: PathBuf) -> Result<Self> {
        let resolve = |id: &String| backbones::resolve_id(id);
        let backbones: Vec<String> = file.backbones.iter().map(resolve).collect::<Result<_>>()?;
        let categories = match file.categories {
            Some(names) => names,
            None => found(&data)?,
        };
        check_list("backbones", &backbones)?;
        check_list("categories", &categories)?;
        check_list("seeds", &file.seeds)?;
        for name in categories.iter().chain([&file.prefix]) {
            check_name(name)?;
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
        let plan = Self {
            dataset: known_id(&file.dataset),
            data,
            categories,
            backbones,
            seeds: file.seeds,
            prefix: file.prefix,
            variants,
            exceptions: file.category,
        };
        plan.check_settings()?;
        Ok(plan)
    }

    /// Every mistake in the settings before anything is trained.
    fn check_settings(&self) -> Result<()> {
        for variant in &self.variants {
            for category in &self.categories {
                self.settings(variant, category)?.train_config(0)?;
            }
        }
        Ok(())
    }

    /// The settings of a variant for a category.
    ///
    /// # Errors
    /// An unknown setting or a value of the wrong kind.
    pub fn settings(&self, variant: &Variant, category: &str) -> Result<Settings> {
        let mut table = variant.table.clone();
        table.extend(self.exceptions.get(category).cloned().unwrap_or_default());
        table.extend(variant.own.clone());
        let fail = |e: toml::de::Error| {
            let reason = e.message().to_string();
            Error::Invalid(format!("settings of variant {}: {reason}", variant.name))
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
            table: settings.clone(),
            own: Table::new(),
        }
    }

    fn new(name: &str, own: &Value, settings: &Table, backbones: &[String]) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Invalid(format!("variant.{name}: {reason}")));
        check_name(name)?;
        let Value::Table(own) = own else {
            return refuse("must be a table of settings".into());
        };
        let mut own = own.clone();
        let only = match own.remove(BACKBONES) {
            None => backbones.to_vec(),
            Some(ids) => {
                let ids: Vec<String> = ids.try_into().map_err(|_| {
                    Error::Invalid(format!("variant.{name}.backbones: must be ids"))
                })?;
                let ids = ids.iter().map(|id| backbones::resolve_id(id));
                ids.collect::<Result<Vec<_>>>()?
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
            // Statistics for standardising are measured in training, of the maps that it is told.
            scoring_only: only_scoring(own.keys().map(String::as_str))
                && settings.get("standardise_scales") != Some(&Value::Boolean(true)),
            backbones: only,
            table: settings.clone(),
            own,
        })
    }
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
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.len() <= 64 && name.chars().all(plain) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "`{}`: names consist of letters, digits, -, _ and dots",
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flow::Kernels;

    fn read(text: &str) -> Result<Plan> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, text).unwrap();
        Plan::read(&path, None)
    }

    const PLAN: &str = r#"
dataset = "MVTec AD"
data = "mvtec"
categories = ["bottle", "transistor"]
backbones = ["resnet18", "wavelet"]
seeds = [0, 1]
[settings]
epochs = 5
views = 4
[category.transistor]
rotation = 0.0
views = 2
[variant.three]
kernels = "3-3"
backbones = ["resnet18"]
[variant.plain]
views = 1
[variant.exp]
map = "exp"
top_k = 100
"#;

    #[test]
    fn settings_merge_plan_then_category_then_variant() {
        let plan = read(PLAN).unwrap();
        assert_eq!(plan.dataset, "mvtec-ad");
        assert_eq!(plan.backbones, ["resnet18.tv_in1k", "wavelet"]);
        let names: Vec<&str> = plan.variants.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["base", "three", "plain", "exp"]);
        let settings = |variant: &str, category: &str| {
            let variant = plan.variant(variant).unwrap();
            plan.settings(variant, category).unwrap()
        };
        let three = settings("three", "bottle");
        assert_eq!((three.kernels, three.views), (Some(Kernels::Three), 4));
        assert_eq!(plan.variant("three").unwrap().backbones.len(), 1);
        let turned = settings("base", "transistor");
        assert_eq!((turned.rotation, turned.views), (0.0, 2));
        assert_eq!(settings("plain", "transistor").views, 1);
        let scoring: Vec<bool> = plan.variants.iter().map(|v| v.scoring_only).collect();
        assert_eq!(scoring, [false, false, false, true]);
    }

    #[test]
    fn mistakes_are_told_in_one_line() {
        for (good, bad, word) in [
            ("epochs = 5", "epoch = 5", "epoch"),
            ("epochs = 5", "epochs = 0", "epochs must be"),
            ("epochs = 5", "epochs = ", "line 8"),
            ("dataset =", "data_set =", "data_set"),
            ("\"wavelet\"", "\"resnet18\"", "twice"),
            ("\"wavelet\"", "\"resnet81\"", "resnet81"),
            ("\"bottle\"", "\"../bottle\"", "names consist"),
            ("variant.exp", "variant.base", "another name"),
            ("category.transistor", "category.grid", "category.grid"),
            ("data = \"mvtec\"", "", "--data"),
            ("kernels = \"3-3\"", "kernels = \"5-5\"", "5-5"),
            (
                "[\"resnet18\"]\n[variant.plain",
                "[\"cait_m48_448\"]\n[variant.plain",
                "not one of",
            ),
        ] {
            assert!(PLAN.contains(good), "{good}");
            let message = read(&PLAN.replacen(good, bad, 1)).unwrap_err().to_string();
            assert!(
                message.contains(word) && !message.contains('\n'),
                "{bad}: {message}"
            );
        }
    }
}
