//! How a photo becomes a backbone's input; recorded in every artifact.

use std::path::Path;

use candle_core::{Device, Tensor};
use image::{RgbImage, imageops};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{PixelRange, QualityRange, Reading, View, resize};
use crate::{Error, Result};

/// Sides of an input, in pixels, that a configuration may ask for.
const SIDES: std::ops::RangeInclusive<usize> = 8..=4096;

/// Resampling filter, always with antialiasing when it shrinks (as PIL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Cubic convolution, a = -0.5.
    Bicubic,
}

/// Size, filter and normalisation of a backbone's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Height of the input in pixels.
    pub height: usize,
    /// Width of the input in pixels.
    pub width: usize,
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Share of the shorter side that a centre crop keeps; 1 squeezes the whole image to the input size.
    pub crop: f32,
    /// Mean of R, G, B, of values in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B, of values in 0..1.
    pub std: [f32; 3],
    /// Height and width of further inputs that the image is given to the backbone as; the feature maps of each follow
    /// those of the one before.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub pyramid: Vec<(usize, usize)>,
    /// Quarter turns in which each of these is given, the upright one included: 1 or 4.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub turns: usize,
    /// Grey levels that photos of more than 8 bits are scaled by: those of the training photos. None where these had
    /// 8 bits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub range: Option<PixelRange>,
    /// Which page of a file with several is looked at, from 1; none for the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub page: Option<usize>,
    /// Smallest and largest width over height of the training photos; none where nobody measured it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub aspects: Option<[f64; 2]>,
    /// How bright, sharp, compressed and large the training photos are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quality: Option<QualityRange>,
}

fn one() -> usize {
    1
}

fn is_one(turns: &usize) -> bool {
    *turns == 1
}

/// How many times wider or higher a photo has to be to be of another shape: room for a crop by some pixels.
const OTHER_SHAPE: f64 = 1.1;

/// The most further inputs.
const MAX_PYRAMID: usize = 8;

impl Preprocessing {
    /// ImageNet normalisation, the whole image squeezed to `size` x `size`, bilinear with antialias.
    pub fn imagenet(size: usize) -> Self {
        Self {
            height: size,
            width: size,
            interpolation: Interpolation::Bilinear,
            crop: 1.0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            pyramid: Vec::new(),
            turns: 1,
            range: None,
            page: None,
            aspects: None,
            quality: None,
        }
    }

    /// How photos are read: the page and the range of this input, the limit of `reading`.
    pub fn reading(&self, reading: Reading) -> Reading {
        Reading {
            page: self.page.unwrap_or(1),
            range: self.range,
            ..reading
        }
    }

    /// Whether a photo of this size is of another shape than those that were trained on.
    pub fn is_other_shape(&self, width: u32, height: u32) -> bool {
        let aspect = f64::from(width) / f64::from(height.max(1));
        self.aspects.is_some_and(|[least, most]| {
            !(least / OTHER_SHAPE..=most * OTHER_SHAPE).contains(&aspect)
        })
    }

    /// Checks a configuration before anything is allocated from it. `path` is the file or option
    /// that it came from.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field: a side outside 8 to 4096 pixels, a crop outside 0.1 to 1, a
    /// mean or deviation that is not a finite number of the expected size.
    pub fn validate(&self, path: &Path) -> Result<()> {
        let fault = |field: &str, must: &str, found: String| {
            Err(Error::Config {
                path: path.to_path_buf(),
                reason: format!("preprocessing.{field} must be {must}, found {found}"),
            })
        };
        let further = self
            .pyramid
            .iter()
            .flat_map(|&(h, w)| [("pyramid", h), ("pyramid", w)]);
        for (field, side) in [("height", self.height), ("width", self.width)]
            .into_iter()
            .chain(further)
        {
            if !SIDES.contains(&side) {
                return fault(field, "8 to 4096 pixels", side.to_string());
            }
        }
        if self.pyramid.len() > MAX_PYRAMID {
            return fault("pyramid", "at most 8 sizes", self.pyramid.len().to_string());
        }
        if !matches!(self.turns, 1 | 4) {
            return fault("turns", "1 or 4 quarter turns", self.turns.to_string());
        }
        if !(0.1..=1.0).contains(&self.crop) {
            return fault("crop", "a share of 0.1 to 1", self.crop.to_string());
        }
        if !self.mean.iter().all(|m| (-10.0..=10.0).contains(m)) {
            return fault(
                "mean",
                "three numbers of -10 to 10",
                format!("{:?}", self.mean),
            );
        }
        if !self.std.iter().all(|s| (1e-4..=10.0).contains(s)) {
            return fault(
                "std",
                "three numbers of 0.0001 to 10",
                format!("{:?}", self.std),
            );
        }
        if self.page == Some(0) {
            return fault("page", "1 or more", "0".into());
        }
        if self.quality.is_some_and(|quality| !quality.is_finite()) {
            return fault("quality", "finite numbers", "one that is not".into());
        }
        if let Some(aspects) = self.aspects
            && !(0.0 < aspects[0] && aspects[0] <= aspects[1] && aspects[1].is_finite())
        {
            return fault("aspects", "two numbers above 0", format!("{aspects:?}"));
        }
        self.range.map_or(Ok(()), |range| range.validate(path))
    }

