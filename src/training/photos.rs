//! Which photos and views a run looks at. Each goes through the backbone once, whatever it is used for: the first fit,
//! the thresholds, the stopping rule, the final fit.

use std::collections::HashMap;

use super::{
    TrainConfig, early_stopping, few,
    fit::{Data, Fold, Validation},
    order::{self, Stream},
};
use crate::{
    datasets::{Dataset, Sample},
    detector::CalibrationSource,
    features::{FeatureStore, Job, Records},
    imaging::View,
};

/// Jobs without repetition, and who uses which.
#[derive(Default)]
pub(super) struct Photos {
    jobs: Vec<Job>,
    known: HashMap<String, usize>,
    train: Option<Vec<usize>>,
    held_out: Vec<usize>,
    held_out_names: Vec<String>,
    all: Option<Vec<usize>>,
    validation: Option<(Vec<usize>, Vec<bool>)>,
    folds: Vec<PlannedFold>,
}

/// Records of a fold.
struct PlannedFold {
    train: Vec<usize>,
    left_out: Vec<usize>,
    /// Of the left out photos.
    names: Vec<String>,
}

impl Photos {
    /// Of a run over `dataset`, divided into `train` and `held_out`; the first fit may be over.
    pub(super) fn plan(
        config: &TrainConfig,
        dataset: &Dataset,
        train: &[Sample],
        held_out: &[Sample],
        first_is_over: bool,
    ) -> Self {
        let mut photos = Self::default();
        if !first_is_over {
            photos.train = Some(photos.add(augmented(config, train)));
        }
        photos.held_out = photos.add(plain(held_out));
        photos.held_out_names = names(dataset, held_out);
        photos.plan_without_held_out(config, dataset);
        if config.stop.is_some() && !first_is_over {
            let samples = early_stopping::validation_samples(held_out);
            let defective = samples.iter().map(Sample::is_defective).collect();
            photos.validation = Some((photos.add(plain(&samples)), defective));
        }
        if config.final_fit && !held_out.is_empty() {
            photos.all = Some(photos.add(augmented(config, &dataset.train)));
        }
        photos
    }

    /// What stands for held-out photos where none is kept out.
    fn plan_without_held_out(&mut self, config: &TrainConfig, dataset: &Dataset) {
        let all = &dataset.train;
        match few::source_of(all.len(), config.folds) {
            CalibrationSource::HeldOut | CalibrationSource::Recalibrated => {}
            CalibrationSource::MirroredViews => {
                let views = all.iter().flat_map(few::mirrored_views).collect();
                self.held_out = self.add(views);
            }
            CalibrationSource::LeaveOneOut => self.plan_folds(config, dataset, all.len()),
            CalibrationSource::CrossFit => self.plan_folds(config, dataset, config.folds),
        }
    }

    /// Every photo in one of so many folds, of sizes that differ by one at most.
    fn plan_folds(&mut self, config: &TrainConfig, dataset: &Dataset, folds: usize) {
        let all = &dataset.train;
        let records = self.add(augmented(config, all));
        // The views of a photo follow each other.
        let views = records.len() / all.len();
        let fold_of = order::folds(config.seed, all.len(), folds);
        for fold in 0..folds.min(all.len()) {
            let others = records.iter().enumerate();
            let others = others.filter(|(record, _)| fold_of[record / views] != fold);
            let others = others.map(|(_, &record)| record).collect();
            let left_out = all.iter().zip(&fold_of);
            let left_out = left_out.filter(|(_, of)| **of == fold);
            let left_out: Vec<Sample> = left_out.map(|(photo, _)| photo.clone()).collect();
            let fold = PlannedFold {
                train: others,
                left_out: self.add(plain(&left_out)),
                names: names(dataset, &left_out),
            };
            self.folds.push(fold);
        }
    }

    /// What is to be extracted.
    pub(super) fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// The uses of what was extracted.
    pub(super) fn data<'a>(&'a self, store: &'a FeatureStore) -> Data<'a> {
        let records = |records: &Vec<usize>| Records::new(store, records.clone());
        Data {
            train: self.train.as_ref().map(records),
            held_out: records(&self.held_out),
            held_out_names: &self.held_out_names,
            all: self.all.as_ref().map(records),
            validation: self.validation.as_ref().map(|(of, defective)| Validation {
                features: records(of),
                defective: defective.clone(),
            }),
            folds: self
                .folds
                .iter()
                .map(|fold| Fold {
                    train: records(&fold.train),
                    left_out: records(&fold.left_out),
                    names: &fold.names,
                })
                .collect(),
        }
    }

    /// The records of these jobs.
    fn add(&mut self, jobs: Vec<Job>) -> Vec<usize> {
        let record = |job: Job| {
            let Job { sample, view } = &job;
            let key = format!("{:?}", (&sample.image, sample.record, &sample.edit, view));
            *self.known.entry(key).or_insert_with(|| {
                self.jobs.push(job);
                self.jobs.len() - 1
            })
        };
        jobs.into_iter().map(record).collect()
    }
}

/// What records call these photos.
pub(super) fn names(dataset: &Dataset, samples: &[Sample]) -> Vec<String> {
    let name = |sample: &Sample| sample.name(&dataset.root);
    samples.iter().map(name).collect()
}

fn plain(samples: &[Sample]) -> Vec<Job> {
    let job = |sample: &Sample| Job {
        sample: sample.clone(),
        view: View::IDENTITY,
    };
    samples.iter().map(job).collect()
}

/// Every image as it is, then its augmented views, image by image.
fn augmented(config: &TrainConfig, samples: &[Sample]) -> Vec<Job> {
    let Some(augmentation) = &config.augmentation else {
        return plain(samples);
    };
    let mut rng = order::generator(config.seed, Stream::Views);
    let mut jobs = Vec::with_capacity(samples.len() * augmentation.count);
    for sample in samples {
        for view in 0..augmentation.count {
            let view = match view {
                0 => View::IDENTITY,
                _ => augmentation.views.sample(&mut rng),
            };
            jobs.push(Job {
                sample: sample.clone(),
                view,
            });
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_photo_is_extracted_once_and_a_view_is_another_one() {
        let sample = |name: &str| Sample::normal(PathBuf::from(name));
        let (a, b) = (sample("a.png"), sample("b.png"));
        let mut photos = Photos::default();
        assert_eq!(photos.add(plain(&[a.clone(), b.clone()])), [0, 1]);
        let turned = View {
            quarter_turns: 1,
            ..View::IDENTITY
        };
        let view = Job {
            sample: a.clone(),
            view: turned,
        };
        let edited = Job {
            sample: early_stopping::validation_samples(&[a])[1].clone(),
            view: View::IDENTITY,
        };
        assert_eq!(photos.add(vec![view.clone(), edited.clone()]), [2, 3]);
        assert_eq!(photos.add(plain(&[b])), [1]);
        assert_eq!(photos.add(vec![edited, view]), [3, 2]);
        assert_eq!(photos.jobs().len(), 4);
    }
}
