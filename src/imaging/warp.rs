//! Turning, scaling and shifting images and their masks.

use image::{Rgb, RgbImage};

use super::Mask;

/// A turn, scaling and shift about an image's centre, kept as the way from a pixel of the result back
/// to the place that it is taken from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// `x' = m[0] x + m[1] y + m[2]` and `y' = m[3] x + m[4] y + m[5]`, in pixels.
    back: [f64; 6],
}

impl Affine {
    /// Turns the picture `degrees` counter-clockwise and scales it, both about the centre of
    /// `width` x `height` pixels, then shifts it right by `shift[0]` and down by `shift[1]` pixels.
    pub fn about_centre(
        width: u32,
        height: u32,
        degrees: f64,
        scale: f64,
        shift: [f64; 2],
    ) -> Self {
        let centre = [f64::from(width - 1) / 2.0, f64::from(height - 1) / 2.0];
        Self::new(
            centre,
            [centre[0] + shift[0], centre[1] + shift[1]],
            degrees,
            scale,
        )
    }

    /// Moves what lies at `from` to `to`, turning the picture about it by `degrees` counter-clockwise.
    pub fn about(from: [f64; 2], to: [f64; 2], degrees: f64) -> Self {
        Self::new(from, to, degrees, 1.0)
    }

    fn new(from: [f64; 2], to: [f64; 2], degrees: f64, scale: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (a, b) = (cos / scale, sin / scale);
        Self {
            back: [
                a,
                -b,
                from[0] - a * to[0] + b * to[1],
                b,
                a,
                from[1] - b * to[0] - a * to[1],
            ],
        }
    }

    /// Where pixel (`x`, `y`) of the result comes from.
    fn source(&self, x: u32, y: u32) -> (f64, f64) {
        let (x, y) = (f64::from(x), f64::from(y));
        let m = &self.back;
        (m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5])
    }

    /// Where a place of the original, in pixels, comes to lie.
    pub fn target(&self, x: f64, y: f64) -> (f64, f64) {
        let m = &self.back;
        let determinant = m[0] * m[4] - m[1] * m[3];
        let (x, y) = (x - m[2], y - m[5]);
        (
            (m[4] * x - m[1] * y) / determinant,
            (m[0] * y - m[3] * x) / determinant,
        )
    }

    /// Pixel (`x`, `y`) of the image after the movement: bilinear, the border's colours go on outside.
    pub(super) fn pixel(&self, image: &RgbImage, x: u32, y: u32) -> Rgb<u8> {
        let (x, y) = self.source(x, y);
        bilinear(image, x, y)
    }

    /// The image after the movement, of the same size: bilinear, the border's colours go on outside.
    pub fn warp(&self, image: &RgbImage) -> RgbImage {
        RgbImage::from_fn(image.width(), image.height(), |x, y| {
            self.pixel(image, x, y)
        })
    }

    /// The mask after the movement, of the same size: nearest pixel, nothing is defective outside.
    pub fn warp_mask(&self, mask: &Mask) -> Mask {
        let mut out = Mask::empty(mask.width(), mask.height());
        for y in 0..mask.height() {
            for x in 0..mask.width() {
                let (sx, sy) = self.source(x as u32, y as u32);
                let (sx, sy) = (sx.round(), sy.round());
                // The cast of a negative number would give pixel 0.
                if sx >= 0.0 && sy >= 0.0 && mask.get(sx as usize, sy as usize) {
                    out.set(x, y, true);
                }
            }
        }
        out
    }
}

fn bilinear(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let (right, bottom) = (image.width() - 1, image.height() - 1);
    let (x, y) = (
        x.clamp(0.0, f64::from(right)) as f32,
        y.clamp(0.0, f64::from(bottom)) as f32,
    );
    let (x0, y0) = (x as u32, y as u32);
    let (x1, y1) = ((x0 + 1).min(right), (y0 + 1).min(bottom));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let at = |x, y| image.get_pixel(x, y).0.map(f32::from);
    let (tl, tr, bl, br) = (at(x0, y0), at(x1, y0), at(x0, y1), at(x1, y1));
    Rgb(std::array::from_fn(|c| {
        let top = tl[c] + (tr[c] - tl[c]) * fx;
        let bottom = bl[c] + (br[c] - bl[c]) * fx;
        (top + (bottom - top) * fy + 0.5) as u8
    }))
}
