//! Small complex filters with few taps, correlated with a grey image.

use super::simd::simd_fn;

/// One coefficient of a filter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tap {
    /// Row, from the top of the filter's window.
    pub(crate) y: usize,
    /// Column, from the left.
    pub(crate) x: usize,
    /// Real part.
    pub(crate) re: f32,
    /// Imaginary part.
    pub(crate) im: f32,
}

/// Pixels that share a pass over the taps, their sums in registers.
const PIXELS: usize = 16;

/// The modulus of the correlation: row `y` of `out` (rows of `width`) takes the window whose top left is
/// at `(y, 0..width)` of `image` (rows of `image_width`).
pub(crate) fn modulus(
    image: &[f32],
    image_width: usize,
    taps: &[Tap],
    out: &mut [f32],
    width: usize,
) {
    for (y, row) in out.chunks_exact_mut(width).enumerate() {
        modulus_row(row, &image[y * image_width..], image_width, taps);
    }
}

simd_fn! {
    fn modulus_row(out: &mut [f32], image: &[f32], image_width: usize, taps: &[Tap]) {
        let (chunks, rest) = out.as_chunks_mut::<PIXELS>();
        let whole = chunks.len() * PIXELS;
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let (mut re, mut im) = ([0f32; PIXELS], [0f32; PIXELS]);
            for tap in taps {
                let start = tap.y * image_width + tap.x + index * PIXELS;
                let pixels = &image[start..start + PIXELS];
                for lane in 0..PIXELS {
                    re[lane] += tap.re * pixels[lane];
                    im[lane] += tap.im * pixels[lane];
                }
            }
            for lane in 0..PIXELS {
                chunk[lane] = (re[lane] * re[lane] + im[lane] * im[lane]).sqrt();
            }
        }
        for (index, out) in rest.iter_mut().enumerate() {
            let (mut re, mut im) = (0f32, 0f32);
            for tap in taps {
                let pixel = image[tap.y * image_width + tap.x + whole + index];
                re += tap.re * pixel;
                im += tap.im * pixel;
            }
            *out = (re * re + im * im).sqrt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition_at_every_width() {
        let (height, image_width) = (5, 40);
        let image: Vec<f32> = (0..200).map(|i| ((i * 37) % 101) as f32 / 101.0).collect();
        let tap = |y, x, re, im| Tap { y, x, re, im };
        let taps = [
            tap(0, 1, 0.5, -1.0),
            tap(2, 0, 0.25, 0.0),
            tap(1, 3, -2.0, 3.0),
        ];
        for width in [1, 15, 16, 33] {
            let mut out = vec![0.0; (height - 2) * width];
            modulus(&image, image_width, &taps, &mut out, width);
            for (index, found) in out.iter().enumerate() {
                let at = |tap: &Tap| {
                    let (y, x) = (index / width + tap.y, index % width + tap.x);
                    f64::from(image[y * image_width + x])
                };
                let re: f64 = taps.iter().map(|tap| f64::from(tap.re) * at(tap)).sum();
                let im: f64 = taps.iter().map(|tap| f64::from(tap.im) * at(tap)).sum();
                assert!((f64::from(*found) - re.hypot(im)).abs() < 1e-5);
            }
        }
    }
}
