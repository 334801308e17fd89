//! The model card: `model-cards/template.md` filled from what an artifact records, and nothing else.

use minijinja::{Environment, UndefinedBehavior, value::Serde};
use serde::Serialize;

use super::method::Method;
use crate::{
    Error, Result, backbones, datasets,
    detector::{BackboneRecord, CalibrationSource, DatasetRecord, DetectorConfig},
    evaluation::Metrics,
};

const TEMPLATE: &str = include_str!("../../model-cards/template.md");

/// What a card says beside what the artifact records; where both say something, this does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CardFacts {
    /// What a user types to get this detector: a short name, `org/repo` or a folder.
    pub reference: Option<String>,
    /// The data set it was trained and tested on; by default the recorded one.
    pub dataset: Option<DatasetFacts>,
    /// SPDX id of the detector's own licence; by default the recorded one, or that of the data set
    /// where it demands it.
    pub licence: Option<String>,
}

/// A data set as a card names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetFacts {
    /// Short id, for example `mvtec-ad`.
    pub id: String,
    /// Its proper name.
    pub name: String,
    /// SPDX id of its licence, if it states one.
    pub licence: Option<String>,
    /// Where it is to be had.
    pub url: Option<String>,
    /// Whether a detector made from it may not be used commercially and keeps its licence.
    pub non_commercial: bool,
}

impl DatasetFacts {
    /// A data set that the project knows (`mvtec-ad`, `btad`, `visa`, `cifar10`), or any other by
    /// its name, of which nothing further is said.
    pub fn named(name: &str) -> Self {
        let known = datasets::known(name);
        let facts = Self {
            id: known.map_or_else(|| slug(name), |set| set.id.into()),
            name: known.map_or(name, |set| set.name).into(),
            url: known.and_then(|set| set.url).map(String::from),
            licence: None,
            non_commercial: false,
        };
        facts.under(known.and_then(|set| set.licence))
    }

    /// The same under another licence, if one is given.
    pub fn under(mut self, licence: Option<&str>) -> Self {
        if let Some(licence) = licence {
            self.licence = Some(licence.into());
            // Creative Commons' word for it.
            self.non_commercial = licence.to_uppercase().contains("-NC");
        }
        self
    }
}

impl From<&DatasetRecord> for DatasetFacts {
    fn from(record: &DatasetRecord) -> Self {
        Self::named(&record.name).under(record.licence.as_deref())
    }
}

/// The card of a detector, as Markdown with the Hub's front matter.
///
/// # Errors
/// When the template cannot be filled (a fault of ours).
pub fn render(config: &DetectorConfig, facts: &CardFacts) -> Result<String> {
    if config.name.chars().any(char::is_control) {
        return Err(Error::Invalid(
            "config.json: name: holds a control character".into(),
        ));
    }
    let training = config.training.as_ref();
    let recorded = training.and_then(|record| record.dataset.as_ref());
    let given = facts.dataset.clone();
    let dataset = given.or_else(|| recorded.map(DatasetFacts::from));
    let tags = dataset.iter().filter(|set| set.url.is_some());
    let tags = tags.map(|set| set.id.clone()).collect();
    let dataset = dataset.unwrap_or_else(|| DatasetFacts::named(&config.name));
    let demanded = dataset.licence.clone().filter(|_| dataset.non_commercial);
    let own = facts.licence.clone().or_else(|| config.licence.clone());
    let arch = config.backbone.id.split('.').next().unwrap_or_default();
    let calibration = config.calibration.as_ref();
    let optimisation = training.and_then(|record| record.optimisation.as_ref());
    let method = Method::of(&config.estimator);
    let card = Card {
        title: format!("{} {arch}: {}", config.estimator.title(), config.name),
        method,
        reference: facts.reference.as_deref().unwrap_or("FOLDER"),
        tags,
        base_model: base_model(&config.backbone),
        backbone_licence: licence_of(&config.backbone),
        results: results(config),
        rows: rows(config),
        threshold: calibration.map(|found| found.threshold.to_string()),
        // Of mirrored views no rate can be said.
        false_alarms: calibration
            .filter(|found| found.source != CalibrationSource::MirroredViews)
            .map(|found| trimmed(100.0 * found.false_alarm_rate)),
        calibrated_by: calibration.map(|c| c.source.in_words(c.normal_scores.len())),
        learning_rate: optimisation.map(|record| record.learning_rate.to_string()),
        weight_decay: optimisation.map(|record| record.weight_decay.to_string()),
        held_out_nll: optimisation.map(|record| trimmed(record.held_out_nll)),
        licence: own.clone().or(demanded).map(|id| id.to_lowercase()),
        own_licence: own,
        config,
        dataset,
    };
    let card = template()?.render(Serde(card)).map_err(fault)?;
    Ok(card + "\n")
}

