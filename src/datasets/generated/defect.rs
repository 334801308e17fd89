//! What can go wrong with a cloth: in the weave (yarns missing, displaced, wrongly crossed) or on it.

use fastnoise_lite::FastNoiseLite;
use rand::{Rng, RngExt};

use super::{
    surface::{Mark, Scratch, Stain, Thread},
    weave::{Direction, PITCH},
};

/// The kinds of defect; each is a folder of the test set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DefectKind {
    /// A pick is torn and missing over a few centimetres.
    BrokenYarn,
    /// Ends and picks are gone in a round place.
    Hole,
    /// A liquid has dried on the cloth.
    Stain,
    /// A piece of yarn lies on the cloth.
    LooseThread,
    /// Picks float over several ends instead of crossing each.
    WrongWeave,
    /// A pick leaves its place and crowds its neighbours.
    MisplacedPick,
    /// Something has rubbed along a line and raised the fibres.
    Scratch,
}

impl DefectKind {
    /// All kinds, in the order in which a test set cycles through them.
    pub const ALL: [Self; 7] = [
        Self::BrokenYarn,
        Self::Hole,
        Self::Stain,
        Self::LooseThread,
        Self::WrongWeave,
        Self::MisplacedPick,
        Self::Scratch,
    ];

    /// The folder's name in a test set.
    pub fn name(self) -> &'static str {
        match self {
            Self::BrokenYarn => "broken_yarn",
            Self::Hole => "hole",
            Self::Stain => "stain",
            Self::LooseThread => "loose_thread",
            Self::WrongWeave => "wrong_weave",
            Self::MisplacedPick => "misplaced_pick",
            Self::Scratch => "scratch",
        }
    }
}

/// One defect at its place, in the cloth's coordinates.
pub(super) enum Defect {
    /// Yarn `index` is missing from `from` to `to`.
    Broken {
        direction: Direction,
        index: i32,
        from: f32,
        to: f32,
    },
    Hole {
        centre: [f32; 2],
        radius: [f32; 2],
        fray: FastNoiseLite,
    },
    /// In these ends and picks the weft lies above.
    Floats {
        ends: [i32; 2],
        picks: [i32; 2],
        direction: Direction,
    },
    /// Yarn `index` is off by up to `amount` around `at`.
    Displaced {
        direction: Direction,
        index: i32,
        at: f32,
        half: f32,
        amount: f32,
    },
    On(Mark),
}

impl Defect {
    /// A defect of this kind somewhere in the inner part of the image.
    pub(super) fn new(kind: DefectKind, rng: &mut impl Rng) -> Self {
        let mut place = || rng.random_range(-70.0..70.0f32);
        let [u, v] = [place(), place()];
        let direction = if rng.random_bool(0.5) {
            Direction::Warp
        } else {
            Direction::Weft
        };
        let (across, along) = match direction {
            Direction::Warp => (u, v),
            Direction::Weft => (v, u),
        };
        let index = (across / PITCH).round() as i32;
        match kind {
            DefectKind::BrokenYarn => {
                let half = rng.random_range(18.0..40.0);
                Self::Broken {
                    direction,
                    index,
                    from: along - half,
                    to: along + half,
                }
            }
            DefectKind::Hole => {
                let radius = rng.random_range(7.0..14.0);
                let squeeze = rng.random_range(0.75..1.3f32);
                let fray = FastNoiseLite::with_seed(rng.random());
                Self::Hole {
                    centre: [u, v],
                    radius: [radius * squeeze, radius / squeeze],
                    fray,
                }
            }
            DefectKind::WrongWeave => {
                let (long, wide) = (rng.random_range(4..=8), rng.random_range(2..=4));
                let first = (along / PITCH).round() as i32;
                let (yarns, crossed) = ([index, index + wide - 1], [first, first + long - 1]);
                match direction {
                    Direction::Warp => Self::Floats {
                        ends: yarns,
                        picks: crossed,
                        direction,
                    },
                    Direction::Weft => Self::Floats {
                        ends: crossed,
                        picks: yarns,
                        direction,
                    },
                }
            }
            DefectKind::MisplacedPick => {
                let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
                let amount = sign * rng.random_range(0.7..1.0) * PITCH;
                Self::Displaced {
                    direction,
                    index,
                    at: along,
                    half: rng.random_range(30.0..55.0),
                    amount,
                }
            }
            DefectKind::Stain => Self::On(Mark::Stain(Stain::new([u, v], rng))),
            DefectKind::LooseThread => Self::On(Mark::Thread(Thread::new([u, v], rng))),
            DefectKind::Scratch => Self::On(Mark::Scratch(Scratch::new([u, v], rng))),
        }
    }

    /// Whether the warp lies above at this crossing, where the defect decides it.
    pub(super) fn warp_over(&self, end: i32, pick: i32) -> Option<bool> {
        let within = |[first, last]: [i32; 2], index| (first..=last).contains(&index);
        match self {
            Self::Floats {
                ends,
                picks,
                direction,
            } if within(*ends, end) && within(*picks, pick) => Some(*direction == Direction::Warp),
            _ => None,
        }
    }

