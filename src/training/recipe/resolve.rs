//! From settings to a run.

use super::*;

/// Width over height, or height over width, beyond which a square input squeezes too much: 16:9 is, 4:3 and 3:2 are not.
const FAR_FROM_SQUARE: f64 = 1.5;

impl Settings {
    /// Step size for adapting a trained flow: a fresh Adam's first steps are of full size whatever the
    /// gradient is, and at the paper's 1e-3 they undo what the parent had learnt (docs/accuracy.md).
    pub const FINE_TUNING_RATE: f64 = 1e-4;
    /// Share of normal images that may be called defective.
    pub const FALSE_ALARM_RATE: f64 = 0.01;

    /// Whether a change of these settings needs no training.
    pub fn only_scoring<'a>(mut keys: impl Iterator<Item = &'a str>) -> bool {
        keys.all(|key| SCORING.contains(&key))
    }

    /// Whether a setting means the same to every method, so that settings of one can be taken over for another.
    pub fn of_any_method(key: &str) -> bool {
        OF_ANY_METHOD.contains(&key)
    }

    /// The method; none for the default recipe.
    pub fn chosen_method(&self) -> Option<Method> {
        if self.ensemble.is_some() {
            return Some(Method::Ensemble);
        }
        let of_a_flow = self.preset.is_some() || self.has_flow() || self.has_optimiser();
        self.method.or(of_a_flow.then_some(Method::FastFlow))
    }

    /// When the input takes the photos' shape, so that [`Self::aspect`] is to be measured where it is not given
    /// ([`Self::follow`]). The default recipe always does; other methods where photos are far from square, unless their
    /// sizes are a paper's or a side was asked for.
    pub fn shape(&self) -> Shape {
        let both_sides = matches!(self.size, Some(InputSize::Sides(..)));
        let of_paper = self.preset == Some(Preset::Paper) || self.methods_of(Method::DifferNet);
        match self.chosen_method() {
            _ if self.aspect.is_some() || both_sides => Shape::AsSaid,
            None => Shape::OfPhotos,
            Some(_) if self.size.is_some() || of_paper => Shape::AsSaid,
            Some(_) => Shape::OfPhotosFarFromSquare,
        }
    }

    /// Takes from the photos what is not given: their shape, width over height, where [`Self::shape`] says so, and that the
    /// threshold comes from all of them: the default recipe's always, that of any method fitted in closed form where they
    /// are at most 100.
    ///
    /// # Errors
    /// When photos cannot be read.
    pub fn follow(&mut self, dataset: &Dataset) -> Result<()> {
        if self.shape() != Shape::AsSaid {
            let photos = dataset.aspect()?;
            let far = !(1.0 / FAR_FROM_SQUARE..=FAR_FROM_SQUARE).contains(&photos);
            if far || self.shape() == Shape::OfPhotos {
                self.aspect = Some(photos);
            }
        }
        let few = dataset.train.len() <= FEW_TO_HOLD_OUT;
        let cross_fits = |method: Method| few && method.is_closed();
        if self.folds.is_none() && self.chosen_method().is_none_or(cross_fits) {
            self.folds = Some(FOLDS);
        }
        Ok(())
    }

    /// Where features are to leave `backbone`: as asked for, or where the method wants them; none for the
    /// backbone's own taps.
    ///
    /// # Errors
    /// For an unknown id, and for taps that the backbone has not.
    pub fn backbone_taps(&self, backbone: &str) -> Result<Option<Taps>> {
        let info = backbones::info_with(backbone, self.taps.as_ref())?;
        if self.taps.is_some() {
            return Ok(info.chosen_taps());
        }
        let wanted = |&method: &Method| methods::taps_of(method, info.family);
        let taps = match &self.ensemble {
            None => wanted(&self.chosen_method().unwrap_or(Method::PatchCore)),
            // A member that takes the backbone's own brings in all of them.
            Some(members) => {
                let first = members.first().and_then(wanted);
                first.filter(|_| members.iter().all(|member| wanted(member) == first))
            }
        };
        taps.map(|taps| Taps::new(taps.to_vec())).transpose()
    }

    /// The training run of these settings on a backbone (its full id), with one seed. No weights are needed, so
    /// that a plan can be checked whole.
    ///
    /// # Errors
    /// The first setting that is out of range, or does not fit the backbone or the method.
    pub fn resolve(&self, backbone: &str, seed: u64) -> Result<TrainConfig> {
        self.check_ranges()?;
        let taps = self.backbone_taps(backbone)?;
        let info = backbones::info_with(backbone, taps.as_ref())?;
        let input = self.input(&info);
        input.validate(std::path::Path::new("size"))?;
        let of_inputs = input.inputs().into_iter();
        let of_inputs = of_inputs.map(|input| {
            backbones::shapes_with(backbone, taps.as_ref(), input.height, input.width)
        });
        let shapes = of_inputs.collect::<Result<Vec<_>>>()?.concat();
        let estimator = self.estimator(&info, &input, &shapes)?;
        let scoring = self.scoring(&self.default_scoring(&estimator, &input, shapes.len()));
        let config = self.run(estimator, input, scoring, seed)?;
        config.scoring.check(&config.estimator, &shapes)?;
        Ok(config)
    }

    /// The run that adapts a detector: its input, method and scoring stay.
    ///
    /// # Errors
    /// The first setting that is out of range, or one that would change what is adapted.
    pub fn adapt(&self, parent: &DetectorConfig, seed: u64) -> Result<TrainConfig> {
        self.check_ranges()?;
        if matches!(parent.estimator, EstimatorConfig::Ensemble(_)) {
            return Err(Error::Invalid(
                "an ensemble is not adapted; train its members anew on all photos".into(),
            ));
        }
        if !parent.estimator.is_trained() && self.has_optimiser() {
            return Err(parent.estimator.lacks(
                "optimiser (epochs, batch, learning rate, schedule, stopping rule); it is fitted in one pass",
            ));
        }
        let record = parent.training.as_ref();
        let record = record.and_then(|record| record.optimisation.as_ref());
        let preset = record.map_or(self.preset(), |record| record.preset);
        let settings = Self {
            learning_rate: self.learning_rate.or(Some(Self::FINE_TUNING_RATE)),
            // New photos are few, mostly.
            folds: self
                .folds
                .or(parent.estimator.method().is_closed().then_some(FOLDS)),
            ..self.clone()
        };
        let estimator = parent.estimator.clone();
        let (input, scoring) = (parent.preprocessing.clone(), parent.scoring.clone());
        let config = settings.run(estimator, input, scoring, seed)?;
        Ok(TrainConfig { preset, ..config })
    }

    pub(super) fn run(
        &self,
        estimator: EstimatorConfig,
        preprocessing: Preprocessing,
        scoring: Scoring,
        seed: u64,
    ) -> Result<TrainConfig> {
        let defaults = OptimiserDefaults::of_method(&estimator, self.preset());
        let estimator_is_flow = estimator.as_flow().is_some();
        let config = TrainConfig {
            preset: self.preset(),
            estimator,
            preprocessing,
            scoring,
            epochs: self.epochs.unwrap_or(defaults.epochs),
            batch: self.batch.unwrap_or(defaults.batch),
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            schedule: self.schedule.unwrap_or(defaults.schedule),
            weight_decay: self
                .weight_decay
                .unwrap_or(AdamConfig::default().weight_decay),
            gradient_clip: self.gradient_clip,
            adaptive_clip: self.gradient_clip.is_none()
                && self.preset() == Preset::Whitened
                && estimator_is_flow,
            augmentation: self.augmentation(),
            seed,
            dataset: None,
            false_alarm_rate: self.false_alarm_rate.unwrap_or(Self::FALSE_ALARM_RATE),
            folds: self.folds.unwrap_or(1),
            final_fit: self.final_fit,
            stop: self.stop_on.map(|StopOn::Synthetic| Stop {
                patience: self.patience,
            }),
            activations: Default::default(),
            memory_limit: TrainConfig::DEFAULT_MEMORY_LIMIT,
            checkpoint_every: TrainConfig::CHECKPOINT_EVERY,
        };
        config.validate()?;
        Ok(config)
    }

    /// What no later check would call by its name.
    fn check_ranges(&self) -> Result<()> {
        for (name, value, largest) in [
            ("horizontal_flip", self.horizontal_flip, 1.0),
            ("vertical_flip", self.vertical_flip, 1.0),
            ("rotation_probability", self.rotation_probability, 1.0),
            ("rotation (degrees)", self.rotation, 180.0),
        ] {
            if !(0.0..=largest).contains(&value) {
                return Err(Error::Invalid(format!(
                    "{name} must be 0 to {largest}, not {value}"
                )));
            }
        }
        if self.page == Some(0) {
            return Err(Error::Invalid("page is counted from 1".into()));
        }
        if let (Some(_), Some(size @ InputSize::Sides(..))) = (self.aspect, self.size) {
            return Err(Error::Invalid(format!(
                "size {size} says the shape already; leave out aspect, or give size as one number"
            )));
        }
        if let Some(aspect) = self.aspect
            && !(0.1..=10.0).contains(&aspect)
        {
            return Err(Error::Invalid(format!(
                "aspect must be 0.1 to 10, not {aspect}"
            )));
        }
        if self.fast && self.chosen_method().is_some() {
            return Err(Error::Invalid(
                "fast is the default recipe's; with a method or a flow's settings it has no meaning".into(),
            ));
        }
        match self.pixel_size {
            Some(0) => Err(Error::Invalid("pixel_size must be at least 1".into())),
            _ => Ok(()),
        }
    }

    pub(super) fn preset(&self) -> Preset {
        self.preset.unwrap_or(Preset::Paper)
    }

    /// The network's inputs. The default recipe looks at photos in their own shape and, through a pyramid of features,
    /// at three sizes: small defects show in a large input, and what is usual of a texture in a small one
    /// (docs/accuracy.md).
    pub(super) fn input(&self, backbone: &BackboneInfo) -> Preprocessing {
        let default = Preprocessing {
            page: self.page.filter(|page| *page != 1),
            ..backbone.preprocessing.clone()
        };
        if self.chosen_method() == Some(Method::DifferNet) {
            return self.differnet_input(backbone);
        }
        let recipe = self.chosen_method().is_none() && backbone.family != Family::Vit;
        let pyramid = recipe && !self.fast;
        let usual = if pyramid {
            default.height * 3 / 2
        } else {
            default.height
        };
        let size = self.size.unwrap_or(InputSize::Side(usual));
        let aspect = self.aspect.unwrap_or(1.0);
        if let (false, 1.0, (height, width)) = (recipe, aspect, size.sides()) {
            return Preprocessing {
                height,
                width,
                ..default
            };
        }
        let unit = unit(backbone);
        let shaped = |share: f64| size.shaped(share, aspect, unit);
        let (height, width) = shaped(1.0);
        let further = [2.0 / 3.0, 0.5].map(shaped);
        Preprocessing {
            height,
            width,
            pyramid: if pyramid {
                further.to_vec()
            } else {
                Vec::new()
            },
            ..default
        }
    }
}

