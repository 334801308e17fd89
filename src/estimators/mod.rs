//! What models the distribution of normal features: the second half of a detector (the paper's section 1 cuts it
//! in two: feature extraction, distribution estimation). One folder a method; [`Estimator`] is the seam between
//! them and the rest of the house, and [`EstimatorConfig`] the one list of them.
//!
//! A new method has a folder of its own with a struct of settings ([`MethodConfig`]) and an [`Estimator`], and a variant
//! in `config.rs`.

pub mod cflow;
mod changes;
mod config;
pub mod differnet;
mod embedding;
pub mod ensemble;
pub mod flow;
pub mod gaussian;
mod maps;
pub mod memory;
mod method;
mod moments;
mod scoring;
mod source;
mod tensors;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};

pub use changes::ScoringChanges;
pub use config::{EstimatorConfig, Method};
pub use maps::{AnomalyMap, MapKind, NativeMaps, Share, combine};
pub use method::{ClosedMethod, FitWith, Fitting, GradientMethod, MethodConfig, Paper};
pub use moments::{ChannelCovariance, ChannelStatistics, channel_statistics};
pub use scoring::{ImageScore, MapStatistics, ScaleStatistics, Scoring};
pub use source::{FeatureSource, SomeMaps};

use crate::kernels::FeatureShape;
use crate::{Error, Result};
use flow::{Activations, FastFlow};

/// A distribution of normal features that says how far new ones are from it.
pub trait Estimator: Send + Sync + std::fmt::Debug {
    /// What it is, as an artifact records it.
    fn config(&self) -> EstimatorConfig;

    /// Shapes of the feature maps it takes.
    fn shapes(&self) -> &[FeatureShape];

    /// Where its tensors are.
    fn device(&self) -> Device;

    /// Everything an artifact needs, by name.
    ///
    /// # Errors
    /// Only when candle fails.
    fn tensors(&self) -> Result<BTreeMap<String, Tensor>>;

    /// How many numbers are trained (the paper's "additional parameters"); none of a method that only keeps
    /// statistics or features.
    fn parameter_count(&self) -> usize {
        0
    }

    /// Maps of feature maps `[B, C, H, W]` at the estimator's own resolutions, of the kinds that `scoring` names:
    /// the expensive part of an inspection.
    ///
    /// # Errors
    /// When the features have other shapes than [`Self::shapes`].
    fn native_maps(&self, features: &[Tensor], scoring: &Scoring) -> Result<NativeMaps>;

    /// Image scores `[B]` and localisation maps `[B, H, W]` of `size` (rows, columns). A method that can do it in
    /// fewer passes than [`Self::native_maps`] and [`Scoring::finish`] does.
    ///
    /// # Errors
    /// When the features have other shapes than [`Self::shapes`].
    fn inspect(
        &self,
        features: &[Tensor],
        scoring: &Scoring,
        statistics: Option<MapStatistics<'_>>,
        size: (usize, usize),
    ) -> Result<(Tensor, Tensor)> {
        let maps = self.native_maps(features, scoring)?;
        scoring.finish(&maps, statistics, size)
    }

    /// Makes the members of an ensemble comparable by held-out normal images; of a single method nothing.
    ///
    /// # Errors
    /// When the features have other shapes than [`Self::shapes`], or a score is not finite.
    fn standardise(&mut self, _normal: &dyn FeatureSource) -> Result<()> {
        Ok(())
    }

    /// Takes [`Self::standardise`]'s result over from an estimator of the same settings.
    ///
    /// # Errors
    /// When it has other members.
    fn standardise_as(&mut self, _other: &dyn Estimator) -> Result<()> {
        Ok(())
    }

    /// The flow, of the method that is one: its latents can be looked at and changed.
    fn as_flow(&self) -> Option<&FastFlow> {
        None
    }
}

/// An estimator that is fitted by gradient steps on its negative log-likelihood.
pub trait Trainable: Estimator {
    /// The trainable tensors, sorted by name.
    fn parameters(&self) -> Vec<(String, Var)>;

    /// Takes what it has to know of the training features before the first step.
    ///
    /// # Errors
    /// When the shapes do not fit or the features do not vary.
    fn prepare(&mut self, features: &dyn FeatureSource) -> Result<()>;

    /// Negative log-likelihood of each image, f32 `[B]`, up to a constant.
    ///
    /// # Errors
    /// When the maps have other shapes than [`Estimator::shapes`].
    fn nll(&self, features: &[Tensor]) -> Result<Tensor>;

    /// The sum of [`Self::nll`] over the images as an f64 scalar on the features' device, which is not waited for,
    /// and its gradients in the order of [`Self::parameters`]. May be called from several threads at once.
    ///
    /// # Errors
    /// When the maps have other shapes than [`Estimator::shapes`].
    fn loss_and_gradients(&self, features: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)>;

    /// Images that go through [`Self::loss_and_gradients`] together on one core.
    fn images_at_once(&self) -> usize {
        4
    }

    /// Values of one image that the likelihood is of: by so many a figure for reading is divided.
    fn values(&self) -> usize {
        self.shapes().iter().map(FeatureShape::values).sum()
    }

    /// Where [`Self::loss_and_gradients`] takes activations from, for a method that has the choice.
    fn set_activations(&mut self, _activations: Activations) {}
}

/// An error unless these are f32 feature maps `[B, C, H, W]` of these shapes.
fn expect_features(features: &[Tensor], shapes: &[FeatureShape]) -> Result<()> {
    if features.len() != shapes.len() {
        return Err(Error::Shape {
            what: "features of an estimator".into(),
            expected: format!("{} maps", shapes.len()),
            found: features.len().to_string(),
        });
    }
    for (scale, (map, shape)) in features.iter().zip(shapes).enumerate() {
        let dims = [shape.channels, shape.height, shape.width];
        if map.rank() != 4 || map.dims()[1..] != dims || map.dtype() != DType::F32 {
            return Err(Error::Shape {
                what: format!("feature map {scale}"),
                expected: format!("f32 [B, {}, {}, {}]", dims[0], dims[1], dims[2]),
                found: format!("{} {:?}", map.dtype().as_str(), map.dims()),
            });
        }
    }
    Ok(())
}
