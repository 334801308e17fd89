//! The one-dimensional transforms of Winograd's minimal filtering with six points.
//!
//! F(4 outputs, 3 taps) for the convolution and F(3, 4) for the weight's gradient share the points
//! 0, +-1/sqrt 2, +-sqrt 2 and infinity, and so the transform of the data. These points, rather than
//! 0, +-1, +-2, keep f32 errors near 1e-6 of the largest output instead of 8e-6 (measured over 128
//! channels of Gaussian data) because the two pairs' products of magnitudes cancel. With a point p
//! the data's row is prod over the other finite points q of (x - q), the kernel's is
//! (1, p, p^2, ..) / prod (p - q), the output's column is (1, p, p^2, ..)
//! (Lavin and Gray 2016; Barabasz et al. 2020 on the choice of points).

use crate::kernels::lanes::Lanes;

/// Points, and so values a dimension, of a transformed tile.
pub(super) const POINTS: usize = 6;
/// Products a tile and channel pair.
pub(super) const PRODUCTS: usize = POINTS * POINTS;
/// Outputs a dimension of one tile.
pub(super) const TILE: usize = 4;

/// The inner points' magnitude.
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// The outer points' magnitude.
const B: f32 = std::f32::consts::SQRT_2;

/// Six data values at the six points.
#[inline(always)]
pub(super) fn data<L: Lanes>(l: L, d: [L::V; 6]) -> [L::V; 6] {
    let sum = l.splat(2.5); // A^2 + B^2; their product is 1
    let (a, b, a2, b2) = (l.splat(A), l.splat(B), l.splat(0.5), l.splat(2.0));
    let (even_a, odd_a) = (
        l.mul_sub_from(b2, d[2], d[4]),
        l.mul_sub_from(b2, d[1], d[3]),
    );
    let (even_b, odd_b) = (
        l.mul_sub_from(a2, d[2], d[4]),
        l.mul_sub_from(a2, d[1], d[3]),
    );
    [
        l.mul_sub_from(sum, d[2], l.add(d[0], d[4])),
        l.mul_add(a, odd_a, even_a),
        l.mul_sub_from(a, odd_a, even_a),
        l.mul_add(b, odd_b, even_b),
        l.mul_sub_from(b, odd_b, even_b),
        l.mul_sub_from(sum, d[3], l.add(d[1], d[5])),
    ]
}

/// Three kernel taps at the six points.
#[inline(always)]
pub(super) fn kernel3<L: Lanes>(l: L, g: [L::V; 3]) -> [L::V; 6] {
    let even_a = l.mul_add(l.splat(0.5), g[2], g[0]);
    let even_b = l.mul_add(l.splat(2.0), g[2], g[0]);
    scaled(l, g[0], [even_a, g[1]], [even_b, g[1]], g[2])
}

/// Four kernel taps at the six points.
#[inline(always)]
pub(super) fn kernel4<L: Lanes>(l: L, g: [L::V; 4]) -> [L::V; 6] {
    let (a2, b2) = (l.splat(0.5), l.splat(2.0));
    let at_a = [l.mul_add(a2, g[2], g[0]), l.mul_add(a2, g[3], g[1])];
    let at_b = [l.mul_add(b2, g[2], g[0]), l.mul_add(b2, g[3], g[1])];
    scaled(l, g[0], at_a, at_b, g[3])
}

/// `even +- point * odd` over prod (p - q), which is -1.5 at the inner and 6 at the outer points.
#[inline(always)]
fn scaled<L: Lanes>(
    l: L,
    at_zero: L::V,
    [even_a, odd_a]: [L::V; 2],
    [even_b, odd_b]: [L::V; 2],
    at_infinity: L::V,
) -> [L::V; 6] {
    let (scale_a, scale_b) = (l.splat(-1.0 / 1.5), l.splat(1.0 / 6.0));
    let (even_a, odd_a) = (l.mul(scale_a, even_a), l.mul(l.splat(-A / 1.5), odd_a));
    let (even_b, odd_b) = (l.mul(scale_b, even_b), l.mul(l.splat(B / 6.0), odd_b));
    [
        at_zero,
        l.add(even_a, odd_a),
        l.sub(even_a, odd_a),
        l.add(even_b, odd_b),
        l.sub(even_b, odd_b),
        at_infinity,
    ]
}

/// Four outputs from the products at the six points.
#[inline(always)]
pub(super) fn output4<L: Lanes>(l: L, m: [L::V; 6]) -> [L::V; 4] {
    let (sum_a, diff_a) = (l.add(m[1], m[2]), l.sub(m[1], m[2]));
    let (sum_b, diff_b) = (l.add(m[3], m[4]), l.sub(m[3], m[4]));
    [
        l.add(m[0], l.add(sum_a, sum_b)),
        l.mul_add(l.splat(A), diff_a, l.mul(l.splat(B), diff_b)),
        l.mul_add(l.splat(0.5), sum_a, l.mul(l.splat(2.0), sum_b)),
        l.mul_add(
            l.splat(0.5 * A),
            diff_a,
            l.mul_add(l.splat(2.0 * B), diff_b, m[5]),
        ),
    ]
}

/// Three outputs from the products at the six points.
#[inline(always)]
pub(super) fn output3<L: Lanes>(l: L, m: [L::V; 6]) -> [L::V; 3] {
    let (sum_a, diff_a) = (l.add(m[1], m[2]), l.sub(m[1], m[2]));
    let (sum_b, diff_b) = (l.add(m[3], m[4]), l.sub(m[3], m[4]));
    [
        l.add(m[0], l.add(sum_a, sum_b)),
        l.mul_add(l.splat(A), diff_a, l.mul(l.splat(B), diff_b)),
        l.mul_add(l.splat(0.5), sum_a, l.mul_add(l.splat(2.0), sum_b, m[5])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Plain;

    #[test]
    fn each_pair_filters_exactly() {
        let d = [0.3, -1.2, 0.7, 2.0, -0.4, 1.1];
        let v = data(Plain, d.map(|x| [x; 8]));
        let product = |u: [[f32; 8]; 6]| std::array::from_fn(|i| Plain.mul(u[i], v[i]));
        let close = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-5);

        let g = [0.5, -0.25, 1.5];
        let y = output4(Plain, product(kernel3(Plain, g.map(|x| [x; 8]))));
        for (i, y) in y.iter().enumerate() {
            close(y[3], (0..3).map(|k| g[k] * d[i + k]).sum());
        }
        let g = [0.5, -0.25, 1.5, -0.75];
        let y = output3(Plain, product(kernel4(Plain, g.map(|x| [x; 8]))));
        for (i, y) in y.iter().enumerate() {
            close(y[7], (0..4).map(|k| g[k] * d[i + k]).sum());
        }
    }
}
