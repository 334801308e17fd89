//! Defects put into normal images, for choices that must not look at real ones (when to stop, which
//! map to score by).

use fastnoise_lite::{FastNoiseLite, NoiseType};
use image::{Rgb, RgbImage};
use rand::{Rng, RngExt};

use super::{Affine, Mask, product::Product};

/// A kind of synthetic defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntheticDefect {
    /// A rectangle of the image, recoloured a little and turned, pasted elsewhere (CutPaste, Li et al. 2021).
    CutPaste,
    /// The same with a thin strip (CutPaste-Scar).
    Scar,
    /// A blot with the outline of Perlin noise, filled with another part of the image and more noise
    /// (after DRAEM, Zavrtanik et al. 2021, whose filling is foreign textures).
    Perlin,
}

/// Least change of a pixel, in levels of 255, that counts as part of the defect: a patch that looks
/// like what it covers is not one.
const VISIBLE: u8 = 12;
/// Least area of a defect, as a share of what it lies on.
const LEAST_AREA: f64 = 2e-4;
/// And in pixels.
const LEAST_PIXELS: f64 = 4.0;
/// Draws before a defect that always shows is put in.
const TRIES: usize = 30;

impl SyntheticDefect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CutPaste, Self::Scar, Self::Perlin];

    /// The class under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::CutPaste => "synthetic-patch",
            Self::Scar => "synthetic-scar",
            Self::Perlin => "synthetic-blot",
        }
    }

    /// The image with one defect, and the pixels that it visibly changed (never none, except in images
    /// of a few pixels). It lies on the product where that can be told from the background
    /// (`Product::find`), and is as large as the product lets expect.
    pub fn apply(self, image: &RgbImage, rng: &mut impl Rng) -> (RgbImage, Mask) {
        let ground = Ground::of(image);
        let least = (LEAST_AREA * ground.area).max(LEAST_PIXELS);
        for _ in 0..TRIES {
            let changed = match self {
                Self::CutPaste => paste(&ground, &Patch::rectangle(&ground, rng), rng),
                Self::Scar => paste(&ground, &Patch::strip(&ground, rng), rng),
                Self::Perlin => blot(&ground, rng),
            };
            let mask = difference(image, &changed);
            if mask.area() as f64 >= least {
                return (changed, mask);
            }
        }
        let changed = inverted_spot(&ground, rng);
        let mask = difference(image, &changed);
        (changed, mask)
    }
}

/// What defects are put on.
struct Ground<'a> {
    image: &'a RgbImage,
    product: Option<Product>,
    /// In pixels, of the product or else the image.
    area: f64,
    /// The same of a square of that area, or the image's shorter side.
    side: f64,
}

impl<'a> Ground<'a> {
    fn of(image: &'a RgbImage) -> Self {
        let product = Product::find(image);
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        let area = product.as_ref().map(|product| product.area() as f64);
        Self {
            image,
            area: area.unwrap_or(width * height),
            side: area.map_or(width.min(height), f64::sqrt),
            product,
        }
    }

    /// Where something happens: anywhere on the product. Where that is not known, the liveliest of a few random
    /// places, because defects that matter do not lie on an empty background.
    fn place(&self, rng: &mut impl Rng) -> [f64; 2] {
        match &self.product {
            Some(product) => {
                let (x, y) = product.inner()[rng.random_range(0..product.inner().len())];
                [f64::from(x), f64::from(y)]
            }
            None => lively_place(self.image, rng),
        }
    }

    /// The image with the pixels within `reach` of a place that belong to the product changed.
    fn changed(
        &self,
        at: [f64; 2],
        reach: f64,
        mut change: impl FnMut(&mut Rgb<u8>, u32, u32),
    ) -> RgbImage {
        let mut out = self.image.clone();
        for (x, y) in around(self.image, at, reach) {
            let product = self.product.as_ref();
            if product.is_none_or(|product| product.covers(x, y)) {
                change(out.get_pixel_mut(x, y), x, y);
            }
        }
        out
    }
}

/// Half sides of a patch in pixels, and its angle.
struct Patch {
    half: [f64; 2],
    degrees: f64,
}

