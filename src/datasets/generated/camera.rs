//! How a piece of cloth is photographed: pose, light, lens and sensor, different in every picture.

use image::{GrayImage, Luma, Rgb, RgbImage};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::{defect::Defect, fabric::Fabric};

/// The side of the image in the cloth's coordinates.
const SIDE: f32 = 256.0;
/// Points a pixel is averaged from, in each direction.
const SAMPLES: u32 = 2;
/// Deviation of the sensor's noise in grey levels.
const NOISE: f32 = 2.2;

/// One photo's conditions.
pub(super) struct Camera {
    size: u32,
    /// The pose: turn and scale as a matrix, then the shift.
    turn: [f32; 2],
    shift: [f32; 2],
    exposure: [f32; 3],
    /// Change of the light across the image, and its fall towards the corners.
    gradient: [f32; 2],
    vignette: f32,
}

impl Camera {
    pub(super) fn new(size: u32, rng: &mut impl Rng) -> Self {
        let angle = rng.random_range(-2.5f32..2.5).to_radians();
        let scale = rng.random_range(0.97..1.03f32);
        let exposure = 1.22 * rng.random_range(0.95..1.05);
        let warmth = rng.random_range(-0.012..0.012);
        let fall = rng.random_range(0.05..0.13);
        let side = rng.random_range(0.0..std::f32::consts::TAU);
        Self {
            size,
            turn: [scale * angle.cos(), scale * angle.sin()],
            shift: [rng.random_range(-12.0..12.0), rng.random_range(-12.0..12.0)],
            exposure: [
                exposure * (1.0 + warmth),
                exposure,
                exposure * (1.0 - warmth),
            ],
            gradient: [fall * side.cos(), fall * side.sin()],
            vignette: rng.random_range(0.04..0.10),
        }
    }

    /// The photo, without the sensor's noise, as grey levels 0..255 of R, G, B.
    pub(super) fn expose(&self, fabric: &Fabric, defect: Option<&Defect>) -> Vec<[f32; 3]> {
        let points = (0..self.size * self.size).into_par_iter();
        points
            .map(|at| self.pixel(at % self.size, at / self.size, fabric, defect))
            .collect()
    }

    fn pixel(&self, x: u32, y: u32, fabric: &Fabric, defect: Option<&Defect>) -> [f32; 3] {
        let mut sum = [0.0f32; 3];
        for at in 0..SAMPLES * SAMPLES {
            let inside = |step: u32| (step as f32 + 0.5) / SAMPLES as f32;
            let [u, v] = self.place(
                x as f32 + inside(at % SAMPLES),
                y as f32 + inside(at / SAMPLES),
            );
            let bare = fabric.colour(u, v, defect);
            let seen = defect.map_or(bare, |defect| defect.tint(u, v, bare));
            (0..3).for_each(|c| sum[c] += seen[c]);
        }
        let light = self.light(x, y) / (SAMPLES * SAMPLES) as f32;
        std::array::from_fn(|c| encode(sum[c] * light * self.exposure[c]))
    }

    /// White where the defect is.
    pub(super) fn mask(&self, defect: &Defect) -> GrayImage {
        GrayImage::from_fn(self.size, self.size, |x, y| {
            let [u, v] = self.place(x as f32 + 0.5, y as f32 + 0.5);
            Luma([if defect.covers(u, v) { 255 } else { 0 }])
        })
    }

    /// The photo as the sensor delivers it.
    pub(super) fn develop(&self, exposed: &[[f32; 3]], rng: &mut impl Rng) -> RgbImage {
        let mut normal = || -> f32 { StandardNormal.sample(rng) };
        let mut image = RgbImage::new(self.size, self.size);
        for (pixel, levels) in image.pixels_mut().zip(exposed) {
            let grey = NOISE * normal();
            *pixel = Rgb(levels.map(|level| (level + grey + 0.4 * NOISE * normal()).round() as u8));
        }
        image
    }

    /// The point of the cloth that a point of the image shows.
    fn place(&self, x: f32, y: f32) -> [f32; 2] {
        let to_cloth = |at: f32| (at / self.size as f32 - 0.5) * SIDE;
        let (x, y) = (to_cloth(x), to_cloth(y));
        let [cos, sin] = self.turn;
        [
            cos * x - sin * y + self.shift[0],
            sin * x + cos * y + self.shift[1],
        ]
    }

    fn light(&self, x: u32, y: u32) -> f32 {
        let from_centre = |at: u32| 2.0 * (at as f32 + 0.5) / self.size as f32 - 1.0;
        let (x, y) = (from_centre(x), from_centre(y));
        1.0 + self.gradient[0] * x + self.gradient[1] * y - self.vignette * (x * x + y * y)
    }
}

/// Linear light to a grey level, with the usual gamma.
fn encode(linear: f32) -> f32 {
    255.0 * linear.clamp(0.0, 1.0).powf(1.0 / 2.2)
}
