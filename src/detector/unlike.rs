//! Photos that are unlike those that a detector was trained on: other grey levels, another shape, other light, sharpness,
//! compression or size.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Detector;
use crate::imaging::{Preprocessing, Quality, RangeDoubt, Seen};

/// In what a photo is unlike the training photos.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unlike {
    /// Its grey levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeDoubt>,
    /// Its width over height, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aspect: Option<f64>,
    /// What of its quality is outside of the training photos' ([`crate::imaging::Quality::NAMES`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quality: Vec<&'static str>,
}

impl Detector {
    /// In what a photo is unlike the training photos; none where it is as they were.
    pub fn unlike(&self, photo: &Seen) -> Option<Unlike> {
        let (width, height) = photo.image.dimensions();
        let other = self.config.preprocessing.is_other_shape(width, height);
        let aspect = other.then(|| f64::from(width) / f64::from(height));
        let quality = self.config.preprocessing.quality;
        let found = Unlike {
            range: photo.doubt,
            aspect,
            quality: quality
                .map_or_else(Vec::new, |known| known.outside(&Quality::of(&photo.image))),
        };
        let usual = found.range.is_none() && found.aspect.is_none() && found.quality.is_empty();
        (!usual).then_some(found)
    }
}

/// How many photos of a run are unlike the training photos, with the first of each kind.
#[derive(Debug, Clone, Default)]
pub struct UnlikePhotos {
    photos: usize,
    range: Option<(usize, String, RangeDoubt)>,
    shape: Option<(usize, String, f64)>,
    /// By the measure's name.
    quality: BTreeMap<&'static str, usize>,
    /// Photos with any of them, and the first.
    qualities: Option<(usize, String)>,
}

impl UnlikePhotos {
    /// Counts one more photo.
    pub fn add(&mut self, name: impl Fn() -> String, unlike: Option<&Unlike>) {
        self.photos += 1;
        let Some(unlike) = unlike else { return };
        if let Some(doubt) = unlike.range {
            self.range.get_or_insert_with(|| (0, name(), doubt)).0 += 1;
        }
        if let Some(aspect) = unlike.aspect {
            self.shape.get_or_insert_with(|| (0, name(), aspect)).0 += 1;
        }
        if !unlike.quality.is_empty() {
            self.qualities.get_or_insert_with(|| (0, name())).0 += 1;
        }
        for &measure in &unlike.quality {
            *self.quality.entry(measure).or_default() += 1;
        }
    }

    /// What is to be told once a run, a line for each kind.
    pub fn notes(&self, input: &Preprocessing) -> Vec<String> {
        let all = self.photos;
        let mut notes = Vec::new();
        if let Some((count, name, doubt)) = &self.range {
            let trained = match (&input.range, doubt) {
                (Some(range), _) => format!(
                    "it was trained on {} photos that use {}",
                    range.depth.words(),
                    range.words()
                ),
                (None, _) => {
                    "the detector has no pixel range and scales 16 bits by all of them".into()
                }
            };
            notes.push(format!(
                "{count} of {all} photos with other pixel values than the detector knows ({name} {doubt}); {trained}"
            ));
        }
        if let (Some((count, name, aspect)), Some([least, most])) = (&self.shape, input.aspects) {
            let trained = match least == most {
                true => format!("{least:.2}"),
                false => format!("{least:.2} to {most:.2}"),
            };
            notes.push(format!(
                "{count} of {all} photos of another shape than trained on ({name}: width over height {aspect:.2}, \
                 trained {trained})"
            ));
        }
        if let Some((count, name)) = &self.qualities {
            let measures = self.quality.iter();
            let measures = measures.map(|(measure, count)| format!("{measure} {count}"));
            notes.push(format!(
                "{count} of {all} photos are outside of what was seen in training ({}; first {name}): scores of such \
                 photos mean little",
                measures.collect::<Vec<_>>().join(", ")
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::RgbImage;

    use super::*;
    use crate::imaging::{Depth, PixelRange};

    #[test]
    fn a_run_tells_once_how_many_photos_are_unlike() {
        let input = Preprocessing {
            range: PixelRange::of(&[[200.0, 500.0]], Depth::U16, false),
            aspects: Some([1.0, 1.5]),
            ..Preprocessing::imagenet(32)
        };
        assert!(input.is_other_shape(300, 100) && input.is_other_shape(80, 100));
        assert!(!input.is_other_shape(95, 100) && !input.is_other_shape(160, 100));
        assert!(!Preprocessing::imagenet(32).is_other_shape(300, 100));
        let mut run = UnlikePhotos::default();
        let doubt = RangeDoubt::Outside {
            low: 3200.0,
            high: 8000.0,
        };
        let unlike = Unlike {
            range: Some(doubt),
            aspect: Some(3.0),
            quality: vec!["sharpness"],
        };
        run.add(|| "a.png".into(), None);
        run.add(|| "b.png".into(), Some(&unlike));
        run.add(
            || "c.png".into(),
            Some(&Unlike {
                aspect: None,
                ..unlike.clone()
            }),
        );
        let notes = run.notes(&input);
        assert_eq!(
            notes[0],
            "2 of 3 photos with other pixel values than the detector knows (b.png uses 3200 to 8000); \
             it was trained on 16-bit photos that use 200 to 500 of 65535"
        );
        assert_eq!(
            notes[1],
            "1 of 3 photos of another shape than trained on (b.png: width over height 3.00, trained 1.00 to 1.50)"
        );
        assert_eq!(
            notes[2],
            "2 of 3 photos are outside of what was seen in training (sharpness 2; first b.png): scores of such photos \
             mean little"
        );
        let text = serde_json::to_value(unlike).unwrap();
        assert_eq!(
            text["range"],
            serde_json::json!({"kind": "outside", "low": 3200.0, "high": 8000.0})
        );
        assert!(UnlikePhotos::default().notes(&input).is_empty());
    }

    #[test]
    fn a_photo_as_trained_on_is_not_unlike() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fabric-detector");
        let detector = Detector::load(folder.as_ref(), &Default::default()).unwrap();
        let seen = |doubt| Seen {
            image: RgbImage::new(30, 10),
            doubt,
        };
        assert_eq!(detector.unlike(&seen(None)), None);
        assert!(
            detector
                .unlike(&seen(Some(RangeDoubt::EightBits)))
                .is_some()
        );
    }
}
