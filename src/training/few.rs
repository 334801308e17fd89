//! Fewer photos than can be divided: what the threshold comes from when none is kept out of the fit.

use crate::{
    Error, Result,
    datasets::{Dataset, MIN_NORMALS, Sample},
    detector::CalibrationSource,
    estimators::EstimatorConfig,
    features::Job,
    imaging::View,
};

/// How the threshold of so many photos is found, where so many folds are wanted. Of two photos none is left out: a memory of a single photo has another
/// idea of a usual distance, so that its scores say nothing about those of a memory of both.
pub(super) fn source_of(photos: usize, folds: usize) -> CalibrationSource {
    match photos {
        0..=2 => CalibrationSource::MirroredViews,
        n if n < MIN_NORMALS => CalibrationSource::LeaveOneOut,
        _ if folds > 1 => CalibrationSource::CrossFit,
        _ => CalibrationSource::HeldOut,
    }
}

/// # Errors
/// [`Error::Dataset`] where a method that is trained has fewer photos than can be divided: its loss on the photos that it
/// is fitted to tells nothing.
pub(super) fn check(dataset: &Dataset, estimator: &EstimatorConfig) -> Result<()> {
    let found = dataset.train.len();
    if found >= MIN_NORMALS || !estimator.is_trained() {
        return Ok(());
    }
    Err(Error::Dataset {
        path: dataset.root.clone(),
        reason: format!(
            "holds {found} normal images to train on, {} needs at least {MIN_NORMALS}",
            estimator.title()
        ),
    })
}

/// What a user must know of a threshold that is not from held-out photos.
pub(super) fn note(source: CalibrationSource, photos: usize) -> Option<String> {
    let scores = match source {
        CalibrationSource::HeldOut
        | CalibrationSource::CrossFit
        | CalibrationSource::Recalibrated => return None,
        CalibrationSource::LeaveOneOut => photos,
        CalibrationSource::MirroredViews => MIRRORED.len() * photos,
    };
    Some(format!(
        "fewer than {MIN_NORMALS} photos, none is held out: the threshold comes from {}",
        source.in_words(scores)
    ))
}

const MIRRORED: [View; 3] = [
    mirrored(true, false),
    mirrored(false, true),
    mirrored(true, true),
];

const fn mirrored(horizontal_flip: bool, vertical_flip: bool) -> View {
    View {
        horizontal_flip,
        vertical_flip,
        ..View::IDENTITY
    }
}

/// The views that stand for new photos where there are one or two.
pub(super) fn mirrored_views(photo: &Sample) -> Vec<Job> {
    let job = |view| Job {
        sample: photo.clone(),
        view,
    };
    MIRRORED.into_iter().map(job).collect()
}
