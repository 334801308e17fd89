//! Curves of a run.

use std::path::Path;

use candle_fastflow::{
    report::{Chart, Series},
    training::EpochRecord,
};

/// Negative log-likelihood over epochs, of training and held-out images.
pub fn training_curve(path: &Path, history: &[EpochRecord]) -> anyhow::Result<()> {
    let series = |label: &str, pick: fn(&EpochRecord) -> f64| Series {
        label: label.to_string(),
        points: history
            .iter()
            .map(|epoch| (epoch.epoch as f64, pick(epoch)))
            .collect(),
    };
    let curves = vec![
        series("training images", |e| e.nll),
        series("held-out images", |e| e.held_out_nll),
    ];
    let axes = ["epoch", "negative log-likelihood (nats a value)"];
    Ok(Chart::lines("Training", axes, curves).write(path)?)
}
