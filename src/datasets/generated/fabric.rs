//! A plain-woven cloth: yarns with a height, so that which yarn is seen and how it is lit follow from it.
//!
//! Coordinates are pixels of a 256-pixel image, from its centre: `u` runs along the weft (picks), `v`
//! along the warp (ends).

use std::f32::consts::PI;

use fastnoise_lite::{FastNoiseLite, NoiseType};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

use super::{
    defect::Defect,
    weave::{Direction, PITCH},
};

/// Yarns on each side of the centre: enough for every rotation and shift of the camera.
const REACH: i32 = 30;
/// Half the width of a yarn seen from above.
const HALF_WIDTH: f32 = 0.425 * PITCH;
/// Half its thickness: yarns are pressed flat.
const HALF_THICKNESS: f32 = 0.5 * HALF_WIDTH;
/// How far a yarn rises over the ones it crosses, and sinks below the others.
const CRIMP: f32 = 0.26 * PITCH;
/// Rise of a yarn over a gap.
const SAGGING: f32 = -0.7;
/// Where the light comes from (u, v, height).
const LIGHT: [f32; 3] = [-0.40, -0.52, 0.755];
/// Linear colour of undyed warp and weft, and of what is seen between the yarns.
const WARP: [f32; 3] = [0.46, 0.40, 0.31];
const WEFT: [f32; 3] = [0.53, 0.47, 0.375];
const BEHIND: [f32; 3] = [0.045, 0.04, 0.035];

/// One piece of cloth.
pub(super) struct Fabric {
    warp: Vec<Yarn>,
    weft: Vec<Yarn>,
    fibre: FastNoiseLite,
    dye: FastNoiseLite,
}

struct Yarn {
    /// Off its place, from the weaving.
    offset: f32,
    colour: [f32; 3],
    wander: Track,
    girth: Track,
    twist: f32,
}

/// A value that varies smoothly along a yarn.
struct Track {
    spacing: f32,
    knots: Vec<f32>,
}

/// What is seen of the yarns of one direction at a point.
struct Strand<'a> {
    yarn: &'a Yarn,
    index: i32,
    height: f32,
    /// Slopes of the surface across and along the yarn.
    slope: [f32; 2],
    /// Place across the yarn, -1 to 1.
    across: f32,
}

impl Fabric {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        let mut noise = |frequency| {
            let mut noise = FastNoiseLite::with_seed(rng.random::<i32>());
            noise.set_noise_type(Some(NoiseType::OpenSimplex2));
            noise.set_frequency(Some(frequency));
            noise
        };
        let (fibre, dye) = (noise(1.0), noise(0.012));
        let mut yarns = |colour| (-REACH..=REACH).map(|_| Yarn::new(colour, rng)).collect();
        Self {
            warp: yarns(WARP),
            weft: yarns(WEFT),
            fibre,
            dye,
        }
    }

    /// Linear colour at a point of the cloth, lit.
    pub(super) fn colour(&self, u: f32, v: f32, defect: Option<&Defect>) -> [f32; 3] {
        let warp = self.strand(Direction::Warp, u, v, defect);
        let weft = self.strand(Direction::Weft, u, v, defect);
        let (strand, direction) = match (warp, weft) {
            (Some(warp), Some(weft)) if warp.height >= weft.height => (warp, Direction::Warp),
            (_, Some(weft)) => (weft, Direction::Weft),
            (Some(warp), None) => (warp, Direction::Warp),
            (None, None) => {
                return defect
                    .and_then(|defect| defect.behind(u, v))
                    .unwrap_or(BEHIND);
            }
        };
        let (along, slope) = match direction {
            Direction::Warp => (v, strand.slope),
            Direction::Weft => (u, [strand.slope[1], strand.slope[0]]),
        };
        let light = shade(slope) * shelter(strand.height) * self.hair(&strand, along);
        let dye = 1.0 + 0.035 * self.dye.get_noise_2d(u, v);
        strand.yarn.colour.map(|channel| channel * light * dye)
    }

    /// The uppermost yarn of one direction at a point, if one covers it.
    fn strand(
        &self,
        direction: Direction,
        u: f32,
        v: f32,
        defect: Option<&Defect>,
    ) -> Option<Strand<'_>> {
        let (yarns, position, along) = match direction {
            Direction::Warp => (&self.warp, u, v),
            Direction::Weft => (&self.weft, v, u),
        };
        let nearest = (position / PITCH).round() as i32;
        (nearest - 1..=nearest + 1)
            .filter_map(|index| {
                let yarn = yarns.get(usize::try_from(index + REACH).ok()?)?;
                let shift = defect.map_or(0.0, |defect| defect.shift(direction, index, along));
                let girth = defect.map_or(1.0, |defect| defect.girth(direction, index, along));
                let centre = index as f32 * PITCH + yarn.offset + yarn.wander.at(along) + shift;
                let width = HALF_WIDTH * girth * (1.0 + yarn.girth.at(along));
                let across = (position - centre) / width;
                (girth > 0.05 && across.abs() < 1.0).then(|| {
                    let (rise, climb) = crimp(direction, index, along, defect);
                    let round = (1.0 - across * across).sqrt();
                    Strand {
                        yarn,
                        index,
                        height: CRIMP * rise + HALF_THICKNESS * round,
                        slope: [
                            -HALF_THICKNESS * across / (width * round.max(0.25)),
                            CRIMP * climb,
                        ],
                        across,
                    }
                })
            })
            .max_by(|one, other| one.height.total_cmp(&other.height))
    }

    /// Brightness of the fibres: drawn out along the yarn, and wound around it.
    fn hair(&self, strand: &Strand, along: f32) -> f32 {
        let lane = strand.index as f32 * 19.7;
        let fine = self
            .fibre
            .get_noise_2d(along * 0.22, lane + strand.across * 2.6);
        let coarse = self
            .fibre
            .get_noise_2d(along * 0.05, lane + 400.0 + strand.across * 1.1);
        let wound = (2.0 * PI * (along / 4.3 + 0.45 * strand.across) + strand.yarn.twist).sin();
        1.0 + 0.13 * fine + 0.10 * coarse + 0.045 * wound
    }
}

