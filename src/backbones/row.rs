//! What a family's file says of each of its networks: a row of data.

use candle_core::Device;

use super::{
    Backbone, BackboneInfo, Family, FeatureShape,
    taps::{Choice, Taps},
    weights::Weights,
};
use crate::{Advice, Error, Result, imaging::Preprocessing};

/// One architecture with the weights that exist for it.
pub(super) struct Row {
    pub(super) arch: &'static str,
    pub(super) family: Family,
    /// Height and width of the default input.
    pub(super) size: usize,
    /// Mean and standard deviation of the channels that inputs are normalised with.
    pub(super) normalisation: Normalisation,
    /// timm's tags and their licences; the first is the project's default. Empty: no weights.
    pub(super) tags: &'static [Tag],
    /// The taps that there are.
    pub(super) taps: Choice,
    pub(super) default_taps: &'static [usize],
    pub(super) network: &'static dyn Network,
    /// The feature of Cargo.toml that the network needs and this build lacks.
    pub(super) lacks: Option<&'static str>,
}

/// What to build, and what can be said of it before.
pub(super) trait Network: Send + Sync {
    /// Shapes of the maps at `taps`, which exist, for an input of `height` x `width` pixels.
    fn shapes(&self, taps: &[usize], height: usize, width: usize) -> Result<Vec<FeatureShape>>;

    /// Where these taps are, in words for a listing.
    fn describe(&self, taps: &[usize]) -> String;

    /// The network with the taps that `info` has.
    fn build(&self, info: BackboneInfo, source: &Source) -> Result<Box<dyn Backbone>>;
}

/// What a network is built from.
pub(super) struct Source<'a> {
    pub(super) weights: Option<Weights>,
    pub(super) device: &'a Device,
}

impl Source<'_> {
    /// The weights of the backbone `id`, which needs some.
    pub(super) fn weights(&self, id: &str) -> Result<&Weights> {
        self.weights.as_ref().ok_or_else(|| {
            Error::Invalid(format!(
                "backbone `{id}` needs its weights (timm/{id}, model.safetensors)"
            ))
            .advise(Advice::BackboneWeights)
        })
    }
}

/// Mean and standard deviation of red, green and blue.
pub(super) type Normalisation = ([f32; 3], [f32; 3]);

pub(super) const IMAGENET: Normalisation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// A tag and its licence.
pub(super) type Tag = (&'static str, &'static str);

pub(super) const APACHE: &str = "Apache-2.0";
pub(super) const MIT: &str = "MIT";
pub(super) const BSD: &str = "BSD-3-Clause";
pub(super) const NON_COMMERCIAL: &str = "CC-BY-NC-4.0";
/// SPDX's word for "not known".
pub(super) const UNKNOWN_LICENCE: &str = "NOASSERTION";

impl Row {
    pub(super) fn default_tag(&self) -> Option<&'static str> {
        self.tags.first().map(|(tag, _)| *tag)
    }

    /// timm's `arch.tag`.
    fn id(&self, tag: Option<&str>) -> String {
        match tag {
            Some(tag) => format!("{}.{tag}", self.arch),
            None => self.arch.to_owned(),
        }
    }

    pub(super) fn all_taps(&self) -> Vec<usize> {
        match &self.taps {
            Choice::Among(all) => all.clone().collect(),
            Choice::Fixed => self.default_taps.to_vec(),
        }
    }

    /// What it is with these taps, by default its own.
    pub(super) fn info(&self, tag: Option<&str>, taps: Option<&Taps>) -> Result<BackboneInfo> {
        let id = self.id(tag);
        let taps = taps.map_or(self.default_taps, Taps::as_slice);
        self.taps.check(&id, taps, self.default_taps)?;
        let known = self.tags.iter().find(|(known, _)| Some(*known) == tag);
        let licence = match (tag, known) {
            (None, _) => "MIT OR Apache-2.0",
            (Some(_), Some((_, licence))) => licence,
            (Some(_), None) => UNKNOWN_LICENCE,
        };
        let (mean, std) = self.normalisation;
        Ok(BackboneInfo {
            hub_repo: tag.map(|_| format!("timm/{id}")),
            id,
            arch: self.arch,
            family: self.family,
            preprocessing: Preprocessing {
                mean,
                std,
                ..Preprocessing::imagenet(self.size)
            },
            tap: self.network.describe(taps),
            taps: taps.to_vec(),
            default_taps: self.default_taps.to_vec(),
            licence,
        })
    }

    /// Fails where this build cannot load it.
    pub(super) fn check_built(&self) -> Result<()> {
        match self.lacks {
            None => Ok(()),
            Some(feature) => Err(Error::Invalid(format!(
                "backbone `{}` is in builds with the feature `{feature}` only",
                self.arch
            ))
            .advise(Advice::BuildWith(feature))),
        }
    }
}
