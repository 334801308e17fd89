//! From a prediction to a picture file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::{ColourScale, MapView, overlay};
use crate::{Result, detector::Calibration, estimators::AnomalyMap};

/// The photo with its anomaly map over it, on the detector's colour scale; on the map's own extremes
/// where the detector has no calibration.
///
/// # Errors
/// When the map is empty or not finite.
pub fn heat_map(
    photo: &RgbImage,
    map: &AnomalyMap,
    calibration: Option<&Calibration>,
) -> Result<RgbImage> {
    let scale = match calibrated(calibration)? {
        Some(scale) => scale,
        None => {
            let low = map.values.iter().copied().fold(f32::INFINITY, f32::min);
            let high = map.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            ColourScale::new(low, high.max(low + f32::EPSILON * low.abs().max(1.0)))?
        }
    };
    let view = MapView::new(&map.values, map.width, map.height)?;
    Ok(overlay(photo, view, &scale))
}

/// The detector's own scale, with its threshold in the middle; none where it has no calibration.
pub(super) fn calibrated(calibration: Option<&Calibration>) -> Result<Option<ColourScale>> {
    let usable = calibration.filter(|c| c.pixel_threshold > c.map_low);
    usable
        .map(|c| ColourScale::around(c.map_low, c.pixel_threshold))
        .transpose()
}

/// A PNG name for each image: its own, with the folder's in front (and a number behind) where two
/// would be the same.
pub fn overlay_names(images: &[PathBuf]) -> Vec<PathBuf> {
    let stem = |path: &Path| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let mut uses: HashMap<String, usize> = HashMap::new();
    for image in images {
        *uses.entry(stem(image)).or_default() += 1;
    }
    let mut taken: HashMap<String, usize> = HashMap::new();
    let name = |image: &PathBuf| {
        let mut name = stem(image);
        if uses[&name] > 1
            && let Some(folder) = image.parent().and_then(Path::file_name)
        {
            name = format!("{}-{name}", folder.to_string_lossy());
        }
        let count = taken.entry(name.clone()).or_default();
        *count += 1;
        let number = if *count > 1 {
            format!("-{count}")
        } else {
            String::new()
        };
        PathBuf::from(format!("{name}{number}.png"))
    };
    images.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_overlay_has_a_name_of_its_own() {
        let images = ["a/1.png", "a/2.jpg", "b/1.png", "x/b/1.png"].map(PathBuf::from);
        let names = overlay_names(&images);
        assert_eq!(
            names,
            ["a-1.png", "2.png", "b-1.png", "b-1-2.png"].map(PathBuf::from)
        );
    }
}
