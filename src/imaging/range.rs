//! The grey levels that photos of more than 8 bits use. A camera of 12 bits fills a sixteenth of what 16 bits can hold,
//! and less in the dark: by the file's range alone its photos would be a few levels of black.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How a file stores a value of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // as in Rust
pub enum Depth {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

impl Depth {
    /// As people say it.
    pub fn words(self) -> &'static str {
        match self {
            Self::U8 => "8-bit",
            Self::U16 => "16-bit",
            Self::U32 => "32-bit integer",
            Self::U64 => "64-bit integer",
            Self::I8 => "signed 8-bit",
            Self::I16 => "signed 16-bit",
            Self::I32 => "signed 32-bit integer",
            Self::I64 => "signed 64-bit integer",
            Self::F16 => "16-bit float",
            Self::F32 => "32-bit float",
            Self::F64 => "64-bit float",
        }
    }

    /// The largest value that fits, where that says something.
    fn full(self) -> Option<u32> {
        match self {
            Self::U16 => Some(u32::from(u16::MAX)),
            Self::U32 => Some(u32::MAX),
            _ => None,
        }
    }
}

/// Which values the training photos hold, all but the most extreme ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelRange {
    /// Dark.
    pub low: f32,
    /// Bright.
    pub high: f32,
    /// How the (first) photo stores them.
    pub depth: Depth,
    /// Whether photos of 8 bits, which are taken as they are, were among the training photos.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub beside_eight_bits: bool,
}

/// Share of a photo's values at either end that do not count: hot and dead pixels.
pub(super) const EXTREMES: f64 = 0.001;
/// Share of the photos at either end that do not count.
const ODD_PHOTOS: f64 = 0.02;
/// What is left free below and above the range, as a share of it, for defects that are darker or brighter.
const HEADROOM: f32 = 0.125;
/// Share of a photo's values beyond range and headroom from which the photo is doubtful.
const FAR: f64 = 0.1;
/// Share of the range that the brightest values of a photo have to reach.
const DARK: f32 = 1.0 / 16.0;
/// Share of 16 bits that the brightest values have to reach where no range was measured.
const DARK_UNMEASURED: f32 = 0.125;

/// Why a photo's grey levels are not those that a detector knows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum RangeDoubt {
    /// Much of it lies outside of the training photos' range.
    Outside {
        /// Dark values of the photo.
        low: f32,
        /// Bright values of the photo.
        high: f32,
    },
    /// It has 8 bits, the training photos had more.
    EightBits,
    /// It has 16 bits and uses few of them, and the detector has no range to scale it by.
    Unmeasured {
        /// Dark values of the photo.
        low: f32,
        /// Bright values of the photo.
        high: f32,
    },
}

impl PixelRange {
    /// Of the low and high values of each photo: all of them but a few odd photos at either end. None of no photo.
    pub fn of(extents: &[[f32; 2]], depth: Depth, beside_eight_bits: bool) -> Option<Self> {
        let sorted = |end: usize| {
            let mut values: Vec<f32> = extents.iter().map(|extent| extent[end]).collect();
            values.sort_unstable_by(f32::total_cmp);
            values
        };
        let odd = (extents.len() as f64 * ODD_PHOTOS) as usize;
        let low = *sorted(0).get(odd)?;
        let high = *sorted(1).get(extents.len().checked_sub(1 + odd)?)?;
        // Photos of one grey level.
        let least = (low.abs() * 1e-5).max(f32::MIN_POSITIVE);
        let least = match depth {
            Depth::F16 | Depth::F32 | Depth::F64 => least,
            _ => least.max(1.0),
        };
        Some(Self {
            low,
            high: high.max(low + least),
            depth,
            beside_eight_bits,
        })
    }

    /// Checks what a file says.
    ///
    /// # Errors
    /// [`Error::Config`] when it is no range of numbers.
    pub(super) fn validate(&self, path: &Path) -> Result<()> {
        if self.low.is_finite() && self.high.is_finite() && self.low < self.high {
            return Ok(());
        }
        Err(Error::Config {
            path: path.to_path_buf(),
            reason: format!(
                "preprocessing.range must be a low and a higher number, found {} to {}",
                self.low, self.high
            ),
        })
    }

    /// The range with its headroom.
    fn ends(&self) -> [f32; 2] {
        let room = HEADROOM * (self.high - self.low);
        [self.low - room, self.high + room]
    }

    /// A value as one of 256 grey levels; what is no number is black.
    pub(super) fn level(&self, value: f32) -> u8 {
        let [low, high] = self.ends();
        ((value - low) / (high - low) * 255.0).round() as u8
    }

    /// What is odd about a photo with these (sorted) values.
    pub(super) fn doubt(&self, sorted: &[f32]) -> Option<RangeDoubt> {
        let [low, high] = extent(sorted)?;
        let [least, most] = self.ends();
        let below = sorted.partition_point(|value| *value < least);
        let above = sorted.len() - sorted.partition_point(|value| *value <= most);
        let far = (below + above) as f64 > FAR * sorted.len() as f64;
        let dark = high < self.low + DARK * (self.high - self.low);
        (far || dark).then_some(RangeDoubt::Outside { low, high })
    }

