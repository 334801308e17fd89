//! One image of a report: its pictures made small, and how the detector did on it.

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{DynamicImage, RgbImage, imageops};
use serde::Serialize;

use super::{ColourScale, MapView, mask_picture, outline, overlay};
use crate::{
    Result,
    imaging::{Mask, encode_jpeg, encode_png},
};

/// Longest side of a picture in the page.
const THUMBNAIL: u32 = 320;
const QUALITY: u8 = 84;
/// How near to the mask a peak still counts as in it, as a share of the picture's longest side.
const MARGIN: f32 = 0.03;

/// An image with all that is known about it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What to call it, for example its path in the data set.
    pub name: &'a str,
    /// Whether it is defective, where that is known.
    pub defective: Option<bool>,
    /// The defect's class.
    pub class: Option<&'a str>,
    /// The photo.
    pub photo: &'a RgbImage,
    /// The detector's map.
    pub map: MapView<'a>,
    /// The ground truth.
    pub mask: Option<&'a Mask>,
    /// The detector's score.
    pub score: f32,
}

/// An image made ready for a page; keeps small pictures only.
#[derive(Debug, Clone, Serialize)]
pub struct ReportItem {
    pub(super) name: String,
    pub(super) defective: Option<bool>,
    pub(super) class: Option<String>,
    pub(super) score: f32,
    /// How far the map's peak outside the mask is above that inside, where that makes the label doubtful.
    pub(super) doubt: Option<f32>,
    photo: String,
    heat: String,
    mask: Option<String>,
}

/// What a verdict is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Defective, and said to be.
    Found,
    /// Good, and said to be.
    Passed,
    /// Defective, but said to be good.
    Missed,
    /// Good, but said to be defective.
    FalseAlarm,
    /// What it is is not known.
    Unknown,
}

impl ReportItem {
    /// Makes the pictures of one image; the photo may be dropped afterwards.
    ///
    /// # Errors
    /// When a picture cannot be encoded.
    pub fn new(subject: &Subject, scale: &ColourScale) -> Result<Self> {
        let photo = thumbnail(subject.photo);
        let mask = subject.mask.filter(|mask| mask.area() > 0);
        let mut heat = overlay(&photo, subject.map, scale);
        if let Some(mask) = mask {
            outline(&mut heat, mask);
        }
        let (width, height) = photo.dimensions();
        let small = mask.map(|mask| mask.resized(width as usize, height as usize));
        let doubt = small.as_ref().and_then(|mask| doubt(subject.map, mask));
        let drawn = small.map(|mask| DynamicImage::from(mask_picture(&mask)).into_luma8());
        Ok(Self {
            name: subject.name.to_owned(),
            defective: subject.defective,
            class: subject.class.map(str::to_owned),
            score: subject.score,
            doubt,
            photo: jpeg_uri(&photo)?,
            heat: jpeg_uri(&heat)?,
            mask: drawn.map(|mask| png_uri(&mask.into())).transpose()?,
        })
    }

    /// Whether the score is above the threshold, as a detector decides; not a number is an alarm.
    pub fn alarm(&self, threshold: f32) -> bool {
        self.score.is_nan() || self.score > threshold
    }

    /// How the verdict at this threshold compares with the truth.
    pub fn outcome(&self, threshold: f32) -> Outcome {
        match (self.defective, self.alarm(threshold)) {
            (Some(true), true) => Outcome::Found,
            (Some(true), false) => Outcome::Missed,
            (Some(false), true) => Outcome::FalseAlarm,
            (Some(false), false) => Outcome::Passed,
            (None, _) => Outcome::Unknown,
        }
    }
}

pub(super) fn thumbnail(photo: &RgbImage) -> RgbImage {
    let longest = photo.width().max(photo.height());
    if longest <= THUMBNAIL {
        return photo.clone();
    }
    let side = |pixels: u32| (pixels * THUMBNAIL).div_ceil(longest).max(1);
    imageops::resize(
        photo,
        side(photo.width()),
        side(photo.height()),
        imageops::FilterType::Triangle,
    )
}

