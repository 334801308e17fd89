//! An ensemble as an [`Estimator`].

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{
    EnsembleConfig, Member,
    standard::{Standard, moments, standardised},
};
use crate::estimators::{
    Estimator, EstimatorConfig, FeatureSource, MethodConfig as _, NativeMaps, Scoring,
    expect_features,
};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// Of every member what its scores and maps are standardised by, `[members, 4]`.
const STANDARDS: &str = "standards";

/// Fitted members.
#[derive(Debug)]
pub struct Ensemble {
    config: EnsembleConfig,
    shapes: Vec<FeatureShape>,
    members: Vec<Box<dyn Estimator>>,
    standards: Vec<Standard>,
}

/// What one member says of a batch: image scores `[B]` and maps `[B, H, W]`.
struct Said {
    scores: Tensor,
    maps: Tensor,
}

impl Ensemble {
    /// Of members fitted one by one, not yet standardised.
    ///
    /// # Errors
    /// When the settings are out of range, or there are more or fewer members than they say.
    pub fn new(
        config: &EnsembleConfig,
        shapes: &[FeatureShape],
        members: Vec<Box<dyn Estimator>>,
    ) -> Result<Self> {
        config.validate(shapes)?;
        if members.len() != config.members.len() {
            return Err(Error::Invalid(format!(
                "an ensemble of {} members was given {}",
                config.members.len(),
                members.len()
            )));
        }
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            standards: vec![Standard::NONE; members.len()],
            members,
        })
    }

    /// From the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// When the settings are out of range, or a tensor is missing, unexpected, misshapen or not usable.
    pub fn from_tensors(
        config: &EnsembleConfig,
        shapes: &[FeatureShape],
        mut tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let standards = tensors
            .remove(STANDARDS)
            .ok_or_else(|| Error::Invalid(format!("tensor `{STANDARDS}` is missing")))?;
        let mut members = Vec::with_capacity(config.members.len());
        for (index, member) in config.members.iter().enumerate() {
            let prefix = prefix(index);
            let names = tensors.keys().filter(|name| name.starts_with(&prefix));
            let names: Vec<String> = names.cloned().collect();
            let own = names.into_iter().filter_map(|name| {
                let tensor = tensors.remove(&name)?;
                Some((name[prefix.len()..].to_string(), tensor))
            });
            let own = own.collect();
            members.push(member.estimator.load(&member.own(shapes), own, device)?);
        }
        if let Some(name) = tensors.keys().next() {
            return Err(Error::Invalid(format!(
                "tensor `{name}` is of no member of the ensemble"
            )));
        }
        let standards = Standard::from_tensor(STANDARDS, &standards, members.len())?;
        Ok(Self {
            standards,
            ..Self::new(config, shapes, members)?
        })
    }

    /// The resolution at which maps are averaged: four times the finest feature map's, where a ResNet's second stage
    /// is at half the input's.
    fn size(&self) -> (usize, usize) {
        let finest = self.shapes.first();
        finest.map_or((1, 1), |shape| (4 * shape.height, 4 * shape.width))
    }

    fn parts(&self) -> impl Iterator<Item = (&Member, &dyn Estimator, &Standard)> {
        let members = self.config.members.iter().zip(&self.members);
        let parts = members.zip(&self.standards);
        parts.map(|((member, estimator), standard)| (member, estimator.as_ref(), standard))
    }

    /// What a member says, as it says it alone.
    fn said(
        &self,
        member: &Member,
        estimator: &dyn Estimator,
        features: &[Tensor],
    ) -> Result<Said> {
        let own = member.own(features);
        let (scores, maps) = estimator.inspect(&own, &member.scoring, None, self.size())?;
        Ok(Said { scores, maps })
    }

    /// A member's moments over normal images.
    fn standard(
        &self,
        member: &Member,
        estimator: &dyn Estimator,
        normal: &dyn FeatureSource,
    ) -> Result<Standard> {
        let device = &estimator.device();
        let one = |record: usize| {
            let said = self.said(member, estimator, &normal.batch(&[record], device)?)?;
            let score = said.scores.squeeze(0)?.to_scalar::<f32>()?;
            let map = said.maps.flatten_all()?.to_vec1::<f32>()?;
            Ok::<_, Error>((score, map))
        };
        let found = match device {
            Device::Cpu => (0..normal.len()).into_par_iter().map(one).collect(),
            _ => (0..normal.len()).map(one).collect::<Result<Vec<_>>>(),
        }?;
        let standard = Standard {
            score: moments(found.iter().map(|(score, _)| *score)),
            map: moments(found.iter().flat_map(|(_, map)| map.iter().copied())),
        };
        match standard.score.mean.is_finite() && standard.map.mean.is_finite() {
            true => Ok(standard),
            false => Err(Error::Training(format!(
                "a held-out normal image has no finite score by {}",
                member.estimator.title()
            ))),
        }
    }
}