    /// Share of a yarn's width that is left.
    pub(super) fn girth(&self, direction: Direction, index: i32, along: f32) -> f32 {
        match self {
            Self::Broken {
                direction: broken,
                index: at,
                from,
                to,
            } if *broken == direction && *at == index => torn(along - from, to - along),
            Self::Hole {
                centre,
                radius,
                fray,
            } => {
                let [across, middle] = oriented(*centre, direction);
                let [half_across, half_along] = oriented(*radius, direction);
                let off = (index as f32 * PITCH - across) / half_across;
                if off.abs() >= 1.0 {
                    return 1.0;
                }
                let half = half_along * (1.0 - off * off).sqrt();
                let lane = index as f32
                    + if direction == Direction::Warp {
                        0.5
                    } else {
                        900.5
                    };
                let end = |side: f32| half + 3.0 * fray.get_noise_2d(lane * 61.0, side * 50.0);
                torn(along - middle + end(-1.0), middle + end(1.0) - along)
            }
            _ => 1.0,
        }
    }

    /// Whether a torn yarn leaves those that cross it without support at this place.
    pub(super) fn misses(&self, direction: Direction, index: i32, along: f32) -> bool {
        matches!(self, Self::Broken { .. }) && self.girth(direction, index, along) < 0.5
    }

    /// How far a yarn is off its place.
    pub(super) fn shift(&self, direction: Direction, index: i32, along: f32) -> f32 {
        match self {
            Self::Displaced {
                direction: displaced,
                index: moved,
                at,
                half,
                amount,
            } if *displaced == direction => {
                let ahead = (index - moved) * amount.signum() as i32;
                // The neighbours ahead give way, less and less; those behind stay.
                let share = match ahead {
                    0 => 1.0,
                    1 => 0.45,
                    2 => 0.15,
                    _ => 0.0,
                };
                share * amount * bump((along - at) / half)
            }
            _ => 0.0,
        }
    }

    /// What is seen where no yarn is left: the table on which the cloth lies, shaded by the cloth.
    pub(super) fn behind(&self, u: f32, v: f32) -> Option<[f32; 3]> {
        let Self::Hole { centre, radius, .. } = self else {
            return None;
        };
        if !self.covers(u, v) {
            return None;
        }
        const TABLE: [f32; 3] = [0.150, 0.148, 0.145];
        let towards_light = (centre[0] - u) / radius[0] + (centre[1] - v) / radius[1];
        let lit = 1.0 - 0.45 * (towards_light - 0.2).clamp(0.0, 1.0);
        Some(TABLE.map(|channel| channel * lit))
    }

    /// The colour of a point of the cloth as it is with what lies on it.
    pub(super) fn tint(&self, u: f32, v: f32, colour: [f32; 3]) -> [f32; 3] {
        match self {
            Self::On(mark) => mark.tint(u, v, colour),
            _ => colour,
        }
    }

    /// Whether a point belongs to the ground truth.
    pub(super) fn covers(&self, u: f32, v: f32) -> bool {
        match self {
            Self::Broken {
                direction,
                index,
                from,
                to,
            } => {
                let [across, along] = oriented([u, v], *direction);
                (across - *index as f32 * PITCH).abs() < 0.55 * PITCH
                    && (*from - 1.0..*to + 1.0).contains(&along)
            }
            Self::Hole { centre, radius, .. } => {
                let off = |axis: usize, at: f32| (at - centre[axis]) / (radius[axis] + 0.4 * PITCH);
                off(0, u).hypot(off(1, v)) < 1.0
            }
            Self::Floats { ends, picks, .. } => {
                let within = |[first, last]: [i32; 2], at: f32| {
                    (first as f32 - 0.6..last as f32 + 0.6).contains(&(at / PITCH))
                };
                within(*ends, u) && within(*picks, v)
            }
            Self::Displaced {
                direction,
                index,
                at,
                half,
                amount,
            } => {
                let [across, along] = oriented([u, v], *direction);
                let ahead = (across / PITCH - *index as f32) * amount.signum();
                bump((along - at) / half) > 0.2 && (-0.6..2.3).contains(&ahead)
            }
            Self::On(mark) => mark.covers(u, v),
        }
    }
}

/// (across, along) of a yarn of this direction, from (u, v).
fn oriented([u, v]: [f32; 2], direction: Direction) -> [f32; 2] {
    match direction {
        Direction::Warp => [u, v],
        Direction::Weft => [v, u],
    }
}

/// Width of a torn yarn: none inside the gap, thinning out where it ends.
fn torn(after: f32, before: f32) -> f32 {
    let inside = after.min(before);
    (-inside / 3.5 + 0.35).clamp(0.0, 1.0)
}

/// A smooth rise and fall over -1..1.
fn bump(t: f32) -> f32 {
    if t.abs() < 1.0 {
        (1.0 - t * t).powi(2)
    } else {
        0.0
    }
}
