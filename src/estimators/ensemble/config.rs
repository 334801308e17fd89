//! What an ensemble is made of.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Ensemble;
use crate::estimators::{
    Estimator, EstimatorConfig, Fitting, ImageScore, MethodConfig, Paper, Scoring,
};
use crate::kernels::FeatureShape;
use crate::{Error, Result};

/// Several estimators over the features of one pass of the backbone. Each one's image score and map are standardised on
/// held-out normal images; the means over the members are the ensemble's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleConfig {
    /// Two or more.
    pub members: Vec<Member>,
}

/// One estimator of an ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The method and its settings.
    pub estimator: EstimatorConfig,
    /// How it scores by itself.
    pub scoring: Scoring,
    /// Which of the feature maps it takes, ascending.
    pub maps: Vec<usize>,
}

impl Member {
    /// What it takes of what there is one of for each feature map.
    pub fn own<T: Clone>(&self, all: &[T]) -> Vec<T> {
        let own = self.maps.iter().filter_map(|&map| all.get(map));
        own.cloned().collect()
    }
}

/// The most members that make sense.
const MOST_MEMBERS: usize = 8;

impl MethodConfig for EnsembleConfig {
    fn title(&self) -> &'static str {
        "Ensemble"
    }

    /// The first member's: an ensemble is no method of its own.
    fn paper(&self) -> Paper {
        let none = Paper {
            url: "",
            bibtex: "",
        };
        self.members
            .first()
            .map_or(none, |first| first.estimator.paper())
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        let names = self.members.iter().map(|m| m.estimator.title());
        let names = names.collect::<Vec<_>>().join(" and ");
        let mean = format!("{names}, each standardised on held-out good photos; means of both");
        let members = self.members.iter().flat_map(|m| m.estimator.in_words());
        std::iter::once(("Members", mean)).chain(members).collect()
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        if !(2..=MOST_MEMBERS).contains(&self.members.len()) {
            return Err(Error::Invalid(format!(
                "an ensemble has 2 to {MOST_MEMBERS} members, not {}",
                self.members.len()
            )));
        }
        for member in &self.members {
            let (estimator, maps) = (&member.estimator, &member.maps);
            if matches!(estimator, EstimatorConfig::Ensemble(_)) {
                return Err(Error::Invalid("an ensemble has no ensembles in it".into()));
            }
            let ascends = maps.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascends || maps.last().is_none_or(|&last| last >= shapes.len()) {
                return Err(Error::Invalid(format!(
                    "member {}: maps must ascend and be among the {} feature maps",
                    estimator.title(),
                    shapes.len()
                )));
            }
            let own = member.own(shapes);
            estimator.validate(&own)?;
            member.scoring.check(estimator, &own)?;
            if member.scoring.standardise_scales {
                return Err(Error::Invalid(
                    "a member of an ensemble does not standardise its scales".into(),
                ));
            }
        }
        let trained = self.members.iter().filter(|m| m.estimator.is_trained());
        match trained.count() {
            0 | 1 => Ok(()),
            _ => Err(Error::Invalid(
                "an ensemble has one member at most that is trained by an optimiser".into(),
            )),
        }
    }

    fn has_own_score(&self) -> bool {
        true
    }

    fn scoring(&self) -> Scoring {
        Scoring {
            image_score: ImageScore::Own,
            ..Scoring::of_distances()
        }
    }

    fn load(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Estimator>> {
        Ok(Box::new(Ensemble::from_tensors(
            self, shapes, tensors, device,
        )?))
    }

    fn fitting(&self) -> Fitting<'_> {
        Fitting::Members(self)
    }
}
