//! A flow's settings that differ from a preset's: flags of `train`, lines of a plan.

use serde::{Deserialize, Serialize};

use super::{Coupling, FeatureNorm, FlowConfig, Kernels};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// What is changed in a preset's [`FlowConfig`]; nothing where none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowChanges {
    /// What is done to the features before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<FeatureNorm>,
    /// Kernel sizes of the subnets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Kernels>,
    /// Coupling steps a scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Hidden widths of the subnets, as a multiple of the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<f64>,
    /// Bound of each step's log-scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamp: Option<f32>,
    /// What a step does to the channels that it transforms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupling: Option<Coupling>,
    /// Side of the square of positions whose features are averaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbourhood: Option<usize>,
}

impl FlowChanges {
    /// The changed preset over features of `shapes`.
    ///
    /// # Errors
    /// When the result makes no sense.
    pub fn apply(&self, preset: FlowConfig, shapes: &[FeatureShape]) -> Result<FlowConfig> {
        let factor = self.hidden.unwrap_or(1.0);
        if !(factor > 0.0 && factor <= 64.0) {
            return Err(Error::Invalid(format!(
                "flow: hidden must be above 0 and at most 64 times the preset's width, not {factor}"
            )));
        }
        let widths = preset.hidden.iter();
        let changed = FlowConfig {
            norm: self.norm.unwrap_or(preset.norm),
            kernels: self.kernels.unwrap_or(preset.kernels),
            steps: self.steps.unwrap_or(preset.steps),
            hidden: widths
                .map(|&width| ((width as f64 * factor).round() as usize).max(1))
                .collect(),
            clamp: self.clamp.unwrap_or(preset.clamp),
            coupling: self.coupling.unwrap_or(preset.coupling),
            neighbourhood: self.neighbourhood.unwrap_or(preset.neighbourhood),
        };
        changed.validate(shapes)?;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Coupling, FlowChanges, FlowConfig, Kernels};
    use crate::estimators::flow::Preset;
    use crate::kernels::{Family, FeatureShape};

    #[test]
    fn changes_what_is_named_and_nothing_else() {
        let shapes = [FeatureShape {
            channels: 768,
            height: 28,
            width: 28,
        }];
        let preset = FlowConfig::preset(Preset::Paper, Family::Vit, &shapes).unwrap();
        let apply = |changes: FlowChanges| changes.apply(preset.clone(), &shapes);
        assert_eq!(apply(FlowChanges::default()).unwrap(), preset);
        let changes: FlowChanges = serde_json::from_str(
            r#"{"hidden": 2.0, "kernels": "3-3", "clamp": 1.5, "coupling": "additive"}"#,
        )
        .unwrap();
        let changed = apply(changes).unwrap();
        let expected = FlowConfig {
            hidden: vec![256],
            kernels: Kernels::Three,
            clamp: 1.5,
            coupling: Coupling::Additive,
            ..preset.clone()
        };
        assert_eq!(changed, expected);
        let absurd = |hidden| FlowChanges {
            hidden: Some(hidden),
            ..FlowChanges::default()
        };
        assert!(apply(absurd(f64::NAN)).is_err() && apply(absurd(-1.0)).is_err());
    }
}
