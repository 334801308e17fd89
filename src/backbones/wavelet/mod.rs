//! The embedded backbone: scattering features (Bruna and Mallat 2013) of the grey image, no weights.
//!
//! A Gaussian pyramid holds the image at 1, 1/2, ... 1/16 of its size. At each level a fixed bank of oriented
//! complex Morlet wavelets gives moduli (first order), and at a coarser level the same bank over those
//! gives the moduli of moduli (second order): how a texture's energy is itself arranged. A map at stride
//! `2^J` holds, low-passed and brought to its grid by Gaussians:
//!
//! | channels | what |
//! |---|---|
//! | 1 | local mean |
//! | 1 | local mean minus that of a wider surround (signed: spots, which moduli cannot tell dark from bright) |
//! | 24 | log of first-order moduli of levels J-2, J-1, J; 8 orientations each |
//! | 48 | log of second-order moduli of the pairs of these levels: 8 orientations, the second wavelet parallel, then perpendicular to the first |
//!
//! The logarithm tames the heavy tails of moduli, which a flow onto a Gaussian would have to undo. Means
//! and scales are left as they are: standardising them belongs to the flow's norm.

mod bank;
mod plane;
mod scattering;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use self::{plane::Plane, scattering::Scattering};
use super::{
    Backbone, BackboneInfo, Family, FeatureShape, check_images,
    row::{Network, Row, Source},
    taps::{self, Choice},
};
use crate::{Error, Result};

/// Pixels from 0 to 1 as they are; the taps are the maps' strides.
pub(super) static ROWS: &[Row] = &[Row {
    arch: "wavelet",
    family: Family::Wavelet,
    size: 256,
    normalisation: ([0.0; 3], [1.0; 3]),
    tags: &[],
    taps: Choice::Fixed,
    default_taps: &[4, 8, 16],
    network: &Bank,
    lacks: None,
}];

/// The one bank that there is.
struct Bank;

impl Network for Bank {
    fn shapes(&self, _: &[usize], height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        shapes(height, width)
    }

    fn describe(&self, taps: &[usize]) -> String {
        taps::described("stride", taps)
    }

    fn build(&self, info: BackboneInfo, source: &Source) -> Result<Box<dyn Backbone>> {
        Ok(Box::new(Wavelet::new(info, source.device)))
    }
}

/// The coarsest map's stride: image sides must be multiples of it.
const STRIDE: usize = 1 << scattering::LEVELS[scattering::LEVELS.len() - 1];

/// Shapes of the maps of an input of `height` x `width` pixels.
fn shapes(height: usize, width: usize) -> Result<Vec<FeatureShape>> {
    if height == 0 || width == 0 || !(height | width).is_multiple_of(STRIDE) {
        return Err(Error::Shape {
            what: "input of backbone `wavelet`".into(),
            expected: format!("sides that {STRIDE} divides"),
            found: format!("{height}x{width}"),
        });
    }
    let shape = |level: &usize| FeatureShape {
        channels: scattering::CHANNELS,
        height: height >> level,
        width: width >> level,
    };
    Ok(scattering::LEVELS.iter().map(shape).collect())
}

/// The filter bank, ready to use. It computes on the CPU whatever the device of the images.
#[derive(Debug)]
pub struct Wavelet {
    info: BackboneInfo,
    device: Device,
    scattering: Scattering,
}

impl Wavelet {
    /// Builds the filters.
    pub fn new(info: BackboneInfo, device: &Device) -> Self {
        Self {
            info,
            device: device.clone(),
            scattering: Scattering::new(),
        }
    }
}

impl Backbone for Wavelet {
    fn info(&self) -> &BackboneInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn shapes(&self, height: usize, width: usize) -> Result<Vec<FeatureShape>> {
        shapes(height, width)
    }

    fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let (batch, height, width) = check_images(images)?;
        let shapes = self.shapes(height, width)?;
        let pixels = images.flatten_all()?.to_vec1::<f32>()?;
        let features: Vec<Vec<Vec<f32>>> = pixels
            .par_chunks(3 * height * width)
            .map(|image| self.scattering.maps(&luma(image, height, width)))
            .collect();
        let mut maps = Vec::with_capacity(shapes.len());
        for (index, shape) in shapes.iter().enumerate() {
            let values: Vec<f32> = features
                .iter()
                .flat_map(|image| &image[index])
                .copied()
                .collect();
            let shape = (batch, shape.channels, shape.height, shape.width);
            maps.push(Tensor::from_vec(values, shape, &self.device)?);
        }
        Ok(maps)
    }
}

/// Brightness (ITU-R BT.601) of an RGB image `[3, H, W]`.
fn luma(image: &[f32], height: usize, width: usize) -> Plane {
    let (red, rest) = image.split_at(height * width);
    let (green, blue) = rest.split_at(height * width);
    let data = red
        .iter()
        .zip(green.iter().zip(blue))
        .map(|(r, (g, b))| 0.299 * r + 0.587 * g + 0.114 * b)
        .collect();
    Plane {
        height,
        width,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::{ROWS, scattering};

    #[test]
    fn the_taps_are_the_strides() {
        let strides = scattering::LEVELS.map(|level| 1 << level);
        assert_eq!(ROWS[0].default_taps, strides);
    }
}
