//! Test sets that are harder than the original: section 8 of the paper, and what cameras do.

use std::str::FromStr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Dataset, Edit, Sample};
use crate::imaging::Mask;
use crate::{Error, Result};

/// How a test set is made harder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Perturbation {
    /// Section 8 of the paper: four versions of each image, each with a random scale, rotation of up to
    /// 15 degrees and shift of up to 0.15 of the side, masks moved along. "Scale 0.85" is read as a
    /// factor drawn evenly from 0.85 to 1.15, all else as drawn evenly too. A draw that moves more than
    /// half of a defect out of the image is drawn again.
    Unaligned,
    /// Darker or brighter, by a factor drawn evenly from 0.7 to 1.3.
    Brightness,
    /// Out of focus: a Gaussian whose deviation is 1/512 of the shorter side.
    Blur,
    /// Compressed as JPEG of quality 40.
    Jpeg,
}

/// Versions of each image in the unaligned test set.
const COPIES: usize = 4;
/// Draws of a movement before a defect that leaves the image is accepted.
const TRIES: usize = 50;

impl Perturbation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unaligned, Self::Brightness, Self::Blur, Self::Jpeg];

    /// The word for it on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unaligned => "unaligned",
            Self::Brightness => "brightness",
            Self::Blur => "blur",
            Self::Jpeg => "jpeg",
        }
    }

    fn copies(self) -> usize {
        if self == Self::Unaligned { COPIES } else { 1 }
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> Edit {
        let mut even = |low: f64, high: f64| low + (high - low) * rng.random::<f64>();
        match self {
            Self::Unaligned => Edit::Move {
                degrees: even(-15.0, 15.0),
                scale: even(0.85, 1.15),
                shift: [even(-0.15, 0.15), even(-0.15, 0.15)],
            },
            Self::Brightness => Edit::Brightness(even(0.7, 1.3)),
            Self::Blur => Edit::Blur(1.0 / 512.0),
            Self::Jpeg => Edit::Jpeg(40),
        }
    }
}

impl FromStr for Perturbation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|p| p.name() == name);
        known.ok_or_else(|| Error::Unknown {
            kind: "perturbation",
            name: name.into(),
            hint: format!("known are {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}

impl Dataset {
    /// The same training images with a perturbed test set. Images are changed when they are read, the
    /// same way every time for a seed.
    ///
    /// # Errors
    /// As [`crate::imaging::decode_mask`], for masks that decide whether a defect stays in the image.
    pub fn perturbed(&self, how: Perturbation, seed: u64) -> Result<Self> {
        let versions = |(index, sample): (usize, &Sample)| -> Result<Vec<Sample>> {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index as u64);
            let mask = match how {
                Perturbation::Unaligned => sample.drawn_mask()?,
                _ => None,
            };
            let version = |_| sample.edited(draw_visible(how, mask.as_ref(), &mut rng));
            Ok((0..how.copies()).map(version).collect())
        };
        let test: Vec<Vec<Sample>> = self
            .test
            .par_iter()
            .enumerate()
            .map(versions)
            .collect::<Result<_>>()?;
        Ok(Self {
            test: test.concat(),
            ..self.clone()
        })
    }
}

/// A draw that leaves at least half of the defect in the image.
fn draw_visible(how: Perturbation, mask: Option<&Mask>, rng: &mut ChaCha8Rng) -> Edit {
    let mut edit = how.draw(rng);
    let Some(mask) = mask else { return edit };
    for _ in 1..TRIES {
        if visible(&edit, mask) >= 0.5 {
            break;
        }
        edit = how.draw(rng);
    }
    edit
}

/// The share of a mask's pixels that a movement leaves inside the image; 1 for an empty mask.
fn visible(edit: &Edit, mask: &Mask) -> f64 {
    let (width, height) = (mask.width(), mask.height());
    let movement = edit.movement(width as u32, height as u32);
    let inside = |pixel: usize| {
        let (x, y) = movement.target((pixel % width) as f64, (pixel / width) as f64);
        (-0.5..width as f64 - 0.5).contains(&x) && (-0.5..height as f64 - 0.5).contains(&y)
    };
    let marked = mask
        .pixels()
        .iter()
        .enumerate()
        .filter(|(_, marked)| **marked);
    let (area, left) = marked.fold((0, 0), |(all, left), (i, _)| {
        (all + 1, left + usize::from(inside(i)))
    });
    if area == 0 {
        1.0
    } else {
        f64::from(left as u32) / f64::from(area as u32)
    }
}
