//! Grey images with reflecting borders, and the Gaussians of the pyramid.

/// One channel, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) data: Vec<f32>,
}

impl Plane {
    pub(super) fn zeros(height: usize, width: usize) -> Self {
        Self {
            height,
            width,
            data: vec![0.0; height * width],
        }
    }

    fn row(&self, y: usize) -> &[f32] {
        &self.data[y * self.width..][..self.width]
    }

    /// `margin` more pixels on every side, the border pixels repeated in mirror order.
    pub(super) fn padded(&self, margin: usize) -> Self {
        let columns: Vec<_> = mirrored(self.width, margin).collect();
        let mut out = Self::zeros(0, columns.len());
        out.data
            .reserve_exact((self.height + 2 * margin) * columns.len());
        for y in mirrored(self.height, margin) {
            let row = self.row(y);
            out.data.extend(columns.iter().map(|&x| row[x]));
            out.height += 1;
        }
        out
    }

    /// Convolves rows, then columns, with an odd, symmetric `kernel`.
    pub(super) fn blurred(&self, kernel: &[f32]) -> Self {
        self.filtered(kernel, 1)
    }

    /// Half the size: an even, symmetric `kernel`, so that each pixel of the result sits in the middle of
    /// the four that it replaces. The sides must be even.
    pub(super) fn halved(&self, kernel: &[f32]) -> Self {
        self.filtered(kernel, 2)
    }

    fn filtered(&self, kernel: &[f32], stride: usize) -> Self {
        let margin = (kernel.len() - stride) / 2;
        let source = self.padded(margin);
        let (height, width) = (self.height / stride, self.width / stride);
        let mut rows = Self::zeros(height, source.width);
        for (y, out) in rows.data.chunks_exact_mut(source.width).enumerate() {
            for (tap, &weight) in kernel.iter().enumerate() {
                accumulate(out, source.row(y * stride + tap), weight);
            }
        }
        let mut result = Self::zeros(height, width);
        for (y, out) in result.data.chunks_exact_mut(width).enumerate() {
            let row = rows.row(y);
            for (x, out) in out.iter_mut().enumerate() {
                let window = &row[x * stride..][..kernel.len()];
                *out = window.iter().zip(kernel).map(|(a, b)| a * b).sum();
            }
        }
        result
    }
}

/// `out += weight * row`.
fn accumulate(out: &mut [f32], row: &[f32], weight: f32) {
    for (out, value) in out.iter_mut().zip(row) {
        *out += weight * value;
    }
}

/// A Gaussian of `sigma` pixels, sum 1; `even` ones are centred between two taps.
pub(super) fn gaussian(sigma: f64, even: bool) -> Vec<f32> {
    let radius = (3.0 * sigma).ceil() as i64;
    let offset = if even { 0.5 } else { 0.0 };
    let count = if even { 2 * radius } else { 2 * radius + 1 };
    let taps: Vec<f64> = (0..count)
        .map(|tap| (tap - radius) as f64 + offset)
        .map(|t| (-t * t / (2.0 * sigma * sigma)).exp())
        .collect();
    let sum: f64 = taps.iter().sum();
    taps.iter().map(|tap| (tap / sum) as f32).collect()
}

/// Indices of a line of `length` pixels with `margin` mirrored ones before and after (border repeated).
fn mirrored(length: usize, margin: usize) -> impl Iterator<Item = usize> {
    let (length, margin) = (length as i64, margin as i64);
    (-margin..length + margin).map(move |index| {
        let folded = index.rem_euclid(2 * length);
        folded.min(2 * length - 1 - folded) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_mirror_even_past_the_whole_line() {
        let indices: Vec<_> = mirrored(3, 4).collect();
        assert_eq!(indices, [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
        assert!(mirrored(1, 5).all(|index| index == 0));
    }

    #[test]
    fn gaussians_keep_a_constant_and_its_mean() {
        let plane = Plane {
            height: 4,
            width: 6,
            data: vec![0.7; 24],
        };
        let half = plane.halved(&gaussian(1.0, true));
        assert_eq!((half.height, half.width), (2, 3));
        for value in half
            .data
            .iter()
            .chain(&plane.blurred(&gaussian(2.0, false)).data)
        {
            assert!((value - 0.7).abs() < 1e-6);
        }
    }

    #[test]
    fn a_halved_ramp_sits_between_its_pixels() {
        let ramp = Plane {
            height: 2,
            width: 32,
            data: (0..2).flat_map(|_| (0..32).map(|x| x as f32)).collect(),
        };
        let half = ramp.halved(&gaussian(1.0, true));
        for x in 2..14 {
            assert!((half.data[x] - (2.0 * x as f32 + 0.5)).abs() < 1e-5);
        }
    }
}
