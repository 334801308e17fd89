//! Defects that lie on the cloth: stains, threads and scratches.

use fastnoise_lite::{FastNoiseLite, FractalType};
use rand::{Rng, RngExt};

/// Something on the cloth.
pub(super) enum Mark {
    Stain(Stain),
    Thread(Thread),
    Scratch(Scratch),
}

impl Mark {
    pub(super) fn tint(&self, u: f32, v: f32, colour: [f32; 3]) -> [f32; 3] {
        match self {
            Self::Stain(stain) => stain.tint(u, v, colour),
            Self::Thread(thread) => thread.tint(u, v, colour),
            Self::Scratch(scratch) => scratch.tint(u, v, colour),
        }
    }

    pub(super) fn covers(&self, u: f32, v: f32) -> bool {
        match self {
            Self::Stain(stain) => stain.depth(u, v) > 0.0,
            Self::Thread(thread) => thread.line.nearest(u, v).0 < thread.radius + 1.5,
            Self::Scratch(scratch) => {
                let (distance, along) = scratch.line.nearest(u, v);
                distance < scratch.half_width(along) + 0.8
            }
        }
    }
}

/// A dried drop: an uneven outline, darker at its rim.
pub(super) struct Stain {
    centre: [f32; 2],
    radius: f32,
    /// What it leaves of R, G, B.
    dye: [f32; 3],
    outline: FastNoiseLite,
}

impl Stain {
    pub(super) fn new(centre: [f32; 2], rng: &mut impl Rng) -> Self {
        const DYES: [[f32; 3]; 3] = [[0.70, 0.62, 0.50], [0.62, 0.62, 0.64], [0.78, 0.66, 0.46]];
        let mut outline = FastNoiseLite::with_seed(rng.random());
        outline.set_fractal_type(Some(FractalType::FBm));
        outline.set_frequency(Some(0.035));
        Self {
            centre,
            radius: rng.random_range(12.0..28.0),
            dye: DYES[rng.random_range(0..DYES.len())],
            outline,
        }
    }

    /// How deep inside the outline a point is, as a share of the radius; negative outside.
    fn depth(&self, u: f32, v: f32) -> f32 {
        let off = (u - self.centre[0]).hypot(v - self.centre[1]) / self.radius;
        1.0 - off + 0.55 * self.outline.get_noise_2d(u, v)
    }

    fn tint(&self, u: f32, v: f32, colour: [f32; 3]) -> [f32; 3] {
        let depth = self.depth(u, v);
        let rim = (-(depth - 0.10).powi(2) / 0.006).exp();
        let strength = smooth(depth / 0.12) * (0.75 + 0.35 * rim);
        std::array::from_fn(|c| colour[c] * (1.0 - strength * (1.0 - self.dye[c])))
    }
}

/// A piece of yarn that fell on the cloth, with its shadow.
pub(super) struct Thread {
    line: Polyline,
    radius: f32,
    colour: [f32; 3],
}

impl Thread {
    pub(super) fn new(centre: [f32; 2], rng: &mut impl Rng) -> Self {
        const COLOURS: [[f32; 3]; 3] = [[0.62, 0.58, 0.52], [0.20, 0.19, 0.19], [0.33, 0.22, 0.16]];
        let length = rng.random_range(40.0..90.0);
        Self {
            line: Polyline::wandering(centre, length, 0.22, rng),
            radius: rng.random_range(1.2..1.9),
            colour: COLOURS[rng.random_range(0..COLOURS.len())],
        }
    }

    fn tint(&self, u: f32, v: f32, colour: [f32; 3]) -> [f32; 3] {
        let (distance, along) = self.line.nearest(u, v);
        let (shadow, _) = self.line.nearest(u - 1.4, v - 1.7);
        let shaded = 1.0 - 0.45 * smooth(1.0 - (shadow - self.radius) / 1.5);
        let over = smooth((self.radius - distance) / 0.6 + 0.5);
        let round = (1.0 - (distance / self.radius).powi(2)).max(0.0).sqrt();
        let light = (0.62 + 0.45 * round) * (1.0 + 0.10 * (along * 1.7).sin());
        std::array::from_fn(|c| over * self.colour[c] * light + (1.0 - over) * colour[c] * shaded)
    }
}