impl Settings {
    /// Rudolph et al. 2021, section 4.2: 448, 224 and 112 pixels, each in four quarter turns.
    fn differnet_input(&self, backbone: &BackboneInfo) -> Preprocessing {
        let further = self.further_sizes(backbone.family);
        let usual = match further {
            [] => backbone.preprocessing.height,
            _ => 448,
        };
        let size = self.size.unwrap_or(InputSize::Side(usual));
        let aspect = self.aspect.unwrap_or(1.0);
        let shaped = |share: &f64| size.shaped(*share, aspect, unit(backbone));
        let (height, width) = shaped(&1.0);
        Preprocessing {
            height,
            width,
            pyramid: further.iter().map(shaped).collect(),
            turns: 4,
            page: self.page.filter(|page| *page != 1),
            ..backbone.preprocessing.clone()
        }
    }

    /// Sizes of DifferNet's further inputs, of the first one's; a transformer's tokens are made for one size.
    pub(super) fn further_sizes(&self, family: Family) -> &'static [f64] {
        match family {
            Family::Vit => &[],
            _ => &[0.5, 0.25],
        }
    }
}

/// What both sides of an input must be multiples of, so that the maps of all stages cover it evenly.
fn unit(backbone: &BackboneInfo) -> usize {
    match backbone.family {
        Family::Vit if backbone.arch.contains("patch14") => 14,
        _ => 16,
    }
}
