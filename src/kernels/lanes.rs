//! Eight f32 lanes for kernels whose shuffles the compiler does not find by itself.
//!
//! A [`Kernel`] is written once over [`Lanes`]; [`dispatch`] compiles it for AVX2 with fused
//! multiply-add and for anything else, and picks at run time.

/// Lanes of a vector.
pub(crate) const LANES: usize = 8;

/// Operations on vectors of eight f32.
///
/// Everything is `inline(always)` so that it lands inside the function that enabled the features;
/// for the same reason code over lanes passes no closures to library functions (`array::from_fn`,
/// `map`): those are compiled without the features and slow a kernel threefold.
pub(crate) trait Lanes: Copy {
    /// Eight f32.
    type V: Copy;
    /// Eight times `x`.
    fn splat(self, x: f32) -> Self::V;
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`
    fn mul_sub_from(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Reads eight floats.
    ///
    /// # Safety
    /// `from` must be valid for reading eight floats.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// Writes eight floats.
    ///
    /// # Safety
    /// `to` must be valid for writing eight floats.
    unsafe fn store(self, to: *mut f32, v: Self::V);
    /// Reads four floats at `from + offsets[t]` for each lane t; result j holds the j-th of each.
    ///
    /// # Safety
    /// All those places must be valid for reading four floats.
    unsafe fn load_columns4(self, from: *const f32, offsets: &[usize; LANES]) -> [Self::V; 4];
    /// As [`Lanes::load_columns4`] with two floats.
    ///
    /// # Safety
    /// All those places must be valid for reading two floats.
    unsafe fn load_columns2(self, from: *const f32, offsets: &[usize; LANES]) -> [Self::V; 2];
    /// The inverse of [`Lanes::load_columns4`].
    ///
    /// # Safety
    /// All those places must be valid for writing four floats.
    unsafe fn store_columns4(self, to: *mut f32, offsets: &[usize; LANES], v: [Self::V; 4]);
    /// As [`Lanes::load_columns4`] where lanes t and t + 4 lie side by side: eight floats at each of
    /// the first four offsets.
    ///
    /// # Safety
    /// Those places must be valid for reading eight floats.
    unsafe fn load_pairs4(self, from: *const f32, offsets: &[usize; LANES]) -> [Self::V; 4];
    /// As [`Lanes::load_columns2`] where lanes t and t + 4 lie side by side.
    ///
    /// # Safety
    /// The places at the first four offsets must be valid for reading eight floats.
    unsafe fn load_pairs2(self, from: *const f32, offsets: &[usize; LANES]) -> [Self::V; 2];
    /// The inverse of [`Lanes::load_pairs4`].
    ///
    /// # Safety
    /// The places at the first four offsets must be valid for writing eight floats.
    unsafe fn store_pairs4(self, to: *mut f32, offsets: &[usize; LANES], v: [Self::V; 4]);
    /// `max(v, 0)`, but NaN stays NaN.
    fn relu(self, v: Self::V) -> Self::V;
    /// `v` where `mask` is above 0, else 0.
    fn where_positive(self, v: Self::V, mask: Self::V) -> Self::V;
}

/// A piece of work written over [`Lanes`]; `run` must be `inline(always)`.
pub(crate) trait Kernel {
    /// Does the work.
    fn run<L: Lanes>(self, lanes: L);
}

/// Runs the kernel with the best lanes this processor has.
pub(crate) fn dispatch<K: Kernel>(kernel: K) {
    #[cfg(target_arch = "x86_64")]
    {
        /// The kernel compiled for AVX2 and FMA.
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<K: Kernel>(kernel: K) {
            kernel.run(avx2::Avx2(()));
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            // SAFETY: the processor has both features.
            return unsafe { with_avx2(kernel) };
        }
    }
    kernel.run(Plain);
}

/// Lanes as an array, for processors without AVX2; the compiler uses what is there.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Lanes for Plain {
    type V = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn mul_sub_from(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| c[i] - a[i] * b[i])
    }

    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: eight floats, by this function's contract.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }

    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::V) {
        // SAFETY: eight floats, by this function's contract.
        unsafe { to.cast::<Self::V>().write_unaligned(v) }
    }

    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn load_columns4(self, from: *const f32, offsets: &[usize; LANES]) -> [Self::V; 4] {
        // SAFETY: four floats at each offset, by this function's contract.
        std::array::from_fn(|j| offsets.map(|offset| unsafe { *from.add(offset + j) }))
    }

    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn load_columns2(self, from: *const f32, offsets: &[usize; LANES]) -> [Self::V; 2] {
        // SAFETY: two floats at each offset, by this function's contract.
        std::array::from_fn(|j| offsets.map(|offset| unsafe { *from.add(offset + j) }))
    }

    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn store_columns4(self, to: *mut f32, offsets: &[usize; LANES], v: [Self::V; 4]) {
        for (t, offset) in offsets.iter().enumerate() {
            for (j, column) in v.iter().enumerate() {
                // SAFETY: four floats at each offset, by this function's contract.
                unsafe { *to.add(offset + j) = column[t] };
            }
        }
    }

    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn load_pairs4(self, from: *const f32, offsets: &[usize; LANES]) -> [Self::V; 4] {
        // SAFETY: by this function's contract.
        unsafe { self.load_columns4(from, &side_by_side(offsets)) }
    }

    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn load_pairs2(self, from: *const f32, offsets: &[usize; LANES]) -> [Self::V; 2] {
        // SAFETY: by this function's contract.
        unsafe { self.load_columns2(from, &side_by_side(offsets)) }
    }

    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn store_pairs4(self, to: *mut f32, offsets: &[usize; LANES], v: [Self::V; 4]) {
        // SAFETY: by this function's contract.
        unsafe { self.store_columns4(to, &side_by_side(offsets), v) }
    }

    #[inline(always)]
    fn relu(self, v: Self::V) -> Self::V {
        v.map(|x| if x < 0.0 { 0.0 } else { x })
    }

    #[inline(always)]
    fn where_positive(self, v: Self::V, mask: Self::V) -> Self::V {
        std::array::from_fn(|i| if mask[i] > 0.0 { v[i] } else { 0.0 })
    }
}

/// The offsets of lanes t and t + 4 from those of the first four.
#[inline(always)]
fn side_by_side(offsets: &[usize; LANES]) -> [usize; LANES] {
    std::array::from_fn(|lane| offsets[lane % 4] + lane / 4 * 4)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! The same on AVX2 with fused multiply-add.

    use std::arch::x86_64::*;

    use super::{LANES, Lanes};

    /// Proof that AVX2 and FMA exist: only [`super::dispatch`] makes it.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(pub(super) ());

    impl Lanes for Avx2 {
        type V = __m256;

        #[inline(always)]
        fn splat(self, x: f32) -> __m256 {
            // SAFETY: self proves the features.
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: self proves the features.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: self proves the features.
            unsafe { _mm256_sub_ps(a, b) }
        }

        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: self proves the features.
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: self proves the features.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn mul_sub_from(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: self proves the features.
            unsafe { _mm256_fnmadd_ps(a, b, c) }
        }

        // SAFETY: the caller keeps the trait's contract.
        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> __m256 {
            // SAFETY: eight floats, by this function's contract; self proves the features.
            unsafe { _mm256_loadu_ps(from) }
        }

        // SAFETY: the caller keeps the trait's contract.
        #[inline(always)]
        unsafe fn store(self, to: *mut f32, v: __m256) {
            // SAFETY: eight floats, by this function's contract; self proves the features.
            unsafe { _mm256_storeu_ps(to, v) }
        }

        // SAFETY: the caller keeps the trait's contract.
        #[inline(always)]
        unsafe fn load_columns4(self, from: *const f32, offsets: &[usize; LANES]) -> [__m256; 4] {
            // SAFETY: four floats at each offset, by this function's contract; self proves the
            // features.
            unsafe {
                let mut pairs = [_mm256_setzero_ps(); 4];
                for (t, pair) in pairs.iter_mut().enumerate() {
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(offsets[t])));
                    *pair = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add(offsets[t + 4])));
                }
                transpose(pairs)
            }
        }

        // SAFETY: the caller keeps the trait's contract.
        #[inline(always)]
        unsafe fn load_columns2(self, from: *const f32, offsets: &[usize; LANES]) -> [__m256; 2] {
            // SAFETY: two floats (one f64) at each offset, by this function's contract; self proves
            // the features.
            unsafe {
                let two = |t: usize| {
                    let low = _mm_load_sd(from.add(offsets[t]).cast());
                    _mm_castpd_ps(_mm_loadh_pd(low, from.add(offsets[t + 1]).cast()))
                };
                let four = |t: usize| {
                    _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(two(t)), two(t + 4))
                };
                let (a, b) = (four(0), four(2));
                [
                    _mm256_shuffle_ps::<0x88>(a, b),
                    _mm256_shuffle_ps::<0xDD>(a, b),
                ]
            }
        }

        // SAFETY: the caller keeps the trait's contract.
        #[inline(always)]
        unsafe fn store_columns4(self, to: *mut f32, offsets: &[usize; LANES], v: [__m256; 4]) {
            // SAFETY: four floats at each offset, by this function's contract; self proves the
            // features.
            unsafe {
                for (t, both) in transpose(v).into_iter().enumerate() {
                    _mm_storeu_ps(to.add(offsets[t]), _mm256_castps256_ps128(both));
                    _mm_storeu_ps(to.add(offsets[t + 4]), _mm256_extractf128_ps::<1>(both));
                }
            }
        }

        // SAFETY: the caller keeps the trait's contract.
        #[inline(always)]
        unsafe fn load_pairs4(self, from: *const f32, offsets: &[usize; LANES]) -> [__m256; 4] {
            let [a, b, c, d, ..] = *offsets;
            // SAFETY: eight floats at each offset, by this function's contract; self proves the
            // features.
            unsafe {
                transpose([
                    _mm256_loadu_ps(from.add(a)),
                    _mm256_loadu_ps(from.add(b)),
                    _mm256_loadu_ps(from.add(c)),
                    _mm256_loadu_ps(from.add(d)),
                ])
            }
        }

        // SAFETY: the caller keeps the trait's contract.
        #[inline(always)]
        unsafe fn load_pairs2(self, from: *const f32, offsets: &[usize; LANES]) -> [__m256; 2] {
            let [a, b, c, d, ..] = *offsets;
            // SAFETY: eight floats at each offset, by this function's contract; self proves the
            // features.
            unsafe {
                let (a, b) = (_mm256_loadu_ps(from.add(a)), _mm256_loadu_ps(from.add(b)));
                let (c, d) = (_mm256_loadu_ps(from.add(c)), _mm256_loadu_ps(from.add(d)));
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                [
                    _mm256_shuffle_ps::<0x44>(ab, cd),
                    _mm256_shuffle_ps::<0xEE>(ab, cd),
                ]
            }
        }

        // SAFETY: the caller keeps the trait's contract.
        #[inline(always)]
        unsafe fn store_pairs4(self, to: *mut f32, offsets: &[usize; LANES], v: [__m256; 4]) {
            // SAFETY: eight floats at each offset, by this function's contract; self proves the
            // features.
            unsafe {
                for (both, offset) in transpose(v).into_iter().zip(offsets) {
                    _mm256_storeu_ps(to.add(*offset), both);
                }
            }
        }

        #[inline(always)]
        fn relu(self, v: __m256) -> __m256 {
            // The second operand wins where one is NaN.
            // SAFETY: self proves the features.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), v) }
        }

        #[inline(always)]
        fn where_positive(self, v: __m256, mask: __m256) -> __m256 {
            // SAFETY: self proves the features.
            unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_GT_OQ>(mask, _mm256_setzero_ps())) }
        }
    }

    /// Transposes the two 4x4 blocks of the low and the high halves.
    ///
    /// # Safety
    /// The processor must have AVX2.
    // SAFETY: the caller keeps the trait's contract.
    #[inline(always)]
    unsafe fn transpose([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
        // SAFETY: AVX2, by this function's contract.
        unsafe {
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            [
                _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
                _mm256_shuffle_ps::<0xEE>(ab_low, cd_low),
                _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm256_shuffle_ps::<0xEE>(ab_high, cd_high),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies columns out and back, with some arithmetic between.
    struct RoundTrip<'a> {
        from: &'a [f32],
        to: &'a mut [f32],
    }

    impl Kernel for RoundTrip<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self, l: L) {
            let offsets = [0, 5, 12, 20, 24, 31, 36, 44];
            let one = l.splat(1.0);
            // SAFETY: both slices have 48 elements.
            unsafe {
                let four = l.load_columns4(self.from.as_ptr(), &offsets);
                let two = l.load_columns2(self.from.as_ptr(), &offsets);
                let v = [
                    l.mul_add(two[0], one, one),
                    l.where_positive(l.relu(l.sub(four[1], l.splat(10.0))), four[0]),
                    l.mul_sub_from(four[2], l.splat(2.0), one),
                    l.add(four[3], l.mul(two[1], one)),
                ];
                l.store_columns4(self.to.as_mut_ptr(), &offsets, v);
            }
        }
    }

    /// Copies pairs out and back, the first two columns also by themselves.
    struct Pairs<'a> {
        from: &'a [f32],
        to: &'a mut [f32],
    }

    impl Kernel for Pairs<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self, l: L) {
            let offsets = [40, 0, 13, 24, 0, 0, 0, 0];
            // SAFETY: both slices have 48 elements.
            unsafe {
                let [_, _, c, d] = l.load_pairs4(self.from.as_ptr(), &offsets);
                let [a, b] = l.load_pairs2(self.from.as_ptr(), &offsets);
                l.store_pairs4(self.to.as_mut_ptr(), &offsets, [a, b, c, d]);
            }
        }
    }

    #[test]
    fn pairs_come_back_where_they_were() {
        let from: Vec<f32> = (1..49).map(|i| i as f32).collect();
        let (mut fast, mut plain) = (vec![0f32; 48], vec![0f32; 48]);
        dispatch(Pairs {
            from: &from,
            to: &mut fast,
        });
        Pairs {
            from: &from,
            to: &mut plain,
        }
        .run(Plain);
        assert_eq!(fast, plain);
        for (i, value) in plain.iter().enumerate() {
            let copied = [40..48, 0..8, 13..21, 24..32]
                .iter()
                .any(|range| range.contains(&i));
            assert_eq!(*value, if copied { (i + 1) as f32 } else { 0.0 });
        }
    }

    #[test]
    fn every_kind_of_lanes_agrees() {
        let from: Vec<f32> = (0..48).map(|i| i as f32).collect();
        let (mut fast, mut plain) = (vec![0f32; 48], vec![0f32; 48]);
        dispatch(RoundTrip {
            from: &from,
            to: &mut fast,
        });
        RoundTrip {
            from: &from,
            to: &mut plain,
        }
        .run(Plain);
        assert_eq!(fast, plain);
        assert_eq!(plain[0..4], [1.0, 0.0, -3.0, 4.0]);
        assert_eq!(plain[12..16], [13.0, 3.0, -27.0, 28.0]);
        assert_eq!(plain[44..48], [45.0, 35.0, -91.0, 92.0]);
    }
}
