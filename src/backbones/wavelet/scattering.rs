//! From a grey image to its maps: the pyramid, first- and second-order moduli, their Gaussian means.

use rayon::prelude::*;

use super::{
    bank::{self, Morlet, ORIENTATIONS},
    plane::{Plane, gaussian},
};

/// Levels of the maps: their strides are 4, 8 and 16.
pub(super) const LEVELS: [usize; 3] = [2, 3, 4];
/// First-order bands of a map, in levels below its own.
const BANDS: [usize; 3] = [2, 1, 0];
/// Second-order pairs of a map, in levels below its own: (first, second).
const PAIRS: [(usize, usize); 3] = [(2, 1), (2, 0), (1, 0)];
/// Angles from the first wavelet to the second, in orientations.
const TURNS: [usize; 2] = [0, ORIENTATIONS / 2];
/// Channels of every map.
pub(super) const CHANNELS: usize =
    2 + BANDS.len() * ORIENTATIONS + PAIRS.len() * TURNS.len() * ORIENTATIONS;
/// Added to first- and second-order moduli before the logarithm: what counts as no contrast at all.
const FLOORS: [f32; 2] = [0.01, 0.003];
/// Gaussian before each halving, and of moduli that already are at their map's level, in pixels.
const SIGMA: f64 = 1.0;
/// The surround of the second channel, in pixels of the map.
const SURROUND: f64 = 2.0;

/// The filters.
#[derive(Debug)]
pub(super) struct Scattering {
    bank: Vec<Morlet>,
    halving: Vec<f32>,
    smoothing: Vec<f32>,
    surround: Vec<f32>,
}

impl Scattering {
    pub(super) fn new() -> Self {
        Self {
            bank: bank::bank(),
            halving: gaussian(SIGMA, true),
            smoothing: gaussian(SIGMA, false),
            surround: gaussian(SURROUND, false),
        }
    }

    /// The maps of [`LEVELS`], each `[CHANNELS, H, W]`; the image's sides are multiples of the last stride.
    pub(super) fn maps(&self, image: &Plane) -> Vec<Vec<f32>> {
        let top = LEVELS[LEVELS.len() - 1];
        let mut pyramid = vec![image.clone()];
        for level in 0..top {
            pyramid.push(pyramid[level].halved(&self.halving));
        }
        // first[level]: a modulus for each orientation, at that level
        let first: Vec<Vec<Plane>> = pyramid
            .iter()
            .map(|plane| {
                let padded = plane.padded(bank::margin());
                let modulus = |wavelet: &Morlet| wavelet.modulus(&padded);
                self.bank.par_iter().map(modulus).collect()
            })
            .collect();
        LEVELS
            .iter()
            .map(|&level| self.map(level, &pyramid[level], &first))
            .collect()
    }

    fn map(&self, level: usize, mean: &Plane, first: &[Vec<Plane>]) -> Vec<f32> {
        let wide = mean.blurred(&self.surround);
        let spots = mean.data.iter().zip(&wide.data).map(|(a, b)| a - b);
        let mut map: Vec<f32> = mean.data.iter().copied().chain(spots).collect();
        for below in BANDS {
            let source = level - below;
            let means: Vec<Plane> = first[source]
                .par_iter()
                .map(|modulus| self.lowered(modulus, source, level))
                .collect();
            map.extend(logarithms(&means, FLOORS[0]));
        }
        for (below, second_below) in PAIRS {
            let second = level - second_below;
            let sources = &first[level - below];
            let means: Vec<Plane> = (0..ORIENTATIONS)
                .into_par_iter()
                .flat_map_iter(|k| self.second_order(&sources[k], k, level - below, second))
                .map(|modulus| self.lowered(&modulus, second, level))
                .collect();
            // by turn, then by orientation
            for turn in 0..TURNS.len() {
                let means = means.iter().skip(turn).step_by(TURNS.len());
                map.extend(logarithms(means, FLOORS[1]));
            }
        }
        map
    }

    /// Moduli of the first-order modulus of orientation `k`, one for each of [`TURNS`].
    fn second_order(&self, modulus: &Plane, k: usize, from: usize, to: usize) -> Vec<Plane> {
        let mut source = modulus.clone();
        for _ in from..to {
            source = source.halved(&self.halving);
        }
        let padded = source.padded(bank::margin());
        TURNS
            .iter()
            .map(|turn| self.bank[(k + turn) % ORIENTATIONS].modulus(&padded))
            .collect()
    }

    /// A modulus of level `from` as its Gaussian mean on the grid of level `to`.
    fn lowered(&self, modulus: &Plane, from: usize, to: usize) -> Plane {
        if from == to {
            return modulus.blurred(&self.smoothing);
        }
        let mut plane = modulus.halved(&self.halving);
        for _ in from + 1..to {
            plane = plane.halved(&self.halving);
        }
        plane
    }
}

fn logarithms<'a>(
    planes: impl IntoIterator<Item = &'a Plane>,
    floor: f32,
) -> impl Iterator<Item = f32> {
    planes
        .into_iter()
        .flat_map(move |plane| plane.data.iter().map(move |value| (value + floor).ln()))
}
