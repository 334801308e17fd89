//! The shape of a flow, as it stands in an artifact's config.json.

use serde::{Deserialize, Serialize};

use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// Most values one feature map of one image may have (the paper's largest: 1 M).
const MAX_MAP_VALUES: usize = 1 << 24;
/// Most trainable parameters (the paper's largest flow: 82.6 M).
const MAX_PARAMETERS: usize = 300_000_000;

/// Everything that decides a flow's tensors, given the shapes of its features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowConfig {
    /// Coupling steps of each scale.
    pub steps: usize,
    /// Kernel sizes of the steps' subnets.
    pub kernels: Kernels,
    /// Hidden channels of the subnets, one number a scale.
    pub hidden: Vec<usize>,
    /// Bound of each step's log-scale.
    pub clamp: f32,
    /// What is done to the features before the first step.
    pub norm: FeatureNorm,
    /// What a step does to the channels that it transforms.
    #[serde(skip_serializing_if = "Coupling::is_affine", default)]
    pub coupling: Coupling,
    /// Side of the square of positions whose features are averaged before anything else; 1 for none. Not in the
    /// paper; Roth et al. 2021 (section 3.1) have 3.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub neighbourhood: usize,
}

fn one() -> usize {
    1
}

fn is_one(side: &usize) -> bool {
    *side == 1
}

/// What a step does to the channels that it transforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Coupling {
    /// Scales and shifts them (RealNVP; the paper).
    #[default]
    Affine,
    /// Shifts them only (NICE): the Jacobian's determinant is the same for every image, that of the
    /// global scales. The subnets have half the outputs.
    Additive,
}

/// A setting's word in `config.json`.
pub(super) fn word(setting: &impl Serialize) -> String {
    let value = serde_json::to_value(setting).unwrap_or_default();
    value.as_str().unwrap_or_default().to_string()
}

impl Coupling {
    /// Whether it is the usual one.
    pub fn is_affine(&self) -> bool {
        *self == Self::Affine
    }

    /// Output channels of the subnet of a step that transforms `active` channels.
    pub(super) fn outputs(self, active: usize) -> usize {
        match self {
            Self::Affine => 2 * active,
            Self::Additive => active,
        }
    }
}

/// Kernel sizes of the subnets along a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Kernels {
    /// 3, 1, 3, 1, ...: step 0 is 3x3.
    #[serde(rename = "3-1")]
    #[cfg_attr(feature = "cli", value(name = "3-1"))]
    Alternating,
    /// Always 3.
    #[serde(rename = "3-3")]
    #[cfg_attr(feature = "cli", value(name = "3-3"))]
    Three,
}

impl Kernels {
    /// The kernel size of step `step`.
    pub fn size(self, step: usize) -> usize {
        match self {
            Kernels::Alternating if step % 2 == 1 => 1,
            _ => 3,
        }
    }
}

/// What is done to the features before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum FeatureNorm {
    /// Nothing.
    None,
    /// Each channel with mean and deviation of the training images.
    Standardise,
    /// The channels made uncorrelated and of unit variance over the training images (ZCA), so that the steps start
    /// from the best Gaussian and learn only what it misses. Not in the paper.
    Whiten,
    /// Each image over (C, H, W), eps 1e-5.
    #[serde(alias = "layer-norm")] // as `train --norm` and plans spell it
    LayerNorm,
    /// The same with a trainable affine `[C, H, W]`, as the ports; ties the flow to one input size.
    #[serde(alias = "layer-norm-affine")]
    LayerNormAffine,
}

impl FlowConfig {
    /// Refuses sizes that make no sense, before anything is allocated for them.
    ///
    /// # Errors
    /// Names the field and what it may be.
    pub fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        let refuse = |reason: String| Err(Error::Invalid(format!("flow: {reason}")));
        if !(1..=128).contains(&self.steps) {
            return refuse(format!("steps must be 1 to 128, not {}", self.steps));
        }
        if !(self.clamp > 0.0 && self.clamp <= 10.0) {
            return refuse(format!(
                "clamp must be above 0 and at most 10, not {}",
                self.clamp
            ));
        }
        if !(1..=15).contains(&self.neighbourhood) || self.neighbourhood.is_multiple_of(2) {
            return refuse(format!(
                "neighbourhood must be an odd number of positions up to 15, not {}",
                self.neighbourhood
            ));
        }
        if !(1..=8).contains(&shapes.len()) {
            return refuse(format!(
                "there must be 1 to 8 feature maps, not {}",
                shapes.len()
            ));
        }
        if self.hidden.len() != shapes.len() {
            return refuse(format!(
                "hidden has {} numbers for {} feature maps; give one a map",
                self.hidden.len(),
                shapes.len()
            ));
        }
        for (scale, (&hidden, shape)) in self.hidden.iter().zip(shapes).enumerate() {
            if !(1..=8192).contains(&hidden) {
                return refuse(format!("hidden[{scale}] must be 1 to 8192, not {hidden}"));
            }
            validate_shape(scale, shape)?;
        }
        let parameters = self.parameter_count(shapes);
        if parameters > MAX_PARAMETERS {
            return refuse(format!(
                "{parameters} parameters are more than {MAX_PARAMETERS}; lower steps or hidden"
            ));
        }
        Ok(())
    }

    /// Trainable parameters over such features.
    pub fn parameter_count(&self, shapes: &[FeatureShape]) -> usize {
        let scales = shapes.iter().zip(&self.hidden);
        scales
            .map(|(shape, &hidden)| self.scale_parameters(shape, hidden))
            .sum()
    }

    fn scale_parameters(&self, shape: &FeatureShape, hidden: usize) -> usize {
        let active = shape.channels / 2;
        let passive = shape.channels - active;
        let steps: usize = (0..self.steps)
            .map(|step| {
                let area = self.kernels.size(step).pow(2);
                let first = hidden * (passive * area + 1);
                let second = self.coupling.outputs(active) * (hidden * area + 1);
                first + second + 2 * shape.channels
            })
            .sum();
        let norm = match self.norm {
            FeatureNorm::LayerNormAffine => 2 * shape.channels * shape.height * shape.width,
            _ => 0,
        };
        steps + norm
    }
}