/// What the template reads.
#[derive(Serialize)]
struct Card<'a> {
    config: &'a DetectorConfig,
    title: String,
    method: Method,
    reference: &'a str,
    tags: Vec<String>,
    base_model: Option<String>,
    backbone_licence: &'static str,
    results: Vec<TaskResult>,
    rows: Vec<Row>,
    // Numbers as text: the template would show the rounding of a conversion.
    threshold: Option<String>,
    false_alarms: Option<String>,
    calibrated_by: Option<String>,
    learning_rate: Option<String>,
    weight_decay: Option<String>,
    held_out_nll: Option<String>,
    /// For the Hub: the detector's own licence, or the one that the data set demands.
    licence: Option<String>,
    /// As its maker stated it.
    own_licence: Option<String>,
    dataset: DatasetFacts,
}

/// One task of the model index with what was measured for it.
#[derive(Serialize)]
struct TaskResult {
    task: &'static str,
    task_name: &'static str,
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
struct Metric {
    /// The Hub's word for this kind of metric.
    r#type: &'static str,
    name: String,
    exact: String,
}

#[derive(Serialize)]
struct Row {
    name: String,
    value: String,
}

/// Key in the artifact, task, and the Hub's metric type.
const METRICS: [(&str, Task, &str); 8] = [
    ("image_auroc", Task::Image, "roc_auc"),
    ("image_ap", Task::Image, "average_precision"),
    ("image_f1_max", Task::Image, "f1"),
    ("recall", Task::Image, "recall"),
    ("pixel_auroc", Task::Pixel, "roc_auc"),
    ("aupro", Task::Pixel, "aupro"),
    ("pixel_ap", Task::Pixel, "average_precision"),
    ("pixel_f1_max", Task::Pixel, "f1"),
];

#[derive(Clone, Copy, PartialEq)]
enum Task {
    Image,
    Pixel,
}

fn results(config: &DetectorConfig) -> Vec<TaskResult> {
    let of = |wanted: Task| -> Vec<Metric> {
        let known = METRICS.iter().filter(|(_, task, ..)| *task == wanted);
        known
            .filter_map(|&(key, _, r#type)| {
                let exact = config.metrics.get(key)?.to_string();
                let name = words(Metrics::label(key));
                Some(Metric {
                    r#type,
                    name,
                    exact,
                })
            })
            .collect()
    };
    let tasks = [
        (
            "image-classification",
            "Image Classification",
            of(Task::Image),
        ),
        ("image-segmentation", "Image Segmentation", of(Task::Pixel)),
    ];
    tasks
        .into_iter()
        .filter(|(.., metrics)| !metrics.is_empty())
        .map(|(task, task_name, metrics)| TaskResult {
            task,
            task_name,
            metrics,
        })
        .collect()
}

/// All that was measured, the known metrics first and by their names.
fn rows(config: &DetectorConfig) -> Vec<Row> {
    let row = |key: &str, value: &f64| Row {
        name: words(Metrics::label(key)),
        value: trimmed(*value),
    };
    let known = METRICS
        .iter()
        .filter_map(|(key, ..)| Some(row(key, config.metrics.get(*key)?)));
    let is_known = |key: &str| METRICS.iter().any(|(known, ..)| *known == key);
    let others = config.metrics.iter().filter(|(key, _)| !is_known(key));
    known
        .chain(others.map(|(key, value)| row(key, value)))
        .collect()
}

/// With spaces, and a capital in front: `latency_ms` is "Latency ms".
fn words(key: &str) -> String {
    let text = key.replace('_', " ");
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Four decimals at most.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The repository that the backbone's weights come from; none where it needs none.
fn base_model(backbone: &BackboneRecord) -> Option<String> {
    let listed = || backbones::info(&backbone.id).ok()?.hub_repo;
    backbone.repo.clone().or_else(listed)
}

fn licence_of(backbone: &BackboneRecord) -> &'static str {
    match backbones::info(&backbone.id) {
        Ok(info) if info.licence != "NOASSERTION" => info.licence,
        _ => "not known to the project",
    }
}

fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

fn template() -> Result<minijinja::Template<'static, 'static>> {
    static READY: std::sync::LazyLock<std::result::Result<Environment<'static>, minijinja::Error>> =
        std::sync::LazyLock::new(|| {
            let mut environment = Environment::new();
            // A field that a card asks for and nobody gives is a mistake, not an empty string.
            environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
            environment.add_template("card", TEMPLATE)?;
            Ok(environment)
        });
    let ready = READY
        .as_ref()
        .map_err(|error| Error::Invalid(format!("model card: {error:#}")))?;
    ready.get_template("card").map_err(fault)
}

fn fault(error: minijinja::Error) -> Error {
    Error::Invalid(format!("model card: {error:#}"))
}
