//! Figures of an evaluation as tables for a terminal.

use candle_fastflow::{
    evaluation::{Evaluation, Metrics},
    report,
};
use comfy_table::{CellAlignment, Table};

use super::common;

/// Every figure, with its interval where it has one.
pub fn metrics(name: &str, evaluation: &Evaluation) -> Table {
    let mut table = numbers(&[name, "", "95 % interval"]);
    for (metric, value) in evaluation.metrics.figures() {
        let interval = evaluation.intervals.get(metric);
        let interval = interval.map(ToString::to_string);
        table.add_row([
            Metrics::label(metric).to_string(),
            format!("{value:.4}"),
            interval.unwrap_or_default(),
        ]);
    }
    table
}

/// A page's table.
pub fn table(table: report::Table) -> Table {
    let header: Vec<&str> = table.header.iter().map(String::as_str).collect();
    let mut numbers = numbers(&header);
    numbers.add_rows(table.rows);
    numbers
}

/// An empty table whose columns but the first are numbers.
fn numbers(header: &[&str]) -> Table {
    let mut table = common::table(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
