//! Loops the compiler vectorises: written once in plain Rust, compiled for the baseline and for AVX2.

/// Declares a function whose body is compiled twice, the second time for AVX2, and picks at run time.
/// No fused multiply-add is used, so both give the same bits.
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2, the function's only requirement.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}

pub(crate) use simd_fn;

/// Lanes of a partial sum: fixed, so that a sum has the same bits on every processor.
pub(crate) const LANES: usize = 16;

/// Sums `term(i)` for `i < len` in [`LANES`] interleaved partial sums.
#[inline(always)]
pub(crate) fn lane_sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = len / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
        start += LANES;
    }
    let mut total = 0f32;
    for sum in lanes {
        total += sum;
    }
    for i in whole..len {
        total += term(i);
    }
    total
}

/// `|a - b|^2` in [`LANES`] interleaved partial sums; for use inside [`simd_fn`].
#[inline(always)]
pub(crate) fn square_gap(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            let gap = a[lane] - b[lane];
            lanes[lane] += gap * gap;
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    let mut total = lanes[0];
    for (a, b) in a_rest.iter().zip(b_rest) {
        total += (a - b) * (a - b);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::square_gap;

    #[test]
    fn a_gap_counts_every_element() {
        for len in [0, 1, 15, 16, 17, 47, 64] {
            let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..len).map(|i| 2.0 * i as f32 + 1.0).collect();
            let expected: usize = (0..len).map(|i| (i + 1) * (i + 1)).sum();
            assert_eq!(square_gap(&a, &b), expected as f32);
        }
    }
}
