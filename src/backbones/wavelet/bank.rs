//! The oriented complex Morlet wavelets: kymatio's first scale, applied at every level of the pyramid.

use std::f64::consts::PI;

use super::plane::Plane;
use crate::kernels::taps::{self, Tap};

/// Orientations; number k has its waves along the angle k pi / 8 from the x axis.
pub(super) const ORIENTATIONS: usize = 8;
/// Width of the envelope along the wave, in pixels.
const SIGMA: f64 = 0.8;
/// Frequency of the wave, in radians a pixel.
const XI: f64 = 0.75 * PI;
/// Width of the envelope along the wave over its width across it.
const SLANT: f64 = 0.5;
/// Farthest tap from the centre.
const RADIUS: usize = 6;
/// Taps where the envelope is below this share of its peak are left out.
const CUT: f64 = 1e-3;

/// `g(u) (exp(i xi u) - beta)`, with beta such that the taps sum to zero.
#[derive(Debug)]
pub(super) struct Morlet {
    taps: Vec<Tap>,
}

/// The whole bank.
pub(super) fn bank() -> Vec<Morlet> {
    (0..ORIENTATIONS)
        .map(|k| Morlet::new(k as f64 * PI / ORIENTATIONS as f64))
        .collect()
}

impl Morlet {
    fn new(angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        let side = 2 * RADIUS + 1;
        // (row, column, phase, envelope) of every tap worth keeping
        let taps: Vec<_> = (0..side * side)
            .map(|index| (index / side, index % side))
            .map(|(y, x)| {
                let (dy, dx) = (y as f64 - RADIUS as f64, x as f64 - RADIUS as f64);
                let (along, across) = (dx * cos + dy * sin, dy * cos - dx * sin);
                let squared = along * along + (SLANT * across).powi(2);
                (y, x, XI * along, (-squared / (2.0 * SIGMA * SIGMA)).exp())
            })
            .filter(|tap| tap.3 > CUT)
            .collect();
        let envelope: f64 = taps.iter().map(|tap| tap.3).sum();
        let wave: f64 = taps.iter().map(|tap| tap.3 * tap.2.cos()).sum();
        let beta = wave / envelope;
        let scale = SLANT / (2.0 * PI * SIGMA * SIGMA);
        let taps = taps
            .into_iter()
            .map(|(y, x, phase, envelope)| Tap {
                y,
                x,
                re: (scale * envelope * (phase.cos() - beta)) as f32,
                im: (scale * envelope * phase.sin()) as f32,
            })
            .collect();
        Self { taps }
    }

    /// `|psi * image|` at the image's size; `padded` is the image with [`margin`] pixels around it.
    pub(super) fn modulus(&self, padded: &Plane) -> Plane {
        let (height, width) = (padded.height - 2 * RADIUS, padded.width - 2 * RADIUS);
        let mut out = Plane::zeros(height, width);
        taps::modulus(&padded.data, padded.width, &self.taps, &mut out.data, width);
        out
    }
}

/// Pixels that [`Morlet::modulus`] wants around the image.
pub(super) fn margin() -> usize {
    RADIUS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(image: impl Fn(f64, f64) -> f64) -> Vec<f32> {
        let (height, width) = (32, 40);
        let mut plane = Plane::zeros(height, width);
        for (index, value) in plane.data.iter_mut().enumerate() {
            *value = image((index % width) as f64, (index / width) as f64) as f32;
        }
        let padded = plane.padded(margin());
        let centre = 16 * width + 20;
        let at_centre = |morlet: &Morlet| morlet.modulus(&padded).data[centre];
        bank().iter().map(at_centre).collect()
    }

    #[test]
    fn a_constant_gives_nothing() {
        assert!(response(|_, _| 0.8).iter().all(|value| *value < 1e-6));
    }

    #[test]
    fn a_wave_is_found_by_the_wavelet_of_its_angle() {
        for k in 0..ORIENTATIONS {
            let angle = k as f64 * PI / ORIENTATIONS as f64;
            let found = response(|x, y| (XI * (x * angle.cos() + y * angle.sin())).cos());
            let best = (0..ORIENTATIONS).max_by(|a, b| found[*a].total_cmp(&found[*b]));
            assert_eq!(best, Some(k), "{found:?}");
        }
    }
}
