//! What a method says about itself: its settings are data that lie in an artifact, and know how to become an estimator.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::{Estimator, FeatureSource, MapKind, Scoring, Trainable, ensemble::EnsembleConfig};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// A method's settings, as an artifact records them. One struct a method, in the method's own folder;
/// [`super::EstimatorConfig`] is the list of them.
pub trait MethodConfig {
    /// Its name in sentences.
    fn title(&self) -> &'static str;

    /// The paper: address and BibTeX entry.
    fn paper(&self) -> Paper;

    /// Its settings for a table: what, how.
    fn in_words(&self) -> Vec<(&'static str, String)>;

    /// Checks sizes before anything is allocated.
    ///
    /// # Errors
    /// The first setting that is out of range or does not fit the feature maps.
    fn validate(&self, shapes: &[FeatureShape]) -> Result<()>;

    /// How many maps it makes of these feature maps.
    fn map_count(&self, _shapes: &[FeatureShape]) -> usize {
        1
    }

    /// The maps it can make, the default first.
    fn map_kinds(&self) -> &'static [MapKind] {
        &[MapKind::Distance]
    }

    /// Whether it has an image score that is not read off its map ([`super::ImageScore::Own`]).
    fn has_own_score(&self) -> bool {
        false
    }

    /// How it scores unless said otherwise.
    fn scoring(&self) -> Scoring {
        let map = self.map_kinds().first().copied();
        let map = map.unwrap_or(MapKind::Distance);
        Scoring {
            image_map: map,
            pixel_map: map,
            ..Scoring::of_distances()
        }
    }

    /// The estimator with the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// When a tensor is missing, unexpected, misshapen or not usable; names it.
    fn load(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Estimator>>;

    /// How it is fitted.
    fn fitting(&self) -> Fitting<'_>;
}

/// An error that names the method unless a setting is as it must be.
pub(super) fn expect(method: &str, ok: bool, must: &str) -> Result<()> {
    match ok {
        true => Ok(()),
        false => Err(Error::Invalid(format!("{method}: {must}"))),
    }
}

/// Where a method is described.
#[derive(Debug, Clone, Copy)]
pub struct Paper {
    /// Its address.
    pub url: &'static str,
    /// How to cite it.
    pub bibtex: &'static str,
}

/// How a method is fitted.
pub enum Fitting<'a> {
    /// By steps of an optimiser.
    Gradient(&'a dyn GradientMethod),
    /// In closed form: one pass, without a loss.
    Closed(&'a dyn ClosedMethod),
    /// Member by member, each in its own way.
    Members(&'a EnsembleConfig),
}

/// A method that an optimiser fits.
pub trait GradientMethod {
    /// A fresh estimator, all randomness from `seed`.
    ///
    /// # Errors
    /// When the configuration is absurd.
    fn init(
        &self,
        shapes: &[FeatureShape],
        seed: u64,
        device: &Device,
    ) -> Result<Box<dyn Trainable>>;

    /// The estimator with the tensors of [`Estimator::tensors`], to be trained on.
    ///
    /// # Errors
    /// As [`MethodConfig::load`].
    fn load_trainable(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Trainable>>;
}

/// A method that is fitted in closed form.
pub trait ClosedMethod {
    /// Fits it to the features of normal images.
    ///
    /// # Errors
    /// When there are too few images, or the features do not vary.
    fn fit(
        &self,
        features: &dyn FeatureSource,
        with: &mut FitWith<'_>,
    ) -> Result<Box<dyn Estimator>>;
}

/// What a closed fit is given beside the features.
pub struct FitWith<'a> {
    /// The one seed.
    pub seed: u64,
    /// Where the estimator is to compute.
    pub device: &'a Device,
    /// A fitted estimator of the same method whose knowledge is to be kept.
    pub parent: Option<&'a dyn Estimator>,
    /// Hears how far the fit is (done, total), and answers whether to go on.
    pub progress: &'a mut dyn FnMut(usize, usize) -> bool,
}

impl FitWith<'_> {
    /// Tells how far the fit is.
    ///
    /// # Errors
    /// When told to end.
    pub fn tell(&mut self, done: usize, total: usize) -> Result<()> {
        if (self.progress)(done, total) {
            return Ok(());
        }
        Err(Error::Training("interrupted; nothing was saved".into()))
    }
}
