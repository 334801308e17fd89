//! The paper's tables from one small plan file: categories x backbones x seeds x variants.
//!
//! A [`Plan`] becomes [`Cell`]s. [`Runner`] trains and measures each: a detector's folder with its card
//! and a [`CellResult`] that tells what it came from, so that a cell whose inputs are the same is not run
//! again. [`tables()`] sets the results beside the paper's figures; they are files, and those of several
//! machines merge by being in one folder.

mod aggregate;
mod cells;
mod line;
mod plan;
mod published;
mod render;
mod resources;
mod result;
mod run;
mod speeds;
mod table;
mod tables;

pub use aggregate::Measured;
pub use cells::{Cell, RESULTS, Share};
pub use plan::Plan;
pub use render::{TABLES, write_tables};
pub use result::{CellResult, Scored};
pub use run::{Progress, Runner, Summary};
pub use speeds::measure_speeds;
pub use table::{Entry, Table, Tables};
pub use tables::tables;