fn prefix(member: usize) -> String {
    format!("members.{member}.")
}

fn mean(all: Vec<Tensor>) -> Result<Tensor> {
    Ok(Tensor::stack(&all, 0)?.mean(0)?)
}

impl Estimator for Ensemble {
    fn config(&self) -> EstimatorConfig {
        EstimatorConfig::Ensemble(self.config.clone())
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn device(&self) -> Device {
        let first = self.members.first();
        first.map_or(Device::Cpu, |member| member.device())
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let standards = Standard::to_tensor(&self.standards)?;
        let mut all = BTreeMap::from([(STANDARDS.to_string(), standards)]);
        for (index, member) in self.members.iter().enumerate() {
            let own = member.tensors()?.into_iter();
            all.extend(own.map(|(name, tensor)| (prefix(index) + &name, tensor)));
        }
        Ok(all)
    }

    fn parameter_count(&self) -> usize {
        self.members.iter().map(|m| m.parameter_count()).sum()
    }

    fn native_maps(&self, features: &[Tensor], _: &Scoring) -> Result<NativeMaps> {
        expect_features(features, &self.shapes)?;
        let (mut scores, mut maps) = (Vec::new(), Vec::new());
        for (member, estimator, standard) in self.parts() {
            let said = self.said(member, estimator, features)?;
            // The members' scores may lie on different devices.
            let (own, map) = (
                said.scores.to_device(&Device::Cpu)?,
                said.maps.to_device(&Device::Cpu)?,
            );
            scores.push(standardised(&own, standard.score)?);
            maps.push(standardised(&map, standard.map)?);
        }
        let map = mean(maps)?;
        Ok(NativeMaps {
            image: vec![map.clone()],
            pixel: vec![map],
            scores: Some(mean(scores)?),
        })
    }

    fn standardise(&mut self, normal: &dyn FeatureSource) -> Result<()> {
        let parts = self.parts();
        let standards =
            parts.map(|(member, estimator, _)| self.standard(member, estimator, normal));
        self.standards = standards.collect::<Result<_>>()?;
        Ok(())
    }

    fn standardise_as(&mut self, other: &dyn Estimator) -> Result<()> {
        if let Some(tensor) = other.tensors()?.get(STANDARDS) {
            self.standards = Standard::from_tensor(STANDARDS, tensor, self.members.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::estimators::{
        FitWith, Fitting,
        memory::{PatchCoreConfig, SpadeConfig},
        source::tests::Fixed,
    };

    fn shapes() -> Vec<FeatureShape> {
        [(4, 6, 5), (6, 3, 3)]
            .map(|(channels, height, width)| FeatureShape {
                channels,
                height,
                width,
            })
            .to_vec()
    }

    /// Features of `images` that no two positions share.
    fn features(images: usize, shift: f32) -> Fixed {
        let shapes = shapes();
        let map = |image: usize, scale: usize| {
            let wave = |i: usize| ((i * (7 + scale) + image * 31) as f32 * 0.37).sin() + shift;
            (0..shapes[scale].values()).map(wave).collect()
        };
        let records = (0..images).map(|i| vec![map(i, 0), map(i, 1)]).collect();
        Fixed { shapes, records }
    }

    fn member(estimator: EstimatorConfig, maps: &[usize]) -> Member {
        Member {
            scoring: estimator.scoring(),
            estimator,
            maps: maps.to_vec(),
        }
    }

    fn config() -> EnsembleConfig {
        let patchcore = EstimatorConfig::PatchCore(PatchCoreConfig::default());
        let spade = EstimatorConfig::Spade(SpadeConfig::default());
        EnsembleConfig {
            members: vec![member(patchcore, &[0, 1]), member(spade, &[1])],
        }
    }

    fn ensemble() -> Ensemble {
        let (config, normal) = (config(), features(5, 0.0));
        let fit = |member: &Member| {
            let Fitting::Closed(method) = member.estimator.fitting() else {
                panic!("not closed");
            };
            let own = Fixed {
                shapes: member.own(&normal.shapes),
                records: normal.records.iter().map(|r| member.own(r)).collect(),
            };
            let mut with = FitWith {
                seed: 1,
                device: &Device::Cpu,
                parent: None,
                progress: &mut |_, _| true,
            };
            method.fit(&own, &mut with).unwrap()
        };
        let members = config.members.iter().map(fit).collect();
        Ensemble::new(&config, &normal.shapes, members).unwrap()
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// By hand from what the members say alone.
    #[test]
    fn it_is_the_mean_of_its_standardised_members() {
        let mut ensemble = ensemble();
        let normal = features(4, 0.1);
        ensemble.standardise(&normal).unwrap();
        let scoring = config().scoring();
        let photo = features(1, 0.6).batch(&[0], &Device::Cpu).unwrap();
        let found = ensemble.native_maps(&photo, &scoring).unwrap();
        let mut expected = 0f64;
        for (member, estimator, _) in ensemble.parts() {
            let score = |features: &[Tensor]| {
                let said = ensemble.said(member, estimator, features).unwrap();
                f64::from(flat(&said.scores)[0])
            };
            let each: Vec<f64> = (0..4)
                .map(|i| score(&normal.batch(&[i], &Device::Cpu).unwrap()))
                .collect();
            let mean = each.iter().sum::<f64>() / 4.0;
            let variance = each.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 4.0;
            expected += (score(&photo) - mean) / variance.sqrt() / 2.0;
        }
        let score = f64::from(flat(&found.scores.unwrap())[0]);
        assert!(
            (score - expected).abs() < 1e-3 * expected.abs(),
            "{score} {expected}"
        );
        assert_eq!(found.pixel[0].dims(), [1, 24, 20]);
    }

    #[test]
    fn it_comes_back_from_its_tensors() {
        let mut ensemble = ensemble();
        ensemble.standardise(&features(4, 0.1)).unwrap();
        let tensors = ensemble.tensors().unwrap();
        let load = |tensors| config().load(&shapes(), tensors, &Device::Cpu);
        let loaded = load(tensors.clone()).unwrap();
        let photo = features(2, 0.6).batch(&[0, 1], &Device::Cpu).unwrap();
        let scoring = config().scoring();
        let [a, b] = [&ensemble as &dyn Estimator, loaded.as_ref()]
            .map(|e| e.native_maps(&photo, &scoring).unwrap());
        assert_eq!(flat(&a.pixel[0]), flat(&b.pixel[0]));
        assert_eq!(flat(&a.scores.unwrap()), flat(&b.scores.unwrap()));
        let mut without = tensors.clone();
        without.remove(STANDARDS);
        assert!(load(without).unwrap_err().to_string().contains(STANDARDS));
        let mut more = tensors;
        more.insert("members.7.photos".into(), photo[0].clone());
        assert!(load(more).unwrap_err().to_string().contains("members.7"));
    }

    #[test]
    fn members_that_cannot_be_are_refused() {
        let refused = |config: EnsembleConfig| config.validate(&shapes()).unwrap_err().to_string();
        let mut one = config();
        one.members.pop();
        assert!(refused(one).contains("members"));
        let mut nested = config();
        let inner = EstimatorConfig::Ensemble(config());
        nested.members[0] = member(inner, &[0]);
        assert!(refused(nested).contains("ensembles"));
        let mut maps = config();
        maps.members[1].maps = vec![2];
        assert!(refused(maps).contains("SPADE"));
    }
}
