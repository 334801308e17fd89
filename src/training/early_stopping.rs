//! Early stopping without having seen a real defect: held-out good photos are scored as they are and with
//! synthetic defects, and the epoch that tells the two apart best is kept.

use serde::{Deserialize, Serialize};

use super::{calibration, config::Stop};
use crate::{
    Result,
    datasets::{Sample, synthetic_defects},
    estimators::{Estimator, FeatureSource, MapStatistics, Scoring},
    metrics::Ranking,
};

/// Not the seed of `eval --synthetic-defects`: what a choice was made on flatters.
const SEED: u64 = 1;

/// The validation that epochs are compared by.
pub(super) struct Validator<'a> {
    pub scoring: &'a Scoring,
    /// Features of [`validation_samples`]'s images.
    pub features: &'a dyn FeatureSource,
    /// Which of them have a defect.
    pub defective: &'a [bool],
    /// Rows and columns of the network's input.
    pub input: (usize, usize),
}

/// The best epoch so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    /// From 1.
    pub epoch: usize,
    pub auroc: f64,
    pub held_out_nll: f64,
}

/// The held-out photos, each as it is and with every kind of synthetic defect.
pub(super) fn validation_samples(held_out: &[Sample]) -> Vec<Sample> {
    synthetic_defects(held_out, SEED)
}

impl Validator<'_> {
    /// How well image scores tell the photos with a defect from those without: image AUROC.
    pub fn auroc(&self, model: &dyn Estimator) -> Result<f64> {
        let native = calibration::native_maps(model, self.scoring, self.features)?;
        let normals = native.iter().zip(self.defective).filter(|(_, bad)| !**bad);
        let normals: Vec<_> = normals.map(|(maps, _)| maps).collect();
        let image = calibration::scale_statistics(&normals, |maps| &maps.image)?;
        let statistics = MapStatistics {
            image: &image,
            pixel: &[],
        };
        let mut scores = Vec::with_capacity(native.len());
        for maps in &native {
            let score = self
                .scoring
                .image_scores(maps, Some(statistics), self.input)?;
            scores.push(f64::from(score.squeeze(0)?.to_scalar::<f32>()?));
        }
        Ok(Ranking::new(&scores, self.defective)?.auroc())
    }
}

impl Best {
    /// Whether `self` is better than an earlier epoch: by AUROC, and among equals (small sets are soon told
    /// apart perfectly) by the likelihood of the good photos.
    pub fn beats(&self, earlier: Option<&Self>) -> bool {
        earlier.is_none_or(|earlier| {
            let by_auroc = self.auroc.total_cmp(&earlier.auroc);
            let by_nll = earlier.held_out_nll.total_cmp(&self.held_out_nll);
            by_auroc.then(by_nll).is_gt()
        })
    }

    /// Whether nothing better came for as long as `stop` waits, `done` epochs being over.
    pub fn is_final(&self, stop: &Stop, done: usize) -> bool {
        done >= self.epoch + stop.patience
    }
}

#[cfg(test)]
mod tests {
    use super::{Best, Stop};

    #[test]
    fn the_higher_auroc_wins_then_the_likelier_epoch_then_the_earlier() {
        let best = |epoch, auroc, held_out_nll| Best {
            epoch,
            auroc,
            held_out_nll,
        };
        let first = best(1, 0.9, 1.0);
        assert!(first.beats(None));
        assert!(best(2, 0.91, 2.0).beats(Some(&first)));
        assert!(!best(2, 0.89, 0.1).beats(Some(&first)));
        assert!(best(2, 0.9, 0.5).beats(Some(&first)));
        assert!(!best(2, 0.9, 1.0).beats(Some(&first)));
        let stop = Stop { patience: 3 };
        assert!(!first.is_final(&stop, 3) && first.is_final(&stop, 4));
    }
}
