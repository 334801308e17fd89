//! CFLOW-AD's settings.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::CFlow;
use crate::Result;
use crate::estimators::{
    Estimator, Fitting, GradientMethod, MapKind, MethodConfig, Paper, Trainable, method::expect,
};
use crate::kernels::FeatureShape;

/// CFLOW-AD (Gudovskiy et al. 2021, arXiv 2107.12571).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CFlowConfig {
    /// Coupling blocks of each scale (section 5.1: 8).
    pub steps: usize,
    /// Bound of each block's log-scale (the authors' 1.9).
    pub clamp: f32,
    /// How many numbers encode a position (section 5.1: 128).
    pub condition: usize,
}

impl Default for CFlowConfig {
    fn default() -> Self {
        Self {
            steps: 8,
            clamp: 1.9,
            condition: 128,
        }
    }
}

/// Most channels of a map: a block keeps a rotation of them.
const MAX_CHANNELS: usize = 4096;
/// Most positions of a map.
const MAX_POSITIONS: usize = 1 << 20;
/// Most trainable parameters.
const MAX_PARAMETERS: usize = 300_000_000;

impl CFlowConfig {
    /// Trainable parameters over such features.
    pub fn parameter_count(&self, shapes: &[FeatureShape]) -> usize {
        let block = |shape: &FeatureShape| {
            let sizes = Sizes::of(self, shape.channels);
            let (inputs, hidden) = (sizes.passive + sizes.condition, sizes.hidden());
            hidden * (inputs + 1) + 2 * sizes.active * (hidden + 1) + 2 * shape.channels
        };
        shapes.iter().map(|shape| self.steps * block(shape)).sum()
    }
}

/// The sizes of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Channels that the subnet sees.
    pub(super) passive: usize,
    /// Channels that are moved.
    pub(super) active: usize,
    /// Numbers that encode a position.
    pub(super) condition: usize,
}

impl Sizes {
    pub(super) fn of(config: &CFlowConfig, channels: usize) -> Self {
        Self {
            passive: channels - channels / 2,
            active: channels / 2,
            condition: config.condition,
        }
    }

    pub(super) fn channels(&self) -> usize {
        self.passive + self.active
    }

    /// Hidden numbers of the subnet.
    pub(super) fn hidden(&self) -> usize {
        2 * (self.passive + self.condition)
    }
}

impl MethodConfig for CFlowConfig {
    fn title(&self) -> &'static str {
        "CFLOW-AD"
    }

    fn paper(&self) -> Paper {
        Paper {
            url: "https://arxiv.org/abs/2107.12571",
            bibtex: "@inproceedings{gudovskiy2022cflow,
  title     = {{CFLOW-AD}: Real-Time Unsupervised Anomaly Detection with Localization via Conditional Normalizing Flows},
  author    = {Gudovskiy, Denis and Ishizaka, Shun and Kozuka, Kazuki},
  booktitle = {WACV},
  year      = {2022}
}",
        }
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        let words = format!(
            "{} blocks a scale over single positions, each told by {} numbers where it is",
            self.steps, self.condition
        );
        vec![("Flow", words)]
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        let check = |ok, must: String| expect(self.title(), ok, &must);
        let (steps, clamp, condition) = (self.steps, self.clamp, self.condition);
        check(
            (1..=128).contains(&steps),
            format!("steps must be 1 to 128, not {steps}"),
        )?;
        check(
            clamp > 0.0 && clamp <= 10.0,
            format!("clamp must be above 0 and at most 10, not {clamp}"),
        )?;
        check(
            (4..=4096).contains(&condition) && condition.is_multiple_of(4),
            format!("condition must be a multiple of 4 from 4 to 4096, not {condition}"),
        )?;
        check(
            (1..=8).contains(&shapes.len()),
            format!("there must be 1 to 8 feature maps, not {}", shapes.len()),
        )?;
        for shape in shapes {
            let fits = (2..=MAX_CHANNELS).contains(&shape.channels)
                && shape.height.saturating_mul(shape.width) <= MAX_POSITIONS
                && shape.height.min(shape.width) > 0;
            check(
                fits,
                format!(
                    "feature maps must have 2 to {MAX_CHANNELS} channels and at most {MAX_POSITIONS} positions, not {}x{}x{}",
                    shape.channels, shape.height, shape.width
                ),
            )?;
        }
        let parameters = self.parameter_count(shapes);
        check(
            parameters <= MAX_PARAMETERS,
            format!("{parameters} parameters are more than {MAX_PARAMETERS}; lower steps"),
        )
    }

    fn map_count(&self, shapes: &[FeatureShape]) -> usize {
        shapes.len()
    }

    fn map_kinds(&self) -> &'static [MapKind] {
        &[MapKind::Nll, MapKind::Exp]
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

impl GradientMethod for CFlowConfig {
    fn init(
        &self,
        shapes: &[FeatureShape],
        seed: u64,
        device: &Device,
    ) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(CFlow::init(self, shapes, seed, device)?))
    }

    fn load_trainable(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Trainable>> {
        let flow = CFlow::from_tensors(self, shapes, tensors, device)?;
        Ok(Box::new(flow))
    }
}