    /// Every input on its own, size by size and turn by turn, the first one first.
    pub fn inputs(&self) -> Vec<Self> {
        let views = self.views().into_iter();
        views.map(|(input, _)| input).collect()
    }

    /// Every input on its own with the turn that the photo gets before.
    fn views(&self) -> Vec<(Self, View)> {
        let sizes = std::iter::once((self.height, self.width)).chain(self.pyramid.clone());
        let view = |(height, width), turn: usize| {
            let (height, width) = match turn % 2 {
                0 => (height, width),
                _ => (width, height),
            };
            let input = Self {
                height,
                width,
                pyramid: Vec::new(),
                turns: 1,
                ..self.clone()
            };
            let view = View {
                quarter_turns: turn as u8,
                ..View::IDENTITY
            };
            (input, view)
        };
        let of_size = |size| (0..self.turns).map(move |turn| view(size, turn));
        sizes.flat_map(of_size).collect()
    }

    /// One image as a tensor `[1, 3, h, w]` an input.
    ///
    /// # Errors
    /// As [`Preprocessing::to_tensor`].
    pub fn to_tensors(&self, image: &RgbImage, device: &Device) -> Result<Vec<Tensor>> {
        let views = self.views();
        let tensor = |(input, view): &(Self, View)| match view.quarter_turns {
            0 => input.to_tensor(image, device),
            _ => input.to_tensor(&view.apply(image), device),
        };
        views.iter().map(tensor).collect()
    }

    /// The part of a `width` x `height` image that reaches the backbone, as left, top, width and
    /// height in its pixels: all of it unless there is a crop.
    pub fn visible(&self, width: u32, height: u32) -> [f64; 4] {
        let plan = self.plan(width, height);
        let (sx, sy) = (
            f64::from(width) / f64::from(plan.width),
            f64::from(height) / f64::from(plan.height),
        );
        [
            f64::from(plan.left) * sx,
            f64::from(plan.top) * sy,
            self.width as f64 * sx,
            self.height as f64 * sy,
        ]
    }

    /// The image at the input's size, still in 8 bits.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a side is zero.
    pub fn fit(&self, image: &RgbImage) -> Result<RgbImage> {
        let plan = self.plan(image.width(), image.height());
        let resized = resize(image, plan.width, plan.height, self.interpolation)?;
        let (width, height) = (self.width as u32, self.height as u32);
        if resized.dimensions() == (width, height) {
            return Ok(resized);
        }
        Ok(imageops::crop_imm(&resized, plan.left, plan.top, width, height).to_image())
    }

    /// Normalised values of one image, channel by channel (R, G, B), `3 * height * width` of them.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a side is zero.
    pub fn apply(&self, image: &RgbImage) -> Result<Vec<f32>> {
        let pixels = self.fit(image)?.into_raw();
        let mut out = Vec::with_capacity(pixels.len());
        for channel in 0..3 {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let values: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - mean) / std);
            out.extend(
                pixels
                    .iter()
                    .skip(channel)
                    .step_by(3)
                    .map(|&v| values[usize::from(v)]),
            );
        }
        Ok(out)
    }

    /// One image as the first input, a tensor `[1, 3, height, width]`.
    ///
    /// # Errors
    /// As [`Preprocessing::apply`], or when the device refuses.
    pub fn to_tensor(&self, image: &RgbImage, device: &Device) -> Result<Tensor> {
        self.batch(std::slice::from_ref(image), device)
    }

    /// Images of any sizes as one tensor `[B, 3, height, width]`, prepared in parallel.
    ///
    /// # Errors
    /// As [`Preprocessing::apply`], or when the device refuses.
    pub fn batch(&self, images: &[RgbImage], device: &Device) -> Result<Tensor> {
        let values: Vec<Vec<f32>> = images
            .par_iter()
            .map(|i| self.apply(i))
            .collect::<Result<_>>()?;
        let shape = (images.len(), 3, self.height, self.width);
        Ok(Tensor::from_vec(values.concat(), shape, device)?)
    }

    /// What to resize to and where to crop, as timm does with crop mode `center`: the shorter side
    /// becomes input / crop, then the middle is cut out. Without a crop the image is squeezed.
    fn plan(&self, width: u32, height: u32) -> Plan {
        let target = (self.width as u32, self.height as u32);
        if self.crop >= 1.0 {
            return Plan {
                width: target.0,
                height: target.1,
                left: 0,
                top: 0,
            };
        }
        // f32 crop shares such as 0.875 and 0.9 in f64, so that floor() sees what timm's Python sees.
        let crop = (f64::from(self.crop) * 1e6).round() / 1e6;
        let scaled = |side: u32| (f64::from(side) / crop).floor();
        let ratio = (scaled(target.0) / f64::from(width)).max(scaled(target.1) / f64::from(height));
        // torchvision truncates the longer side; the guard keeps 288.0 from becoming 287.99.
        let side = |from: u32, to: u32| ((f64::from(from) * ratio + 1e-6) as u32).max(to);
        let (width, height) = (side(width, target.0), side(height, target.1));
        let middle = |from: u32, to: u32| (f64::from(from - to) / 2.0).round_ties_even() as u32;
        Plan {
            width,
            height,
            left: middle(width, target.0),
            top: middle(height, target.1),
        }
    }
}

struct Plan {
    width: u32,
    height: u32,
    left: u32,
    top: u32,
}
