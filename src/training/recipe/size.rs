//! The size of an input as people say it: `256`, or height x width, `256x768`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Result};

/// Of the network's input, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputSize {
    /// The side of a square, or of a square of the same area.
    Side(usize),
    /// Height and width.
    Sides(usize, usize),
}

/// Whose shape an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// What the settings say; a square where they say nothing.
    AsSaid,
    /// The photos'.
    OfPhotos,
    /// The photos' where they are far from square.
    OfPhotosFarFromSquare,
}

impl InputSize {
    /// Height and width of the input that is not reshaped.
    pub(super) fn sides(self) -> (usize, usize) {
        match self {
            Self::Side(side) => (side, side),
            Self::Sides(height, width) => (height, width),
        }
    }

    /// Height and width of this share of it, in whole units. A side alone is given the aspect: of about the area of
    /// its square.
    pub(super) fn shaped(self, share: f64, aspect: f64, unit: usize) -> (usize, usize) {
        let whole = |length: f64| ((length / unit as f64).round() as usize).max(2) * unit;
        match self {
            Self::Side(side) => {
                let side = side as f64 * share;
                (whole(side / aspect.sqrt()), whole(side * aspect.sqrt()))
            }
            Self::Sides(height, width) => {
                (whole(height as f64 * share), whole(width as f64 * share))
            }
        }
    }
}

impl FromStr for InputSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let side = |text: &str| text.trim().parse::<usize>().ok();
        let found = match text.split_once(['x', 'X', '×']) {
            None => side(text).map(Self::Side),
            Some((height, width)) => side(height)
                .zip(side(width))
                .map(|(height, width)| Self::Sides(height, width)),
        };
        found.ok_or_else(|| {
            Error::Invalid(format!(
                "`{text}` is no size; give pixels as one number (256) or as height x width (256x768)"
            ))
        })
    }
}

impl fmt::Display for InputSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Side(side) => write!(f, "{side}"),
            Self::Sides(height, width) => write!(f, "{height}x{width}"),
        }
    }
}

impl Serialize for InputSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Side(side) => serializer.serialize_u64(*side as u64),
            sides => serializer.collect_str(sides),
        }
    }
}

impl<'de> Deserialize<'de> for InputSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            Side(usize),
            Text(String),
        }
        match Said::deserialize(deserializer)? {
            Said::Side(side) => Ok(Self::Side(side)),
            Said::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_size_is_one_number_or_height_x_width() {
        let read = |text: &str| text.parse::<InputSize>().unwrap();
        assert_eq!(read("256"), InputSize::Side(256));
        assert_eq!(read("256x768"), InputSize::Sides(256, 768));
        for broken in ["", "x", "256x", "256,768", "-3", "a", "1x2x3"] {
            let error = broken.parse::<InputSize>().unwrap_err().to_string();
            assert!(error.contains("height x width"), "{error}");
        }
        for (json, size) in [
            ("256", InputSize::Side(256)),
            ("\"256x768\"", InputSize::Sides(256, 768)),
        ] {
            assert_eq!(serde_json::from_str::<InputSize>(json).unwrap(), size);
            assert_eq!(serde_json::to_string(&size).unwrap(), json);
        }
    }

    #[test]
    fn shares_of_a_size_keep_its_shape() {
        assert_eq!(InputSize::Sides(256, 768).shaped(0.5, 1.0, 16), (128, 384));
        assert_eq!(InputSize::Side(384).shaped(1.0, 0.4, 16), (608, 240));
    }
}
