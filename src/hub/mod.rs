//! Detectors by name: from the Hugging Face Hub into the cache, and from a folder to the Hub.
//!
//! Without the feature `hub` only names and folders are understood.

pub mod names;

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod digest;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod environment;
#[cfg(feature = "hub")]
mod failure;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod progress;

#[cfg(feature = "hub")]
pub use self::{
    digest::Digest,
    environment::{HubOptions, Token},
    fetch::{BackbonePin, Hub},
    progress::{Event, Progress},
};