fn validate_shape(scale: usize, shape: &FeatureShape) -> Result<()> {
    let FeatureShape {
        channels,
        height,
        width,
    } = *shape;
    let sides = 1..=4096;
    let fits = (2..=8192).contains(&channels)
        && sides.contains(&height)
        && sides.contains(&width)
        && channels * height * width <= MAX_MAP_VALUES;
    if fits {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "flow: feature map {scale} is {channels}x{height}x{width}; channels must be 2 to 8192, sides 1 to 4096, \
         and their product at most {MAX_MAP_VALUES}"
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Coupling, FeatureNorm, FlowConfig, Kernels};
    use crate::kernels::FeatureShape;

    fn config() -> FlowConfig {
        FlowConfig {
            steps: 8,
            kernels: Kernels::Alternating,
            hidden: vec![32],
            clamp: 2.0,
            norm: FeatureNorm::LayerNorm,
            coupling: Coupling::Affine,
            neighbourhood: 1,
        }
    }

    fn shape(channels: usize, side: usize) -> FeatureShape {
        FeatureShape {
            channels,
            height: side,
            width: side,
        }
    }

    #[test]
    fn is_spelled_as_the_artifact_needs_it() {
        let text = r#"{"steps":8,"kernels":"3-1","hidden":[32],"clamp":2.0,"norm":"layer_norm"}"#;
        assert_eq!(serde_json::to_string(&config()).unwrap(), text);
        assert_eq!(serde_json::from_str::<FlowConfig>(text).unwrap(), config());
        let additive = FlowConfig {
            coupling: Coupling::Additive,
            ..config()
        };
        let text = serde_json::to_string(&additive).unwrap();
        assert!(text.ends_with(r#","coupling":"additive"}"#), "{text}");
        let unknown = text.replace("\"steps\"", "\"extra\":1,\"steps\"");
        assert!(serde_json::from_str::<FlowConfig>(&unknown).is_err());
    }

    #[test]
    fn refuses_absurd_sizes() {
        let good = [shape(64, 16)];
        config().validate(&good).unwrap();
        let refused = |config: FlowConfig, shapes: &[FeatureShape], word: &str| {
            let message = config.validate(shapes).unwrap_err().to_string();
            assert!(
                message.contains(word) && !message.contains('\n'),
                "{message}"
            );
        };
        refused(
            FlowConfig {
                steps: 0,
                ..config()
            },
            &good,
            "steps",
        );
        refused(
            FlowConfig {
                steps: usize::MAX,
                ..config()
            },
            &good,
            "steps",
        );
        refused(
            FlowConfig {
                hidden: vec![usize::MAX],
                ..config()
            },
            &good,
            "hidden[0]",
        );
        refused(
            FlowConfig {
                hidden: vec![1, 2],
                ..config()
            },
            &good,
            "hidden",
        );
        refused(
            FlowConfig {
                clamp: f32::NAN,
                ..config()
            },
            &good,
            "clamp",
        );
        refused(
            FlowConfig {
                clamp: 1e9,
                ..config()
            },
            &good,
            "clamp",
        );
        let even = FlowConfig {
            neighbourhood: 2,
            ..config()
        };
        refused(even, &good, "neighbourhood");
        refused(config(), &[], "feature maps");
        refused(config(), &[shape(1, 16)], "channels");
        refused(config(), &[shape(usize::MAX, usize::MAX)], "channels");
        refused(config(), &[shape(8192, 4096)], "product");
        let huge = FlowConfig {
            steps: 128,
            hidden: vec![8192],
            ..config()
        };
        refused(huge, &[shape(8192, 8)], "parameters");
    }
}
