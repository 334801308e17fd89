//! The Hub: every way a download or a publication can go wrong, against a Hub in this process.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, missing_docs)]

mod card;
mod download;
mod program;
mod publish;
mod python;
mod setup;
#[path = "../support/mod.rs"]
mod support;
