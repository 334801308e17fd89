//! exp, tanh and erf without branches or calls, so that loops over them vectorise.
//!
//! Relative error under 1e-6 for exp and tanh, absolute error under 1e-6 for erf (tested against f64 over
//! the whole range); NaN stays NaN.

use std::f32::consts::LOG2_E;

/// ln 2 in two parts; the first has enough trailing zeros that `n * LN2_HIGH` is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// `x = n ln 2 + r`, |r| <= ln 2 / 2: gives 2^n and exp(r) - 1.
#[inline(always)]
fn reduce(x: f32) -> (f32, f32) {
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127);
    let power = f32::from_bits(exponent << 23);
    let series = 1.0 / 720.0 + r * (1.0 / 5040.0);
    let series = 1.0 / 24.0 + r * (1.0 / 120.0 + r * series);
    let series = 0.5 + r * (1.0 / 6.0 + r * series);
    (power, r + r * r * series)
}

/// e^x for -87 <= x <= 88; beyond, the value at the bound (1.6e-38, 1.7e38).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Comparisons, not min and max: those would turn NaN into a number.
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let (power, minus_one) = reduce(x);
    power + power * minus_one
}

/// tanh x = (e^2x - 1) / (e^2x + 1), by e^2|x| - 1 computed without cancellation.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let twice = 2.0 * x.abs();
    let twice = if twice > 20.0 { 20.0 } else { twice };
    let (power, minus_one) = reduce(twice);
    let difference = power * minus_one + (power - 1.0);
    (difference / (difference + 2.0)).copysign(x)
}

/// The error function: Abramowitz and Stegun 7.1.26.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let series = -1.453_152_1 + t * 1.061_405_4;
    let series = -0.284_496_72 + t * (1.421_413_8 + t * series);
    let series = t * (0.254_829_6 + t * series);
    (1.0 - series * exp(-size * size)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::{erf, exp, tanh};

    fn worst(range: f32, f: impl Fn(f32) -> f32, reference: impl Fn(f64) -> f64) -> f64 {
        let steps = 2_000_000;
        (0..=steps)
            .map(|i| range * (2.0 * i as f32 / steps as f32 - 1.0))
            .filter(|x| *x != 0.0)
            .map(|x| (f64::from(f(x)) / reference(f64::from(x)) - 1.0).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_agrees_with_f64() {
        for range in [1e-3, 1.0, 10.0, 87.0] {
            let error = worst(range, exp, f64::exp);
            assert!(error < 5e-7, "{error} within +-{range}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn tanh_agrees_with_f64() {
        for range in [1e-6, 1e-2, 1.0, 10.0, 100.0] {
            let error = worst(range, tanh, f64::tanh);
            assert!(error < 5e-7, "{error} within +-{range}");
        }
        assert_eq!(tanh(0.0), 0.0);
    }

    #[test]
    fn erf_agrees_with_f64() {
        let worst = (-600_000..=600_000)
            .map(|i| i as f32 * 1e-5)
            .map(|x| (f64::from(erf(x)) - candle_core::cpu::erf::erf_f64(f64::from(x))).abs())
            .fold(0.0, f64::max);
        // The formula's own 1.5e-7, and exp's 5e-7.
        assert!(worst < 1e-6, "{worst}");
        assert_eq!((erf(1e9), erf(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn extremes_saturate_and_nan_stays() {
        assert!(exp(-1e9) < 2e-38 && exp(-1e9) >= 0.0);
        assert!(exp(1e9) > 1e38 && exp(f32::INFINITY).is_finite());
        assert_eq!((tanh(1e9), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
