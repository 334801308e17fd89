//! PAPER.md's table of flows, per backbone.

use serde::{Deserialize, Serialize};

use super::{Coupling, FeatureNorm, FlowConfig, Kernels};
use crate::Result;
use crate::kernels::{Family, FeatureShape};

/// A family of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The paper's Table 6, with a feature norm that has no parameters.
    Paper,
    /// anomalib's: ResNets 3-1 with a trainable LayerNorm, ViTs with a hidden width of 0.16 C/2.
    Anomalib,
    /// The paper's flow behind whitened features, which bear larger steps of the optimiser and few epochs. Chosen
    /// on screw with ResNet18 (docs/accuracy.md).
    Whitened,
}

impl FlowConfig {
    /// The preset's flow over the features of a backbone of this family.
    ///
    /// # Errors
    /// When the shapes are absurd.
    pub fn preset(preset: Preset, family: Family, shapes: &[FeatureShape]) -> Result<Self> {
        let hidden = |channels: usize| match (preset, family) {
            (Preset::Paper | Preset::Whitened, Family::Vit) => channels / 6,
            // The ports' int(ratio * inputs of the subnet).
            (Preset::Anomalib, Family::Vit) => (0.16 * (channels - channels / 2) as f64) as usize,
            _ => channels / 2,
        };
        let config = Self {
            steps: if family == Family::Vit { 20 } else { 8 },
            kernels: match (preset, family) {
                (Preset::Paper | Preset::Whitened, Family::BasicResNet) | (_, Family::Wavelet) => {
                    Kernels::Three
                }
                _ => Kernels::Alternating,
            },
            hidden: shapes
                .iter()
                .map(|shape| hidden(shape.channels).max(1))
                .collect(),
            clamp: 2.0,
            norm: match (preset, family) {
                (Preset::Whitened, _) => FeatureNorm::Whiten,
                (_, Family::Wavelet) => FeatureNorm::Standardise,
                (Preset::Paper, _) => FeatureNorm::LayerNorm,
                (Preset::Anomalib, Family::Vit) => FeatureNorm::None,
                (Preset::Anomalib, _) => FeatureNorm::LayerNormAffine,
            },
            coupling: Coupling::Affine,
            neighbourhood: 1,
        };
        config.validate(shapes)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{FeatureNorm, FlowConfig, Kernels, Preset};
    use crate::kernels::{Family, FeatureShape};

    fn pyramid(channels: &[usize]) -> Vec<FeatureShape> {
        let side = |c: usize| 64 * channels[0] / c;
        let shape = |&c: &usize| FeatureShape {
            channels: c,
            height: side(c),
            width: side(c),
        };
        channels.iter().map(shape).collect()
    }

    /// PAPER.md's column "ours must be", in thousands.
    #[test]
    fn parameter_counts_are_the_papers() {
        let resnet = pyramid(&[64, 128, 256]);
        let four = pyramid(&[64, 64, 128, 256]);
        let wide = pyramid(&[256, 512, 1024]);
        let tokens = pyramid(&[768]);
        let paper = |family: Family, shapes: &[FeatureShape]| {
            FlowConfig::preset(Preset::Paper, family, shapes).unwrap()
        };
        let ratio = |ratio: f64| {
            let mut config = paper(Family::BottleneckResNet, &wide);
            for (hidden, shape) in config.hidden.iter_mut().zip(&wide) {
                *hidden = (shape.channels as f64 / 2.0 * ratio) as usize;
            }
            config
        };
        let with = |mut config: FlowConfig, kernels: Kernels| {
            config.kernels = kernels;
            config
        };
        let wider = |mut config: FlowConfig| {
            config.hidden = vec![256];
            config
        };
        let r18 = paper(Family::BasicResNet, &resnet);
        let vit = paper(Family::Vit, &tokens);
        let cait = paper(Family::Vit, &tokens);
        let rows = [
            ("R18 3-3", &r18, &resnet, 4657),
            (
                "R18 3-1",
                &with(r18.clone(), Kernels::Alternating),
                &resnet,
                2593,
            ),
            (
                "R18 3-3, four maps",
                &paper(Family::BasicResNet, &four),
                &four,
                4880,
            ),
            (
                "R18 3-1, four maps",
                &with(paper(Family::BasicResNet, &four), Kernels::Alternating),
                &four,
                2718,
            ),
            ("WR50 3-1 .25", &ratio(0.25), &wide, 10367),
            ("WR50 3-1 .5", &ratio(0.5), &wide, 20690),
            (
                "WR50 3-1 1",
                &paper(Family::BottleneckResNet, &wide),
                &wide,
                41338,
            ),
            ("WR50 3-1 2", &ratio(2.0), &wide, 82633),
            ("WR50 3-3", &with(ratio(1.0), Kernels::Three), &wide, 74368),
            ("ViT 3-1", &vit, &tokens, 14794),
            (
                "ViT 3-3",
                &with(vit.clone(), Kernels::Three),
                &tokens,
                26591,
            ),
            ("CaiT 3-1 h 256", &wider(cait), &tokens, 29542),
        ];
        for (name, config, shapes, thousands) in rows {
            config.validate(shapes).unwrap();
            let count = config.parameter_count(shapes);
            assert_eq!((count + 500) / 1000, thousands, "{name}: {count}");
        }
    }

    #[test]
    fn anomalib_adds_the_trainable_norm_and_narrows_vits() {
        let shapes = pyramid(&[64, 128, 256]);
        let ports = FlowConfig::preset(Preset::Anomalib, Family::BasicResNet, &shapes).unwrap();
        assert_eq!(ports.kernels, Kernels::Alternating);
        let without = FlowConfig {
            norm: FeatureNorm::None,
            ..ports.clone()
        };
        let norm = ports.parameter_count(&shapes) - without.parameter_count(&shapes);
        assert_eq!(norm, 2 * (64 * 64 * 64 + 128 * 32 * 32 + 256 * 16 * 16));
        let tokens = pyramid(&[768]);
        let vit = FlowConfig::preset(Preset::Anomalib, Family::Vit, &tokens).unwrap();
        assert_eq!(
            (vit.hidden, vit.steps, vit.norm),
            (vec![61], 20, FeatureNorm::None)
        );
    }
}
