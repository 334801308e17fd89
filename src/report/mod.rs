//! What people look at: heat maps over photos, curves, and a page for a whole evaluation.
//!
//! Everything here takes plain pictures, maps and scores. Colours come from one [`ColourScale`] a
//! detector, so that the same colour means the same score in every picture.

mod contact;
mod curves;
mod evaluated;
mod explained;
mod html;
mod item;
mod overlay;
mod page;
mod picture;
mod scale;

pub use contact::{ContactSheet, contact_page};
pub use curves::{Chart, Series};
pub use explained::explanation_page;
pub use html::{ReportInput, Table};
pub use item::{Outcome, ReportItem, Subject};
pub use overlay::{MapView, mask_picture, outline, overlay, panel};
pub use page::page;
pub use picture::{heat_map, overlay_names};
pub use scale::ColourScale;

/// Four digits that count.
fn number(value: f32) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let digits = if value == 0.0 {
        0.0
    } else {
        value.abs().log10().floor()
    };
    let decimals = (3.0 - digits).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}