impl Patch {
    /// 0.3 to 3 % of the ground, up to three times as long as wide.
    fn rectangle(ground: &Ground<'_>, rng: &mut impl Rng) -> Self {
        let area = ground.area * log_even(0.003, 0.03, rng);
        let aspect = log_even(1.0 / 3.0, 3.0, rng);
        Self {
            half: [(area * aspect).sqrt() / 2.0, (area / aspect).sqrt() / 2.0],
            degrees: even(-45.0, 45.0, rng),
        }
    }

    /// 5 to 15 % of the ground's side long, 0.6 to 2 % wide.
    fn strip(ground: &Ground<'_>, rng: &mut impl Rng) -> Self {
        let side = ground.side;
        Self {
            half: [
                side * log_even(0.05, 0.15, rng) / 2.0,
                (side * log_even(0.006, 0.02, rng) / 2.0).max(0.75),
            ],
            degrees: even(-90.0, 90.0, rng),
        }
    }

    /// How much of the patch covers a place at `x`, `y` from its centre: 1 inside, a soft pixel at the rim.
    fn cover(&self, x: f64, y: f64) -> f64 {
        let (sin, cos) = self.degrees.to_radians().sin_cos();
        let (along, across) = (x * cos - y * sin, x * sin + y * cos);
        let rim = |place: f64, half: f64| (half + 0.5 - place.abs()).clamp(0.0, 1.0);
        rim(along, self.half[0]) * rim(across, self.half[1])
    }
}

fn paste(ground: &Ground<'_>, patch: &Patch, rng: &mut impl Rng) -> RgbImage {
    let image = ground.image;
    let (from, to) = (ground.place(rng), ground.place(rng));
    let turn = even(-45.0, 45.0, rng);
    // The image moved so that what lay at `from` lies at `to`, turned about it.
    let moved = Affine::about(from, to, turn);
    let jitter = Jitter::draw(image, 0.15, rng);
    let reach = patch.half[0].hypot(patch.half[1]) + 1.0;
    ground.changed(to, reach, |pixel, x, y| {
        let cover = patch.cover(f64::from(x) - to[0], f64::from(y) - to[1]);
        blend(pixel, jitter.apply(moved.pixel(image, x, y)), cover);
    })
}

fn blot(ground: &Ground<'_>, rng: &mut impl Rng) -> RgbImage {
    let image = ground.image;
    let (centre, source) = (ground.place(rng), ground.place(rng));
    let radius = ground.side * log_even(0.02, 0.1, rng);
    let (outline, grain) = (perlin(rng), perlin(rng));
    let (coarse, fine) = (radius * even(0.5, 1.0, rng), (radius * 0.15).max(1.5));
    let moved = Affine::about(source, centre, even(-180.0, 180.0, rng));
    let jitter = Jitter::draw(image, 0.25, rng);
    let (strength, opacity) = (even(0.0, 50.0, rng), even(0.4, 1.0, rng));
    ground.changed(centre, 1.6 * radius, |pixel, x, y| {
        let (dx, dy) = (f64::from(x) - centre[0], f64::from(y) - centre[1]);
        // A ball whose surface the noise dents: positive inside.
        let inside = 1.0 - dx.hypot(dy) / radius + 0.8 * noise(&outline, dx / coarse, dy / coarse);
        let cover = (inside * radius).clamp(0.0, 1.0) * opacity;
        let speck = strength * noise(&grain, dx / fine, dy / fine);
        let new = jitter.apply(moved.pixel(image, x, y)).map(|v| v + speck);
        blend(pixel, new, cover);
    })
}

/// Random smooth noise of about -1 to 1 with bumps of about one unit.
fn perlin(rng: &mut impl Rng) -> FastNoiseLite {
    let mut noise = FastNoiseLite::with_seed(rng.random());
    noise.set_noise_type(Some(NoiseType::Perlin));
    noise.set_frequency(Some(1.0));
    noise
}

fn noise(noise: &FastNoiseLite, x: f64, y: f64) -> f64 {
    f64::from(noise.get_noise_2d(x as f32, y as f32))
}

