//! Detectors by name: from the Hugging Face Hub into the cache, and from a folder to the Hub.
//!
//! Without the feature `hub` only names and folders are understood.

mod card;
mod method;
pub mod names;
mod pretrained;
mod progress;
mod weights;

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
mod list;
#[cfg(feature = "hub")]
mod offline;
#[cfg(feature = "hub")]
mod publish;
#[cfg(feature = "hub")]
mod stage;
#[cfg(feature = "hub")]
mod transfer;
#[cfg(feature = "hub")]
mod upload;
#[cfg(feature = "hub")]
mod variants;
#[cfg(feature = "hub")]
mod wait;

pub use self::{
    card::{CardFacts, DatasetFacts, render as render_card},
    names::{DetectorName, RepoId},
    pretrained::from_pretrained,
    progress::{Event, Progress},
    weights::{BACKBONES_VARIABLE, find_backbone, locate_weights},
};
#[cfg(feature = "hub")]
pub use self::{
    digest::Digest,
    environment::{HubOptions, Token},
    fetch::Hub,
    list::Listed,
    stage::{PublishOptions, Staged, StagedFile},
    upload::Published,
};
