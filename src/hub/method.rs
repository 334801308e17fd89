//! What a card says about a detector's method.

use serde::Serialize;

use crate::estimators::EstimatorConfig;

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
        let paper = config.paper();
        Self {
            title: config.title(),
            tag: config.method().word(),
            url: paper.url,
            bibtex: paper.bibtex,
            settings: config.in_words(),
        }
    }
}