/// The paper's third group: the detector marks a place that the mask leaves out. That is, the map is
/// highest outside the mask and its surroundings.
fn doubt(map: MapView, mask: &Mask) -> Option<f32> {
    let (width, height) = (mask.width(), mask.height());
    let near = grown(mask, (MARGIN * width.max(height) as f32).ceil() as usize);
    let (mut inside, mut outside) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for (at, near) in near.iter().enumerate() {
        let score = map.at(
            (at % width) as u32,
            (at / width) as u32,
            (width as u32, height as u32),
        );
        let peak = if *near { &mut inside } else { &mut outside };
        *peak = peak.max(score);
    }
    (inside.is_finite() && outside > inside).then_some(outside - inside)
}

/// The mask and what is at most `reach` beside, above or below it.
fn grown(mask: &Mask, reach: usize) -> Vec<bool> {
    let (width, height) = (mask.width(), mask.height());
    let window = |at: usize, length: usize| at.saturating_sub(reach)..(at + reach + 1).min(length);
    let sideways: Vec<bool> = (0..width * height)
        .map(|at| window(at % width, width).any(|x| mask.get(x, at / width)))
        .collect();
    (0..width * height)
        .map(|at| window(at / width, height).any(|y| sideways[y * width + at % width]))
        .collect()
}

pub(super) fn jpeg_uri(image: &RgbImage) -> Result<String> {
    let bytes = encode_jpeg(image, QUALITY)?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

pub(super) fn png_uri(image: &DynamicImage) -> Result<String> {
    Ok(format!(
        "data:image/png;base64,{}",
        STANDARD.encode(encode_png(image)?)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::Rgb;

    use super::*;

    fn item(map: &[f32], mask: Option<&Mask>, defective: Option<bool>, score: f32) -> ReportItem {
        let photo = RgbImage::from_pixel(800, 400, Rgb([120; 3]));
        let map = MapView::new(map, 4, 2).unwrap();
        let subject = Subject {
            name: "a",
            defective,
            class: None,
            photo: &photo,
            map,
            mask,
            score,
        };
        ReportItem::new(&subject, &ColourScale::new(0.0, 1.0).unwrap()).unwrap()
    }

    #[test]
    fn verdicts_are_compared_with_the_truth() {
        for (defective, score, outcome) in [
            (Some(true), 0.5, Outcome::Missed),
            (Some(true), 0.51, Outcome::Found),
            (Some(false), 0.5, Outcome::Passed),
            (Some(true), 0.4, Outcome::Missed),
            (Some(false), 0.6, Outcome::FalseAlarm),
            (Some(false), 0.1, Outcome::Passed),
            (Some(false), f32::NAN, Outcome::FalseAlarm),
            (None, 0.9, Outcome::Unknown),
        ] {
            assert_eq!(
                item(&[0.0; 8], None, defective, score).outcome(0.5),
                outcome
            );
        }
    }

    #[test]
    fn a_peak_outside_the_mask_makes_a_label_doubtful() {
        let mut mask = Mask::empty(800, 400);
        (0..200).for_each(|x| (0..200).for_each(|y| mask.set(x, y, true)));
        let inside = [0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1];
        let outside = [0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.75];
        assert_eq!(item(&inside, Some(&mask), Some(true), 0.9).doubt, None);
        assert_eq!(
            item(&outside, Some(&mask), Some(true), 0.9).doubt,
            Some(0.25)
        );
        assert_eq!(item(&outside, None, Some(true), 0.9).doubt, None);
    }

    #[test]
    fn pictures_are_small_and_embedded() {
        let item = item(&[0.0; 8], None, None, 0.0);
        let bytes = STANDARD
            .decode(item.photo.strip_prefix("data:image/jpeg;base64,").unwrap())
            .unwrap();
        assert_eq!(
            image::load_from_memory(&bytes)
                .unwrap()
                .to_rgb8()
                .dimensions(),
            (320, 160)
        );
        assert!(item.mask.is_none());
    }
}
