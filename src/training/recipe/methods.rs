//! From settings to a method and its scores.

use super::*;

impl Settings {
    pub(super) fn estimator(
        &self,
        family: Family,
        shapes: &[FeatureShape],
    ) -> Result<EstimatorConfig> {
        self.refuse_foreign()?;
        let config = match self.chosen_method() {
            Some(Method::FastFlow) => {
                let preset = FlowConfig::preset(self.preset(), family, shapes)?;
                EstimatorConfig::FastFlow(self.flow().apply(preset, shapes)?)
            }
            Some(Method::PatchCore) => EstimatorConfig::PatchCore(self.patchcore(family)),
            Some(Method::Mahalanobis) => EstimatorConfig::Mahalanobis(Default::default()),
            Some(Method::CFlow) => EstimatorConfig::CFlow(self.cflow()),
            Some(Method::PaDiM) => EstimatorConfig::PaDiM(self.padim(family, shapes)),
            None => EstimatorConfig::PatchCore(self.default_recipe(family)),
        };
        config.validate(shapes)?;
        Ok(config)
    }

    /// PatchCore over a pyramid of inputs; every choice is measured in docs/accuracy.md.
    fn default_recipe(&self, family: Family) -> PatchCoreConfig {
        let plain = self.patchcore(family);
        match family {
            Family::Vit => PatchCoreConfig {
                normalised: true,
                ..plain
            },
            _ => PatchCoreConfig {
                memory: self.memory.unwrap_or(5000),
                grid: Grid::Coarsest,
                inputs: 3,
                density: 5,
                normalised: true,
                ..plain
            },
        }
    }

    /// Settings of another method are a misunderstanding, not to be passed over.
    pub(super) fn refuse_foreign(&self) -> Result<()> {
        let memory = self.memory.is_some()
            || self.neighbourhood.is_some()
            || self.neighbours.is_some()
            || self.metric.is_some()
            || self.precision.is_some();
        let method = self.chosen_method().unwrap_or(Method::PatchCore);
        let trained = matches!(method, Method::FastFlow | Method::CFlow);
        let only_fastflow = FlowChanges {
            steps: None,
            ..self.flow()
        };
        let only_fastflow = only_fastflow != FlowChanges::default();
        let foreign = [
            (
                method != Method::FastFlow && (only_fastflow || self.preset.is_some()),
                "FastFlow's flow (preset, norm, kernels, hidden, clamp, coupling)",
            ),
            (!trained && self.steps.is_some(), "a flow (steps)"),
            (
                !trained && self.has_optimiser(),
                "an optimiser (epochs, batch, learning rate, schedule, stopping rule)",
            ),
            (
                method != Method::PatchCore && memory,
                "a memory (memory, neighbourhood, neighbours, metric, precision)",
            ),
            (
                method != Method::PaDiM && self.channels.is_some(),
                "Gaussians (channels)",
            ),
        ];
        match foreign.iter().find(|(given, _)| *given) {
            Some((_, what)) => Err(Error::Invalid(format!(
                "the method {method} has no settings of {what}"
            ))),
            None => Ok(()),
        }
    }

    fn padim(&self, family: Family, shapes: &[FeatureShape]) -> PaDiMConfig {
        let all = shapes.iter().map(|shape| shape.channels).sum();
        // The paper's numbers for ResNet18 and the wide ResNet50.
        let usual: usize = match family {
            Family::BottleneckResNet => 550,
            _ => 100,
        };
        PaDiMConfig::new(self.channels.unwrap_or(usual.min(all)))
    }

    fn cflow(&self) -> CFlowConfig {
        let defaults = CFlowConfig::default();
        CFlowConfig {
            steps: self.steps.unwrap_or(defaults.steps),
            ..defaults
        }
    }

    pub(super) fn has_flow(&self) -> bool {
        self.flow() != FlowChanges::default()
    }

    pub(super) fn has_optimiser(&self) -> bool {
        self.epochs.is_some()
            || self.batch.is_some()
            || self.learning_rate.is_some()
            || self.schedule.is_some()
            || self.weight_decay.is_some()
            || self.gradient_clip.is_some()
            || self.stop_on.is_some()
    }

    fn patchcore(&self, family: Family) -> PatchCoreConfig {
        let defaults = PatchCoreConfig::default();
        let metric = match family {
            Family::Vit => Metric::Cosine,
            _ => defaults.metric,
        };
        PatchCoreConfig {
            neighbourhood: self.neighbourhood.unwrap_or(match family {
                // Tokens see the whole photo already.
                Family::Vit => 1,
                _ => defaults.neighbourhood,
            }),
            memory: self.memory.unwrap_or(defaults.memory),
            neighbours: self.neighbours.unwrap_or(defaults.neighbours),
            metric: self.metric.unwrap_or(metric),
            precision: self.precision.unwrap_or(defaults.precision),
            ..defaults
        }
    }

    /// How the method scores photos that a network sees as `input` and makes `scales` feature maps of. Of a flow's
    /// preset [`Preset::Whitened`]: the mean of the highest 0.15 % of the pixels, where of three scales the finest,
    /// too noisy to say anything about a whole photo, does not count.
    pub(super) fn default_scoring(
        &self,
        estimator: &EstimatorConfig,
        input: &Preprocessing,
        scales: usize,
    ) -> Scoring {
        let plain = estimator.scoring();
        let pixels = (input.height * input.width) as f64;
        let top = |share: f64| ImageScore::TopK((pixels * share).round().max(1.0) as usize);
        match (self.chosen_method(), self.preset()) {
            // A 64th of the side smooths what single positions say; a hundredth of the pixels is a defect.
            (None, _) => Scoring {
                image_score: top(0.01),
                smoothing: Some((pixels.sqrt() / 64.0) as f32),
                ..plain
            },
            (Some(Method::FastFlow), Preset::Paper) => plain,
            (Some(Method::FastFlow), Preset::Anomalib) => Scoring {
                image_map: MapKind::Exp,
                pixel_map: MapKind::Exp,
                ..plain
            },
            (Some(Method::FastFlow), Preset::Whitened) => Scoring {
                image_map: MapKind::Exp,
                pixel_map: MapKind::Exp,
                image_score: top(100.0 / f64::from(256 * 256)),
                image_weights: (scales == 3).then(|| vec![0.0, 1.0, 1.0]),
                ..plain
            },
            (Some(_), _) => plain,
        }
    }

    pub(super) fn scoring(&self, default: &Scoring) -> Scoring {
        let changes = ScoringChanges {
            map: self.map,
            image_map: self.image_map,
            pixel_map: self.pixel_map,
            top_k: self.top_k,
            image_weights: self.image_weights.clone(),
            smoothing: self.smoothing,
        };
        Scoring {
            standardise_scales: self.standardise_scales,
            ..changes.apply(default)
        }
    }

    pub(super) fn flow(&self) -> FlowChanges {
        FlowChanges {
            norm: self.norm,
            kernels: self.kernels,
            steps: self.steps,
            hidden: self.hidden,
            clamp: self.clamp,
            coupling: self.coupling,
        }
    }

    pub(super) fn augmentation(&self) -> Option<AugmentationRecord> {
        (self.views != 1).then_some(AugmentationRecord {
            views: Augmentation {
                horizontal_flip: self.horizontal_flip,
                vertical_flip: self.vertical_flip,
                rotation: self.rotation_probability,
                degrees: self.rotation,
                quarter_turns: self.quarter_turns,
            },
            count: self.views,
        })
    }
}