    /// The range as people read it: `200 to 500 of 65535`.
    pub fn words(&self) -> String {
        let full = self.depth.full();
        let full = full.map_or(String::new(), |full| format!(" of {full}"));
        format!("{} to {}{full}", shown(self.low), shown(self.high))
    }
}

/// What is odd about a 16-bit photo that a detector without a range gets.
pub(super) fn unmeasured(sorted: &[f32]) -> Option<RangeDoubt> {
    let [low, high] = extent(sorted)?;
    let dark = high < DARK_UNMEASURED * f32::from(u16::MAX);
    dark.then_some(RangeDoubt::Unmeasured { low, high })
}

/// Low and high of sorted values, without the extreme ones.
pub(super) fn extent(sorted: &[f32]) -> Option<[f32; 2]> {
    let last = sorted.len().checked_sub(1)?;
    let cut = (last as f64 * EXTREMES) as usize;
    Some([sorted[cut], sorted[last - cut]])
}

impl std::fmt::Display for RangeDoubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Outside { low, high } => write!(f, "uses {} to {}", shown(*low), shown(*high)),
            Self::EightBits => f.write_str("has 8 bits"),
            Self::Unmeasured { low, high } => {
                write!(f, "uses {} to {} of 65535", shown(*low), shown(*high))
            }
        }
    }
}

/// A number with as many digits as say something.
fn shown(value: f32) -> String {
    if value.fract() == 0.0 && value.abs() < 1e7 {
        return format!("{value}");
    }
    format!("{value:.4}")
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn range() -> PixelRange {
        PixelRange::of(&[[210.0, 480.0], [200.0, 500.0]], Depth::U16, false).unwrap()
    }

    #[test]
    fn a_range_spans_the_photos_with_room_at_both_ends() {
        let range = range();
        assert_eq!((range.low, range.high), (200.0, 500.0));
        assert_eq!(range.words(), "200 to 500 of 65535");
        // An eighth of 300 is free at either end: 162.5 to 537.5.
        let level = |value: f32| range.level(value);
        assert_eq!(
            [0.0, 162.5, 350.0, 537.5, 65535.0].map(level),
            [0, 0, 128, 255, 255]
        );
        assert_eq!((level(200.0), level(500.0)), (26, 230));
        assert_eq!((level(f32::NAN), level(f32::INFINITY)), (0, 255));
    }

    #[test]
    fn one_odd_photo_of_many_does_not_count() {
        let mut photos = vec![[200.0, 500.0]; 60];
        photos.push([0.0, 65535.0]);
        let range = PixelRange::of(&photos, Depth::U16, false).unwrap();
        assert_eq!((range.low, range.high), (200.0, 500.0));
        // Photos of a single level still have a range.
        let flat = PixelRange::of(&[[7.0, 7.0]], Depth::U16, false).unwrap();
        assert_eq!((flat.low, flat.high), (7.0, 8.0));
        let flat = PixelRange::of(&[[0.5, 0.5]], Depth::F32, false).unwrap();
        assert!(flat.high > flat.low && flat.high < 0.51);
        assert_eq!(PixelRange::of(&[], Depth::U16, false), None);
    }

    #[test]
    fn a_photo_of_another_gain_is_doubtful_and_one_with_a_defect_is_not() {
        let ramp = |low: f32, high: f32| -> Vec<f32> {
            (0..1000)
                .map(|i| low + (high - low) * i as f32 / 999.0)
                .collect()
        };
        assert_eq!(range().doubt(&ramp(205.0, 510.0)), None);
        let mut spot = ramp(200.0, 500.0);
        spot[950..].fill(4000.0);
        assert_eq!(range().doubt(&spot), None);
        let found = range().doubt(&ramp(3200.0, 8000.0));
        assert!(
            matches!(found, Some(RangeDoubt::Outside { low, high }) if low > 3199.0 && high < 8001.0)
        );
        // A sixteenth of the values, where the range begins at nothing.
        let from_zero = PixelRange {
            low: 0.0,
            ..range()
        };
        assert!(from_zero.doubt(&ramp(0.0, 31.0)).is_some());
        assert!(unmeasured(&ramp(200.0, 500.0)).is_some());
        assert!(unmeasured(&ramp(200.0, 50000.0)).is_none());
    }

    #[test]
    fn what_a_file_says_is_checked() {
        let text = serde_json::to_string(&range()).unwrap();
        assert_eq!(text, r#"{"low":200.0,"high":500.0,"depth":"u16"}"#);
        assert_eq!(serde_json::from_str::<PixelRange>(&text).unwrap(), range());
        let path = Path::new("config.json");
        assert!(range().validate(path).is_ok());
        let broken = PixelRange {
            high: 200.0,
            ..range()
        };
        let text = broken.validate(path).unwrap_err().to_string();
        assert!(
            text.starts_with("config.json: preprocessing.range must be"),
            "{text}"
        );
    }
}
