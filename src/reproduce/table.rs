//! What a table is made of.

use serde::Serialize;

use super::aggregate::Measured;

/// A place in a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Entry {
    /// What a row is about.
    Text(String),
    /// A figure of ours.
    Measured(Measured),
    /// A figure that others published.
    Published(f64),
    /// Not run, or not published.
    Empty,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Its number in the paper; none where the paper has no such table.
    pub number: Option<u8>,
    /// What it shows.
    pub title: String,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// Decimals of each column's figures.
    #[serde(skip)]
    pub decimals: Vec<usize>,
    /// As many entries a row as columns.
    pub rows: Vec<Vec<Entry>>,
}

/// All tables of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tables {
    /// The data set's proper name.
    pub dataset: String,
    /// Cells of the plan.
    pub cells: usize,
    /// Cells that have a result.
    pub done: usize,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// Those that the data set has.
    pub tables: Vec<Table>,
}

impl From<Option<Measured>> for Entry {
    fn from(figure: Option<Measured>) -> Self {
        figure.map_or(Entry::Empty, Entry::Measured)
    }
}

impl From<Option<f64>> for Entry {
    fn from(figure: Option<f64>) -> Self {
        let known = figure.filter(|figure| !figure.is_nan());
        known.map_or(Entry::Empty, Entry::Published)
    }
}