impl Yarn {
    fn new(colour: [f32; 3], rng: &mut impl Rng) -> Self {
        let mut normal = || -> f32 { StandardNormal.sample(rng) };
        let (brightness, warmth) = (1.0 + 0.055 * normal(), 0.012 * normal());
        let tint = [brightness + warmth, brightness, brightness - warmth];
        let offset = 0.035 * PITCH * normal();
        let wander = Track::new(34.0, || 0.035 * PITCH * normal());
        // Slubs: linen yarn is mostly even, with some thick places.
        let girth = Track::new(13.0, || 0.06 * normal() + 0.02 * normal().powi(2).min(9.0));
        Self {
            offset,
            colour: std::array::from_fn(|c| colour[c] * tint[c]),
            wander,
            girth,
            twist: rng.random_range(0.0..2.0 * PI),
        }
    }
}

impl Track {
    fn new(spacing: f32, value: impl FnMut() -> f32) -> Self {
        let count = (2.0 * REACH as f32 * PITCH / spacing) as usize + 3;
        Self {
            spacing,
            knots: std::iter::repeat_with(value).take(count).collect(),
        }
    }

    fn at(&self, along: f32) -> f32 {
        let place = (along + REACH as f32 * PITCH).max(0.0) / self.spacing;
        let last = self.knots.len() - 2;
        let knot = (place as usize).min(last);
        let t = ease((place - knot as f32).min(1.0));
        self.knots[knot] * (1.0 - t) + self.knots[knot + 1] * t
    }
}

/// Rise of a yarn (-1 under, 1 over) and its slope, between the crossings before and after `along`.
/// Where the yarn that it should cross is missing, nothing holds it up.
fn crimp(direction: Direction, index: i32, along: f32, defect: Option<&Defect>) -> (f32, f32) {
    let place = along / PITCH;
    let before = place.floor();
    let rise = |crossing: i32| {
        let (end, pick, crossed) = match direction {
            Direction::Warp => (index, crossing, Direction::Weft),
            Direction::Weft => (crossing, index, Direction::Warp),
        };
        let Some(defect) = defect else {
            return rise_of(direction, plain_weave(end, pick));
        };
        if defect.misses(crossed, crossing, index as f32 * PITCH) {
            return SAGGING;
        }
        rise_of(
            direction,
            defect
                .warp_over(end, pick)
                .unwrap_or_else(|| plain_weave(end, pick)),
        )
    };
    let (from, to) = (rise(before as i32), rise(before as i32 + 1));
    let t = place - before;
    (
        from + (to - from) * ease(t),
        (to - from) * 6.0 * t * (1.0 - t) / PITCH,
    )
}

/// Whether the warp lies above.
fn plain_weave(end: i32, pick: i32) -> bool {
    (end + pick).rem_euclid(2) == 0
}

fn rise_of(direction: Direction, warp_over: bool) -> f32 {
    if warp_over == (direction == Direction::Warp) {
        1.0
    } else {
        -1.0
    }
}

/// A smooth way from 0 to 1.
fn ease(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

/// Lambert's law, softened by the light that comes from everywhere.
fn shade([by_u, by_v]: [f32; 2]) -> f32 {
    let length = (by_u * by_u + by_v * by_v + 1.0).sqrt();
    let direct = (LIGHT[2] - by_u * LIGHT[0] - by_v * LIGHT[1]) / length;
    0.34 + 0.82 * direct.max(0.0)
}

/// Less light reaches the depth between yarns.
fn shelter(height: f32) -> f32 {
    let (bottom, top) = (-CRIMP, CRIMP + HALF_THICKNESS);
    let t = ((height - bottom) / (top - bottom)).clamp(0.0, 1.0);
    0.42 + 0.58 * t.sqrt()
}
