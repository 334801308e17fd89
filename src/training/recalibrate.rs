//! Thresholds of a detector anew, from good photos of another line or day; nothing is fitted.

use super::{calibration::calibrate_maps, outliers};
use crate::{
    Error, Result,
    datasets::Dataset,
    detector::{Calibration, CalibrationSource, Detector},
    estimators::NativeMaps,
};

/// Photos that are held in memory at a time.
const CHUNK: usize = 32;

/// What the normal photos of `dataset` ([`Dataset::train`]) score, and thresholds that let about `false_alarm_rate` of new
/// ones pass for defective; told after each photo is `progress(done)`. The photos must not be those that the detector was
/// fitted to. What the scales of a detector are standardised by stays.
///
/// # Errors
/// Without photos, for a rate that is none, for one that cannot be read or a score that is not finite.
pub fn recalibrate(
    detector: &Detector,
    dataset: &Dataset,
    false_alarm_rate: f64,
    progress: &mut dyn FnMut(usize),
) -> Result<Calibration> {
    if !(false_alarm_rate > 0.0 && false_alarm_rate < 1.0) {
        return Err(Error::Invalid(
            "the false-alarm rate must lie between 0 and 1".into(),
        ));
    }
    let config = detector.config();
    let dataset = dataset.clone().seen_by(&config.preprocessing);
    let photos = &dataset.train;
    if photos.is_empty() {
        return Err(Error::Dataset {
            path: dataset.root.clone(),
            reason: "holds no normal images to set a threshold from".into(),
        });
    }
    let mut maps: Vec<NativeMaps> = Vec::with_capacity(photos.len());
    for chunk in photos.chunks(CHUNK) {
        let found = detector.native_maps_each(chunk.len(), |index| chunk[index].read());
        for found in found {
            maps.push(found?.1);
        }
        progress(maps.len());
    }
    let names: Vec<String> = photos.iter().map(|p| p.name(&dataset.root)).collect();
    let input = (config.preprocessing.height, config.preprocessing.width);
    let known = config.calibration.as_ref();
    let found = calibrate_maps(
        &maps,
        known.map(Calibration::statistics),
        &names,
        &config.scoring,
        input,
        false_alarm_rate,
    )?;
    Ok(Calibration {
        source: CalibrationSource::Recalibrated,
        ..found
    })
}

/// Fewest photos with which a false-alarm rate can be promised.
pub fn photos_for(false_alarm_rate: f64) -> usize {
    (1.0 / false_alarm_rate - 1.0 - 1e-9).ceil().max(1.0) as usize
}

/// The line that tells of photos that do not count, where there are any.
pub fn outliers_note(calibration: &Calibration) -> Option<String> {
    let scored = calibration.normal_scores.len() + calibration.outliers.len();
    outliers::note(&calibration.outliers, scored)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_rate_needs_so_many_photos() {
        assert_eq!(super::photos_for(0.01), 99);
        assert_eq!(super::photos_for(0.05), 19);
        assert_eq!(super::photos_for(0.5), 1);
    }
}