/// A rubbed line: raised, paler fibres, uneven in strength, with a darker furrow.
pub(super) struct Scratch {
    line: Polyline,
    strength: FastNoiseLite,
}

impl Scratch {
    pub(super) fn new(centre: [f32; 2], rng: &mut impl Rng) -> Self {
        let length = rng.random_range(35.0..95.0);
        let mut strength = FastNoiseLite::with_seed(rng.random());
        strength.set_frequency(Some(0.07));
        Self {
            line: Polyline::wandering(centre, length, 0.03, rng),
            strength,
        }
    }

    fn half_width(&self, along: f32) -> f32 {
        1.9 + 0.7 * self.strength.get_noise_2d(along, 300.0)
    }

    fn tint(&self, u: f32, v: f32, colour: [f32; 3]) -> [f32; 3] {
        let (distance, along) = self.line.nearest(u, v);
        let half = self.half_width(along);
        let fibres = 0.75 + 0.5 * self.strength.get_noise_2d(u * 9.0, v * 9.0);
        let rubbed = smooth(1.3 - distance / half) * fibres.clamp(0.0, 1.0);
        let pale = [0.66, 0.61, 0.53];
        std::array::from_fn(|c| colour[c] + rubbed * (pale[c] - colour[c]))
    }
}

/// A line of short straight pieces.
struct Polyline {
    points: Vec<[f32; 2]>,
    middle: [f32; 2],
    /// No point of the line is farther from the middle.
    reach: f32,
}

impl Polyline {
    /// A line around `centre` that turns at random, by up to `bend` radians (one deviation) in ten units.
    fn wandering(centre: [f32; 2], length: f32, bend: f32, rng: &mut impl Rng) -> Self {
        const STEP: f32 = 2.0;
        let mut heading = rng.random_range(0.0..std::f32::consts::TAU);
        let mut turn = 0.0f32;
        let [mut u, mut v] = [0.0f32; 2];
        let mut points = vec![[u, v]];
        for _ in 0..(length / STEP) as usize {
            turn = 0.9 * turn + rng.random_range(-1.0..1.0) * bend * 0.5;
            heading += turn;
            u += STEP * heading.cos();
            v += STEP * heading.sin();
            points.push([u, v]);
        }
        let middle = points[points.len() / 2];
        for point in &mut points {
            *point = [
                point[0] - middle[0] + centre[0],
                point[1] - middle[1] + centre[1],
            ];
        }
        Self {
            points,
            middle: centre,
            reach: 0.5 * length + STEP,
        }
    }

    /// Distance of a point from the line, and how far along the line that is; infinitely far where it
    /// does not matter.
    fn nearest(&self, u: f32, v: f32) -> (f32, f32) {
        const MATTERS: f32 = 10.0;
        let mut best = (f32::INFINITY, 0.0);
        if (u - self.middle[0]).hypot(v - self.middle[1]) > self.reach + MATTERS {
            return best;
        }
        let mut along = 0.0;
        for piece in self.points.windows(2) {
            let [[from_u, from_v], [to_u, to_v]] = [piece[0], piece[1]];
            let (du, dv) = (to_u - from_u, to_v - from_v);
            let length = du.hypot(dv);
            let t = (((u - from_u) * du + (v - from_v) * dv) / (length * length)).clamp(0.0, 1.0);
            let distance = (u - from_u - t * du).hypot(v - from_v - t * dv);
            if distance < best.0 {
                best = (distance, along + t * length);
            }
            along += length;
        }
        best
    }
}

/// 0 below 0, 1 above 1, smooth between.
fn smooth(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
