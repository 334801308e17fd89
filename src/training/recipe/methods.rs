//! From settings to a method and its scores.

use super::*;

impl Settings {
    /// The method's settings for feature maps of these shapes, of inputs like `input`.
    pub(super) fn estimator(
        &self,
        backbone: &BackboneInfo,
        input: &Preprocessing,
        shapes: &[FeatureShape],
    ) -> Result<EstimatorConfig> {
        self.refuse_foreign()?;
        let family = backbone.family;
        let config = match self.chosen_method() {
            None => EstimatorConfig::PatchCore(self.default_recipe(family)),
            Some(Method::Ensemble) => {
                EstimatorConfig::Ensemble(self.ensemble(backbone, input, shapes)?)
            }
            Some(method) => self.single(method, family, shapes)?,
        };
        config.validate(shapes)?;
        Ok(config)
    }

    fn single(
        &self,
        method: Method,
        family: Family,
        shapes: &[FeatureShape],
    ) -> Result<EstimatorConfig> {
        Ok(match method {
            Method::FastFlow => {
                let preset = FlowConfig::preset(self.preset(), family, shapes)?;
                let changes = FlowChanges {
                    neighbourhood: self.neighbourhood,
                    ..self.flow()
                };
                EstimatorConfig::FastFlow(changes.apply(preset, shapes)?)
            }
            Method::CFlow => EstimatorConfig::CFlow(self.cflow()),
            Method::DifferNet => EstimatorConfig::DifferNet(self.differnet(family)),
            Method::PatchCore => EstimatorConfig::PatchCore(self.patchcore(family)),
            Method::Spade => EstimatorConfig::Spade(self.spade()),
            Method::Mahalanobis => EstimatorConfig::Mahalanobis(Default::default()),
            Method::PaDiM => EstimatorConfig::PaDiM(self.padim(family, shapes)),
            Method::Ensemble => {
                return Err(Error::Invalid("an ensemble has no ensembles in it".into()));
            }
        })
    }

    /// Every member with the maps and the scoring that it has alone.
    fn ensemble(
        &self,
        backbone: &BackboneInfo,
        input: &Preprocessing,
        shapes: &[FeatureShape],
    ) -> Result<EnsembleConfig> {
        let taps: &[usize] = &backbone.taps;
        let member = |&method: &Method| {
            let wanted = match &self.taps {
                Some(_) => None,
                None => taps_of(method, backbone.family),
            };
            let wanted = |map: &usize| {
                wanted.is_none_or(|wanted| taps.get(*map).is_some_and(|tap| wanted.contains(tap)))
            };
            let maps: Vec<usize> = (0..shapes.len()).filter(wanted).collect();
            let own: Vec<FeatureShape> = maps.iter().map(|&map| shapes[map]).collect();
            let estimator = self.single(method, backbone.family, &own)?;
            let scoring = self.scoring_of(Some(method), &estimator, input, own.len());
            Ok(Member {
                scoring,
                estimator,
                maps,
            })
        };
        let members = self.ensemble.iter().flatten().map(member);
        Ok(EnsembleConfig {
            members: members.collect::<Result<_>>()?,
        })
    }

    /// The methods that these settings speak of: an ensemble's members, or the one method.
    fn methods(&self) -> Vec<Method> {
        match &self.ensemble {
            Some(members) => members.clone(),
            None => vec![self.chosen_method().unwrap_or(Method::PatchCore)],
        }
    }

