//! Tables as Markdown, JSON and a page.

use std::fmt::Write;
use std::path::Path;

use minijinja::context;

use super::{
    aggregate::Measured,
    table::{Entry, Table, Tables},
};
use crate::{Error, Result, files, report};

/// The files of [`write_tables`].
pub const TABLES: [&str; 3] = ["tables.md", "tables.json", "tables.html"];

/// Writes `tables.md`, `tables.json` and `tables.html` into `out`.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_tables(tables: &Tables, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    files::write_bytes(out.join(TABLES[0]), markdown(tables).as_bytes())?;
    files::write_json(out.join(TABLES[1]), tables)?;
    files::write_bytes(out.join(TABLES[2]), page(tables)?.as_bytes())
}

fn markdown(tables: &Tables) -> String {
    let mut text = format!("# {}\n\n", title(tables));
    for table in &tables.tables {
        let _ = writeln!(text, "## {}\n", caption(table));
        let _ = writeln!(text, "| {} |", table.columns.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(table.columns.len()));
        for row in &table.rows {
            let bold = |(entry, decimals): (&Entry, &usize)| match entry {
                Entry::Measured(_) => format!("**{}**", shown(entry, *decimals)),
                _ => shown(entry, *decimals),
            };
            let cells: Vec<String> = row.iter().zip(&table.decimals).map(bold).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text.push('\n');
    }
    for note in &tables.notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}

fn page(tables: &Tables) -> Result<String> {
    let all: Vec<_> = tables
        .tables
        .iter()
        .map(|table| {
            let cell = |(entry, decimals): (&Entry, &usize)| {
                context! { shown => shown(entry, *decimals), kind => kind(entry) }
            };
            let row = |row: &Vec<Entry>| {
                row.iter()
                    .zip(&table.decimals)
                    .map(cell)
                    .collect::<Vec<_>>()
            };
            context! {
                caption => caption(table),
                columns => heads(table),
                rows => table.rows.iter().map(row).collect::<Vec<_>>(),
            }
        })
        .collect();
    let content = context! { title => title(tables), notes => &tables.notes, tables => all };
    report::page(include_str!("tables.html"), content)
}

/// Heads of columns, with the side that they stand on.
fn heads(table: &Table) -> Vec<minijinja::Value> {
    let first = table.rows.first();
    let is_text = |i: usize| first.is_some_and(|row| matches!(row.get(i), Some(Entry::Text(_))));
    let head = |(i, name): (usize, &String)| {
        context! { name => name, kind => if is_text(i) { "text" } else { "figure" } }
    };
    table.columns.iter().enumerate().map(head).collect()
}

fn title(tables: &Tables) -> String {
    let Tables {
        dataset,
        cells,
        done,
        ..
    } = tables;
    format!("Detectors on {dataset}: {done} of {cells} cells")
}

fn caption(table: &Table) -> String {
    match table.number {
        Some(number) => format!("Table {number}: {}", table.title),
        None => table.title.clone(),
    }
}

fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::Text(_) => "text",
        Entry::Measured(_) => "ours",
        Entry::Published(_) => "theirs",
        Entry::Empty => "empty",
    }
}

fn shown(entry: &Entry, decimals: usize) -> String {
    match entry {
        Entry::Text(text) => text.clone(),
        Entry::Published(figure) => format!("{figure:.decimals$}"),
        Entry::Empty => String::new(),
        Entry::Measured(Measured {
            mean,
            std,
            categories,
            of,
            ..
        }) => {
            let mut text = format!("{mean:.decimals$}");
            if let Some(std) = std {
                let _ = write!(text, " ± {std:.decimals$}");
            }
            if categories < of {
                let _ = write!(text, " ({categories}/{of})");
            }
            text
        }
    }
}
