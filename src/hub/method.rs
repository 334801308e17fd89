//! What a card says about a detector's method.

use serde::Serialize;

use crate::estimators::{EstimatorConfig, flow::FlowConfig};

/// A method as its paper presents it, and this detector's settings of it.
#[derive(Debug, Serialize)]
pub(super) struct Method {
    /// Its name in sentences.
    title: &'static str,
    /// The word that is its tag and its name in flags.
    tag: &'static str,
    /// The paper.
    url: &'static str,
    bibtex: &'static str,
    /// Of the table about training: what, how.
    settings: Vec<(&'static str, String)>,
}

impl Method {
    pub(super) fn of(config: &EstimatorConfig) -> Self {
        let (url, bibtex) = paper(config);
        Self {
            title: config.title(),
            tag: config.method(),
            url,
            bibtex,
            settings: settings(config),
        }
    }
}

fn settings(config: &EstimatorConfig) -> Vec<(&'static str, String)> {
    match config {
        EstimatorConfig::FastFlow(flow) => vec![("Flow", flow_in_words(flow))],
    }
}

fn flow_in_words(flow: &FlowConfig) -> String {
    let hidden: Vec<String> = flow.hidden.iter().map(ToString::to_string).collect();
    let mut words = format!(
        "{} steps a scale, kernels {}, hidden channels {}",
        flow.steps,
        word(&flow.kernels),
        hidden.join(", ")
    );
    if !flow.coupling.is_affine() {
        words += &format!(", {} coupling", word(&flow.coupling));
    }
    words
}

/// A setting's word in `config.json`.
fn word(setting: &impl Serialize) -> String {
    let value = serde_json::to_value(setting).unwrap_or_default();
    value.as_str().unwrap_or_default().to_string()
}

/// Address and BibTeX entry.
fn paper(config: &EstimatorConfig) -> (&'static str, &'static str) {
    match config {
        EstimatorConfig::FastFlow(_) => (
            "https://arxiv.org/abs/2111.07677",
            "@article{yu2021fastflow,
  title   = {FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows},
  author  = {Yu, Jiawei and Zheng, Ye and Wang, Xiang and Li, Wei and Wu, Yushuang and Zhao, Rui and Wu, Liwei},
  journal = {arXiv preprint arXiv:2111.07677},
  year    = {2021}
}",
        ),
    }
}
