//! What people look at: heat maps over photos, curves, and a page for a whole evaluation.
//!
//! Everything here takes plain pictures, maps and scores. Colours come from one [`ColourScale`] a
//! detector, so that the same colour means the same score in every picture.

mod curves;
mod html;
mod item;
mod overlay;
mod picture;
mod scale;

pub use curves::{Chart, Series};
pub use html::ReportInput;
pub use item::{Outcome, ReportItem, Subject};
pub use overlay::{MapView, mask_picture, outline, overlay, panel};
pub use picture::{heat_map, overlay_names};
pub use scale::ColourScale;
