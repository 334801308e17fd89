//! `fastflow list`: which detectors and backbones there are.

use candle_fastflow::{
    backbones,
    evaluation::Metrics,
    hub::{Hub, Listed, locate_weights},
};
use comfy_table::Table;
use indicatif::HumanBytes;
use serde::Serialize;

use super::{Outcome, common, transfer::Transfer};

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow list\n\
    FASTFLOW_NAMESPACE names the organisation whose detectors are listed")]
pub struct Args {
    /// List backbones instead of detectors
    #[arg(long)]
    backbones: bool,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let hub = Hub::from_environment()?;
    if args.backbones {
        let rows = backbone_rows(&hub);
        show(args.json, &rows, backbone_table)?;
    } else {
        let transfer = Transfer::new(args.json);
        let listed = hub.list(&|event| transfer.show(event))?;
        if listed.is_empty() && !args.json {
            let namespace = hub.options().namespace();
            common::print_line(format!(
                "no detectors of {namespace} on the Hub, and none in the cache"
            ))?;
            return Ok(Outcome::Done);
        }
        show(args.json, &listed, detector_table)?;
    }
    Ok(Outcome::Done)
}

fn show<T: Serialize>(json: bool, rows: &[T], table: impl Fn(&[T]) -> Table) -> anyhow::Result<()> {
    if json {
        return common::print_line(serde_json::to_string(rows)?);
    }
    common::print_line(table(rows))
}

fn detector_table(listed: &[Listed]) -> Table {
    let header = [
        "name",
        "category",
        "backbone",
        "method",
        Metrics::label("image_auroc"),
        Metrics::label("pixel_auroc"),
        "size",
        "downloads",
        "where",
    ];
    let mut table = common::table(&header);
    // A card may hold anything; a terminal must not obey it.
    let text = |value: &Option<String>| -> String {
        let letters = value.iter().flat_map(|value| value.chars());
        letters.filter(|c| !c.is_control()).collect()
    };
    let figure = |value: Option<f64>| value.map(|value| format!("{value:.4}")).unwrap_or_default();
    for entry in listed {
        let place = match (entry.published, entry.cached) {
            (Some(true), true) => "Hub, cache",
            (Some(true), false) => "Hub",
            _ => "cache",
        };
        table.add_row([
            entry.name.clone(),
            text(&entry.category),
            text(&entry.backbone),
            text(&entry.method),
            figure(entry.image_auroc),
            figure(entry.pixel_auroc),
            entry
                .bytes
                .map(|bytes| HumanBytes(bytes).to_string())
                .unwrap_or_default(),
            entry
                .downloads
                .map(|count| count.to_string())
                .unwrap_or_default(),
            place.to_string(),
        ]);
    }
    table
}

/// One backbone that the program knows.
#[derive(Serialize)]
struct BackboneRow {
    id: String,
    input: usize,
    tap: String,
    licence: &'static str,
    cached: bool,
}

fn backbone_rows(hub: &Hub) -> Vec<BackboneRow> {
    let row = |info: backbones::BackboneInfo| BackboneRow {
        input: info.preprocessing.height,
        cached: !backbones::needs_weights(&info.id)
            || locate_weights(&info.id).is_some()
            || hub.has_backbone(&info.id),
        tap: info.tap,
        licence: info.licence,
        id: info.id,
    };
    backbones::list().into_iter().map(row).collect()
}

fn backbone_table(rows: &[BackboneRow]) -> Table {
    let mut table = common::table(&["id", "input", "tap", "licence", "here"]);
    for row in rows {
        let here = if row.cached { "yes" } else { "no" };
        table.add_row([&row.id, &row.input.to_string(), &row.tap, row.licence, here]);
    }
    table
}
