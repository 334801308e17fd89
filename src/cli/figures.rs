//! Figures of an evaluation as tables for a terminal.

use candle_fastflow::evaluation::{ClassResult, Evaluation, Metrics};
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
    let mut table = numbers(&[
        "class",
        "images",
        "called defective",
        "image AUROC",
        "recall at 5 % f. a.",
        "pixel AUROC",
        "AUPRO",
    ]);
    for class in classes {
        let metrics = class.metrics.as_ref();
        table.add_row([
            class.class.clone(),
            class.images.to_string(),
            class.called_defective.map_or("-".into(), |n| n.to_string()),
            figure(metrics.map(|m| m.image_auroc)),
            figure(metrics.map(|m| m.recall_at_5_fpr)),
            figure(metrics.and_then(|m| m.pixel_auroc)),
            figure(metrics.and_then(|m| m.aupro)),
        ]);
    }
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
