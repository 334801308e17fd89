//! From a grey image to its maps: the pyramid, first- and second-order moduli, their Gaussian means.

use std::collections::{BTreeMap, BTreeSet};

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
        let first = self.first_order(&pyramid);
        let second = self.second_order(&first);
        LEVELS
            .iter()
            .map(|&level| self.map(level, &pyramid[level], &first, &second))
            .collect()
    }

    /// For each level a modulus for each orientation.
    fn first_order(&self, pyramid: &[Plane]) -> Vec<Vec<Plane>> {
        pyramid
            .iter()
            .map(|plane| {
                let padded = plane.padded(bank::margin());
                let modulus = |wavelet: &Morlet| wavelet.modulus(&padded);
                self.bank.par_iter().map(modulus).collect()
            })
            .collect()
    }

    /// For each pair of levels (first, second) that a map needs, moduli by turn, then by orientation.
    fn second_order(&self, first: &[Vec<Plane>]) -> BTreeMap<(usize, usize), Vec<Plane>> {
        let pairs: BTreeSet<_> = LEVELS.iter().flat_map(|level| pairs(*level)).collect();
        let moduli = |(from, to): (usize, usize)| {
            let sources: Vec<Plane> = first[from]
                .par_iter()
                .map(|modulus| {
                    let source =
                        (from..to).fold(modulus.clone(), |plane, _| plane.halved(&self.halving));
                    source.padded(bank::margin())
                })
                .collect();
            let modulus = |index: usize| {
                let (turn, k) = (TURNS[index / ORIENTATIONS], index % ORIENTATIONS);
                self.bank[(k + turn) % ORIENTATIONS].modulus(&sources[k])
            };
            let count = TURNS.len() * ORIENTATIONS;
            (
                (from, to),
                (0..count).into_par_iter().map(modulus).collect(),
            )
        };
        pairs.into_iter().map(moduli).collect()
    }

    fn map(
        &self,
        level: usize,
        mean: &Plane,
        first: &[Vec<Plane>],
        second: &BTreeMap<(usize, usize), Vec<Plane>>,
    ) -> Vec<f32> {
        let wide = mean.blurred(&self.surround);
        let spots = mean.data.iter().zip(&wide.data).map(|(a, b)| a - b);
        let mut map: Vec<f32> = mean.data.iter().copied().chain(spots).collect();
        for source in BANDS.map(|below| level - below) {
            map.extend(self.means(&first[source], source, level, FLOORS[0]));
        }
        for pair in pairs(level) {
            map.extend(self.means(&second[&pair], pair.1, level, FLOORS[1]));
        }
        map
    }

    /// Logarithms of the means of moduli that live at level `from`, on the grid of level `to`.
    fn means(&self, moduli: &[Plane], from: usize, to: usize, floor: f32) -> Vec<f32> {
        let means: Vec<Plane> = moduli
            .par_iter()
            .map(|modulus| self.lowered(modulus, from, to))
            .collect();
        let values = means.iter().flat_map(|plane| &plane.data);
        values.map(|value| (value + floor).ln()).collect()
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

/// The levels (first, second) of a map's second-order moduli.
fn pairs(level: usize) -> impl Iterator<Item = (usize, usize)> {
    PAIRS
        .iter()
        .map(move |(first, second)| (level - first, level - second))
}
