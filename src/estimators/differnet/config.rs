//! DifferNet's settings.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::DifferNet;
use crate::Result;
use crate::estimators::{
    Estimator, Fitting, GradientMethod, ImageScore, MethodConfig, Paper, Scoring, Trainable,
    method::expect,
};
use crate::kernels::FeatureShape;

/// DifferNet (Rudolph et al. 2021, arXiv 2008.12577).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DifferNetConfig {
    /// Coupling blocks (section 4.2: 8).
    pub steps: usize,
    /// Neurons of each of the three hidden layers of a subnet (the paper's 2048 make 172 million weights of ResNet18's
    /// features).
    pub hidden: usize,
    /// Bound of the log-scales (section 4.2: 3).
    pub clamp: f32,
    /// Inputs of different sizes whose features are joined (section 3.1: 3).
    pub inputs: usize,
    /// Quarter turns in which each is seen, the upright one included: 1 or 4.
    pub turns: usize,
}

impl Default for DifferNetConfig {
    fn default() -> Self {
        Self {
            steps: 8,
            hidden: 512,
            clamp: 3.0,
            inputs: 3,
            turns: 4,
        }
    }
}

impl DifferNetConfig {
    /// Feature maps of one view at one size.
    pub(super) fn maps_of_view(&self, maps: usize) -> usize {
        maps / (self.inputs * self.turns)
    }

    /// Number of the feature map that is pooled: the coarsest of this size and turn.
    pub(super) fn pooled(&self, maps: usize, input: usize, turn: usize) -> usize {
        (input * self.turns + turn + 1) * self.maps_of_view(maps) - 1
    }

    /// Values of the joined vector of one view.
    pub(super) fn channels(&self, shapes: &[FeatureShape]) -> usize {
        let of_input = |input| shapes[self.pooled(shapes.len(), input, 0)].channels;
        (0..self.inputs).map(of_input).sum()
    }
}

impl MethodConfig for DifferNetConfig {
    fn title(&self) -> &'static str {
        "DifferNet"
    }

    fn paper(&self) -> Paper {
        Paper {
            url: "https://arxiv.org/abs/2008.12577",
            bibtex: "@inproceedings{rudolph2021same,
  title     = {Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing Flows},
  author    = {Rudolph, Marco and Wandt, Bastian and Rosenhahn, Bodo},
  booktitle = {WACV},
  year      = {2021}
}",
        }
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "Features",
                format!(
                    "means of the coarsest map at {} sizes, in {} quarter turns",
                    self.inputs, self.turns
                ),
            ),
            (
                "Flow",
                format!(
                    "{} fully connected blocks, {} hidden neurons",
                    self.steps, self.hidden
                ),
            ),
        ]
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        let check = |ok, must: &str| expect(self.title(), ok, must);
        check((1..=64).contains(&self.steps), "steps must be 1 to 64")?;
        check(
            (1..=8192).contains(&self.hidden),
            "hidden must be 1 to 8192 neurons",
        )?;
        check(
            self.clamp > 0.0 && self.clamp <= 10.0,
            "clamp must be more than 0 and at most 10",
        )?;
        check((1..=9).contains(&self.inputs), "inputs must be 1 to 9")?;
        check(matches!(self.turns, 1 | 4), "turns must be 1 or 4")?;
        let views = self.inputs * self.turns;
        check(
            !shapes.is_empty() && shapes.len().is_multiple_of(views),
            "needs as many feature maps of every size and turn",
        )?;
        let channels = self.channels(shapes);
        check(
            (2..=1 << 14).contains(&channels),
            "pooled features must be 2 to 16384",
        )
    }

    fn map_count(&self, _: &[FeatureShape]) -> usize {
        self.inputs
    }

    fn has_own_score(&self) -> bool {
        true
    }

    /// Section 3.2's score; a map of what raises it.
    fn scoring(&self) -> Scoring {
        Scoring {
            image_score: ImageScore::Own,
            smoothing: Some(4.0),
            ..Scoring::of_distances()
        }
    }

    fn load(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Estimator>> {
        Ok(self.load_trainable(shapes, tensors, device)?)
    }

    fn fitting(&self) -> Fitting<'_> {
        Fitting::Gradient(self)
    }
}

impl GradientMethod for DifferNetConfig {
    fn init(
        &self,
        shapes: &[FeatureShape],
        seed: u64,
        device: &Device,
    ) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(DifferNet::init(self, shapes, seed, device)?))
    }

    fn load_trainable(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Trainable>> {
        let loaded = DifferNet::from_tensors(self, shapes, tensors, device)?;
        Ok(Box::new(loaded))
    }
}
