//! The paper's augmentation of training images (section 4 and table 8).

use std::path::Path;

use image::{RgbImage, imageops};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::Affine;
use crate::{Error, Result};

/// How likely each change of a training image is. The default is the paper's; not all suit every
/// product (a transistor must not be turned).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Probability of a flip left to right.
    pub horizontal_flip: f64,
    /// Probability of a flip top to bottom.
    pub vertical_flip: f64,
    /// Probability of a rotation.
    pub rotation: f64,
    /// Largest rotation either way, in degrees. The paper states none; 15 is what its section 8 uses.
    pub degrees: f64,
    /// Whether a rotation also turns by 0, 90, 180 or 270 degrees, each as likely; for products that may
    /// lie anyhow. The sides of an image that is not square change places.
    pub quarter_turns: bool,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            horizontal_flip: 0.5,
            vertical_flip: 0.3,
            rotation: 0.7,
            degrees: 15.0,
            quarter_turns: false,
        }
    }
}

impl Augmentation {
    /// Leaves every image as it is.
    pub fn none() -> Self {
        Self {
            horizontal_flip: 0.0,
            vertical_flip: 0.0,
            rotation: 0.0,
            degrees: 0.0,
            quarter_turns: false,
        }
    }

    /// Whether every view of it is the image itself.
    pub fn is_none(&self) -> bool {
        let turns = self.rotation > 0.0 && (self.degrees > 0.0 || self.quarter_turns);
        self.horizontal_flip == 0.0 && self.vertical_flip == 0.0 && !turns
    }

    /// Checks a configuration; `path` is the file or option that it came from.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field: a probability outside 0 to 1, degrees outside 0 to 180.
    pub fn validate(&self, path: &Path) -> Result<()> {
        for (field, value, largest) in [
            ("horizontal_flip", self.horizontal_flip, 1.0),
            ("vertical_flip", self.vertical_flip, 1.0),
            ("rotation", self.rotation, 1.0),
            ("degrees", self.degrees, 180.0),
        ] {
            if !(0.0..=largest).contains(&value) {
                return Err(Error::Config {
                    path: path.to_path_buf(),
                    reason: format!("augmentation.{field} must be 0 to {largest}, found {value}"),
                });
            }
        }
        Ok(())
    }

    /// Draws one view. It takes the same number of random values whatever comes out, so that a change
    /// of one probability leaves the other draws of a seed as they were.
    pub fn sample(&self, rng: &mut impl Rng) -> View {
        let [horizontal, vertical, rotation, angle] = std::array::from_fn(|_| rng.random::<f64>());
        let turn = rng.random_range(0..4);
        let rotated = rotation < self.rotation;
        View {
            horizontal_flip: horizontal < self.horizontal_flip,
            vertical_flip: vertical < self.vertical_flip,
            quarter_turns: if rotated && self.quarter_turns {
                turn
            } else {
                0
            },
            degrees: if rotated {
                (2.0 * angle - 1.0) * self.degrees
            } else {
                0.0
            },
        }
    }
}

/// One way to look at an image: flips, then quarter turns, then a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Left and right change places.
    pub horizontal_flip: bool,
    /// Top and bottom change places.
    pub vertical_flip: bool,
    /// Turns by 90 degrees clockwise, 0 to 3.
    pub quarter_turns: u8,
    /// Counter-clockwise rotation in degrees.
    pub degrees: f64,
}

impl View {
    /// The image as it is.
    pub const IDENTITY: Self = Self {
        horizontal_flip: false,
        vertical_flip: false,
        quarter_turns: 0,
        degrees: 0.0,
    };

    /// The image seen this way; rotation is bilinear with the border replicated.
    pub fn apply(&self, image: &RgbImage) -> RgbImage {
        let mut image = image.clone();
        if self.horizontal_flip {
            imageops::flip_horizontal_in_place(&mut image);
        }
        if self.vertical_flip {
            imageops::flip_vertical_in_place(&mut image);
        }
        image = match self.quarter_turns % 4 {
            1 => imageops::rotate90(&image),
            2 => imageops::rotate180(&image),
            3 => imageops::rotate270(&image),
            _ => image,
        };
        if self.degrees == 0.0 {
            return image;
        }
        let (width, height) = image.dimensions();
        Affine::about_centre(width, height, self.degrees, 1.0, [0.0, 0.0]).warp(&image)
    }
}