/// A disc whose values are moved by half of the range, which shows on any ground.
fn inverted_spot(ground: &Ground<'_>, rng: &mut impl Rng) -> RgbImage {
    let centre = ground.place(rng);
    let radius = (0.03 * ground.side).max(1.5);
    ground.changed(centre, radius, |pixel, x, y| {
        if (f64::from(x) - centre[0]).hypot(f64::from(y) - centre[1]) <= radius {
            pixel.0.iter_mut().for_each(|v| *v = v.wrapping_add(128));
        }
    })
}

/// The liveliest of a few random places.
fn lively_place(image: &RgbImage, rng: &mut impl Rng) -> [f64; 2] {
    const CANDIDATES: usize = 6;
    let (width, height) = (f64::from(image.width() - 1), f64::from(image.height() - 1));
    let mut best = ([0.0; 2], -1.0);
    for _ in 0..CANDIDATES {
        let at = [
            even(0.05, 0.95, rng) * width,
            even(0.05, 0.95, rng) * height,
        ];
        let life = contrast(image, at);
        if life > best.1 {
            best = (at, life);
        }
    }
    best.0
}

/// Standard deviation of brightness over a grid of samples around a place.
fn contrast(image: &RgbImage, at: [f64; 2]) -> f64 {
    const GRID: i32 = 4;
    let step = f64::from(image.width().min(image.height())) / 128.0;
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for dy in -GRID..=GRID {
        for dx in -GRID..=GRID {
            let x = (at[0] + f64::from(dx) * step).clamp(0.0, f64::from(image.width() - 1));
            let y = (at[1] + f64::from(dy) * step).clamp(0.0, f64::from(image.height() - 1));
            let [r, g, b] = image.get_pixel(x as u32, y as u32).0.map(f64::from);
            let value = (r + g + b) / 3.0;
            (sum, squares, count) = (sum + value, squares + value * value, count + 1.0);
        }
    }
    (squares / count - (sum / count) * (sum / count))
        .max(0.0)
        .sqrt()
}

/// A small change of colour: a factor and an offset.
struct Jitter {
    factor: f64,
    offset: [f64; 3],
}

impl Jitter {
    /// A grey image stays grey: colour in it would be found too easily.
    fn draw(image: &RgbImage, strength: f64, rng: &mut impl Rng) -> Self {
        let is_grey = image.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]);
        let tint = if is_grey { 0.0 } else { 32.0 * strength };
        let common = even(-strength, strength, rng) * 128.0;
        Self {
            factor: 1.0 + even(-strength, strength, rng),
            offset: std::array::from_fn(|_| common + even(-tint, tint, rng)),
        }
    }

    fn apply(&self, pixel: Rgb<u8>) -> [f64; 3] {
        std::array::from_fn(|c| {
            (f64::from(pixel.0[c]) - 128.0) * self.factor + 128.0 + self.offset[c]
        })
    }
}

fn blend(pixel: &mut Rgb<u8>, new: [f64; 3], cover: f64) {
    for (old, new) in pixel.0.iter_mut().zip(new) {
        *old = (f64::from(*old) * (1.0 - cover) + new * cover)
            .round()
            .clamp(0.0, 255.0) as u8;
    }
}

/// Pixels of the square around a place that lie in the image.
fn around(image: &RgbImage, at: [f64; 2], reach: f64) -> impl Iterator<Item = (u32, u32)> + use<> {
    let span = |at: f64, size: u32| {
        let from = (at - reach).floor().max(0.0) as u32;
        from..=((at + reach).ceil().max(0.0) as u32).min(size - 1)
    };
    let (columns, rows) = (span(at[0], image.width()), span(at[1], image.height()));
    rows.flat_map(move |y| columns.clone().map(move |x| (x, y)))
}

fn difference(before: &RgbImage, after: &RgbImage) -> Mask {
    let mut mask = Mask::empty(before.width() as usize, before.height() as usize);
    for ((x, y, old), new) in before.enumerate_pixels().zip(after.pixels()) {
        let changed = old
            .0
            .iter()
            .zip(new.0)
            .any(|(a, b)| a.abs_diff(b) >= VISIBLE);
        mask.set(x as usize, y as usize, changed);
    }
    mask
}

fn even(low: f64, high: f64, rng: &mut impl Rng) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

fn log_even(low: f64, high: f64, rng: &mut impl Rng) -> f64 {
    even(low.ln(), high.ln(), rng).exp()
}
