//! Figures of an evaluation as tables for a terminal.

use candle_fastflow::{
    evaluation::{ClassResult, Evaluation, Metrics},
    report,
};
use comfy_table::{CellAlignment, Table};

use super::common;

/// Every figure, with its interval where it has one.
pub fn metrics(name: &str, evaluation: &Evaluation) -> Table {
    let mut table = numbers(&[name, "", "95 % interval"]);
    for (metric, value) in evaluation.metrics.figures() {
        let interval = evaluation.intervals.get(metric);
        let interval = interval.map(|i| format!("{:.3} to {:.3}", i.low, i.high));
        table.add_row([
            Metrics::label(metric).to_string(),
            format!("{value:.4}"),
            interval.unwrap_or_default(),
        ]);
    }
    table
}

/// Each class of defects against all good images.
pub fn classes(classes: &[ClassResult]) -> Table {
    let classes = report::Table::of_classes(classes);
    let header: Vec<&str> = classes.header.iter().map(String::as_str).collect();
    let mut table = numbers(&header);
    table.add_rows(classes.rows);
    table
}

/// The original test set beside harder ones.
pub fn perturbed(original: &Metrics, perturbed: &[(&'static str, Metrics)]) -> Table {
    let names = perturbed.iter().map(|(name, _)| *name);
    let header: Vec<&str> = ["test photos made harder", "as they are"]
        .into_iter()
        .chain(names)
        .collect();
    let mut table = numbers(&header);
    let columns: Vec<_> = perturbed.iter().map(|(_, m)| m.to_map()).collect();
    for (metric, value) in original.figures() {
        let harder = columns
            .iter()
            .map(|column| figure(column.get(metric).copied()));
        let row = [Metrics::label(metric).to_string(), figure(Some(value))];
        table.add_row(row.into_iter().chain(harder));
    }
    table
}

/// An empty table whose columns but the first are numbers.
fn numbers(header: &[&str]) -> Table {
    let mut table = common::table(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn figure(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.4}"))
}