    /// Whether these settings speak of a method.
    pub(super) fn methods_of(&self, method: Method) -> bool {
        self.methods().contains(&method)
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
                memory: self.memory.unwrap_or(if self.fast { 2000 } else { 5000 }),
                grid: Grid::Coarsest,
                inputs: if self.fast { 1 } else { 3 },
                density: 5,
                normalised: true,
                ..plain
            },
        }
    }

    /// Settings of another method are a misunderstanding, not to be passed over.
    pub(super) fn refuse_foreign(&self) -> Result<()> {
        let memory = self.memory.is_some() || self.metric.is_some();
        let neighbours = self.neighbours.is_some() || self.precision.is_some();
        let convolutional =
            self.norm.is_some() || self.kernels.is_some() || self.coupling.is_some();
        let methods = self.methods();
        let lacks = |of: &[Method]| !methods.iter().any(|method| of.contains(method));
        let foreign = [
            (
                lacks(&[Method::FastFlow]) && (convolutional || self.preset.is_some()),
                "a convolutional flow (preset, norm, kernels, coupling)",
            ),
            (
                lacks(&[Method::FastFlow, Method::DifferNet])
                    && (self.hidden.is_some() || self.clamp.is_some()),
                "subnets (hidden, clamp)",
            ),
            (lacks(&FLOWS) && self.steps.is_some(), "a flow (steps)"),
            (
                lacks(&FLOWS) && self.has_optimiser(),
                "an optimiser (epochs, batch, learning rate, schedule, stopping rule)",
            ),
            (
                lacks(&[Method::PatchCore]) && memory,
                "a memory (memory, metric)",
            ),
            (
                lacks(&[Method::PatchCore, Method::FastFlow]) && self.neighbourhood.is_some(),
                "local averages (neighbourhood)",
            ),
            (
                lacks(&[Method::PatchCore, Method::Spade]) && neighbours,
                "neighbours that are remembered (neighbours, precision)",
            ),
            (
                lacks(&[Method::PaDiM]) && self.channels.is_some(),
                "Gaussians (channels)",
            ),
        ];
        match foreign.iter().find(|(given, _)| *given) {
            Some((_, what)) => {
                let words: Vec<&str> = methods.iter().map(|method| method.word()).collect();
                Err(Error::Invalid(format!(
                    "the method {} has no settings of {what}",
                    words.join(",")
                )))
            }
            None if self.ensemble.is_some() => self.refuse_in_ensemble(),
            None => Ok(()),
        }
    }

    /// Settings that would have to be each member's own.
    fn refuse_in_ensemble(&self) -> Result<()> {
        if self.methods().contains(&Method::DifferNet) {
            return Err(Error::Invalid(
                "an ensemble has no member differnet: it sees photos at sizes of its own".into(),
            ));
        }
        let own = [
            (self.stop_on.is_some(), "stopping rule"),
            (self.standardise_scales, "scales to standardise"),
            (self.image_weights.is_some(), "image weights"),
            (
                self.map.is_some() || self.image_map.is_some() || self.pixel_map.is_some(),
                "choice of maps",
            ),
        ];
        match own.iter().find(|(given, _)| *given) {
            Some((_, what)) => Err(Error::Invalid(format!(
                "an ensemble has no {what}: each member scores as it does alone"
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

    fn differnet(&self, family: Family) -> DifferNetConfig {
        let defaults = DifferNetConfig {
            inputs: 1 + self.further_sizes(family).len(),
            ..DifferNetConfig::default()
        };
        let hidden = defaults.hidden as f64 * self.hidden.unwrap_or(1.0);
        DifferNetConfig {
            steps: self.steps.unwrap_or(defaults.steps),
            hidden: hidden.round() as usize,
            clamp: self.clamp.unwrap_or(defaults.clamp),
            ..defaults
        }
    }

    fn spade(&self) -> SpadeConfig {
        let defaults = SpadeConfig::default();
        SpadeConfig {
            photos: self.neighbours.unwrap_or(defaults.photos),
            precision: self.precision.unwrap_or(defaults.precision),
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
        self.scoring_of(self.chosen_method(), estimator, input, scales)
    }

    fn scoring_of(
        &self,
        method: Option<Method>,
        estimator: &EstimatorConfig,
        input: &Preprocessing,
        scales: usize,
    ) -> Scoring {
        let plain = estimator.scoring();
        let pixels = (input.height * input.width) as f64;
        let top = |share: f64| ImageScore::TopK((pixels * share).round().max(1.0) as usize);
        match (method, self.preset()) {
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
            // PatchCore's too, so that it is no word for a flow.
            neighbourhood: None,
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

/// Methods that are flows.
const FLOWS: [Method; 3] = [Method::FastFlow, Method::CFlow, Method::DifferNet];

/// Where the method wants features to leave a backbone; none for the backbone's own taps.
pub(super) fn taps_of(method: Method, family: Family) -> Option<&'static [usize]> {
    match (method, family) {
        // Roth et al. 2021, section 3.1: neither the finest stage, too generic, nor the last, biased to ImageNet's
        // classes. SPADE's image features are the third stage's, where files without a fourth are common.
        (
            Method::PatchCore | Method::Spade | Method::CFlow,
            Family::BasicResNet | Family::BottleneckResNet,
        ) => Some(&[2, 3]),
        // The coarsest map that every file has.
        (Method::DifferNet, Family::BasicResNet | Family::BottleneckResNet) => Some(&[3]),
        _ => None,
    }
}
