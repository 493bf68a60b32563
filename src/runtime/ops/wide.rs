//! Runs a loop in the form that is compiled for the widest vectors of this processor.
//!
//! A loop is written once, over [`Vector`]s of 16 floats or as plain code that the compiler makes
//! vectors of, and compiled for each [`Level`]. Here is the choice between those, and the one promise
//! that the compiler cannot check: that the processor has the instructions.
#![expect(
    unsafe_code,
    reason = "instructions that not every processor has may be used once they were found; the \
              compiler's own choice of vectors takes twice to three times as long"
)]
#![expect(
    clippy::inline_always,
    reason = "a loop and its vectors have to be compiled into a function of their level"
)]

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, __mmask16, _CMP_LE_OQ, _CMP_NLE_UQ, _mm256_add_ps,
    _mm256_and_si256, _mm256_castps_si256, _mm256_cmp_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_or_si256, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm256_storeu_si256, _mm512_add_ps,
    _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_lzcnt_epi32,
    _mm512_mask_and_epi32, _mm512_mask_blend_ps, _mm512_mask_storeu_ps, _mm512_max_ps,
    _mm512_min_ps, _mm512_permutex2var_epi32, _mm512_permutex2var_ps, _mm512_reduce_and_epi32,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_test_epi32_mask,
};

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// [`LANES`] floats. Kinds of vectors are not to be had but through [`Wide::run`], which is only
/// run with those that the processor has.
pub(super) trait Vector: Copy {
    /// 32 bits for each lane.
    type Bits: Copy;
    /// All zero.
    fn zero() -> Self;
    /// The values of a line.
    fn load(line: &[f32; LANES]) -> Self;
    /// Adds `x * line` to each lane: rounded once where the level is fused, else twice.
    fn add_product(self, x: f32, line: Self) -> Self;
    /// Adds the products of the lanes of `a` and `b`, rounded in the same way.
    fn add_products(self, a: Self, b: Self) -> Self;
    /// The sums of the lanes.
    fn add(self, other: Self) -> Self;
    /// Negative lanes become 0; NaN stays.
    fn positive(self) -> Self;
    /// Lanes beyond `most` become `most`; NaN stays.
    fn at_most(self, most: f32) -> Self;
    /// The lanes.
    fn store(self) -> [f32; LANES];
    /// The first lanes, as many as `to` takes.
    fn store_into(self, to: &mut [f32]);

    /// All bits set.
    fn all() -> Self::Bits;
    /// Leaves alone the bits of lanes for which `lane <= threshold`, and but `keeps` of the others.
    fn strike(self, threshold: f32, keeps: u32, bits: Self::Bits) -> Self::Bits;
    /// [`strike`](Self::strike) with each lane's own numbers.
    fn strike_each(
        self,
        thresholds: &[f32; LANES],
        keeps: &[u32; LANES],
        bits: Self::Bits,
    ) -> Self::Bits;
    /// The values of `table` at `places`, which are less than its length.
    fn look_up<const N: usize>(table: &[[f32; LANES]; N], places: &[u32; LANES]) -> Self;
    /// The bits that all lanes have.
    fn common(bits: Self::Bits) -> u32;
    /// For each lane the value at the place of its highest bit, counted from the top.
    fn pick(bits: Self::Bits, values: &[u32; 32]) -> [u32; LANES];
}

#[inline(always)]
fn look_up_each(table: &[f32], places: &[u32; LANES]) -> [f32; LANES] {
    places.map(|place| table.get(place as usize).copied().unwrap_or_default())
}

#[inline(always)]
fn pick_each(bits: [u32; LANES], values: &[u32; 32]) -> [u32; LANES] {
    bits.map(|bits| {
        let place = bits.leading_zeros() as usize % 32;
        values.get(place).copied().unwrap_or_default()
    })
}

#[inline(always)]
fn store_each(lanes: [f32; LANES], to: &mut [f32]) {
    to.iter_mut().zip(lanes).for_each(|(to, lane)| *to = lane);
}

/// A loop that gains from wide vectors.
pub(super) trait Wide {
    /// What it gives.
    type Output;

    /// Runs it. Has to be `#[inline(always)]`, so that it is compiled anew for each level.
    fn run<V: Vector>(self) -> Self::Output;
}

/// How wide the vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// What every processor of the architecture has.
    Basic,
    /// 8 floats, with fused multiplication and addition.
    Avx2,
    /// 16 floats, 32 registers of them.
    Avx512,
}

/// What this processor has.
pub(super) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

/// Whether products are added with one rounding: sums have other bits where they are not.
pub(in crate::runtime) fn fused() -> bool {
    level() != Level::Basic || cfg!(target_arch = "aarch64")
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2") && has!("lzcnt")) {
        return Level::Basic;
    }
    let all = has!("avx512f") && has!("avx512bw") && has!("avx512cd");
    if all && has!("avx512dq") && has!("avx512vl") {
        return Level::Avx512;
    }
    Level::Avx2
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Basic
}

/// Runs `work` as wide as this processor can.
#[inline]
pub(super) fn wide<W: Wide>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    match level() {
        // SAFETY: `detect` found every feature that the function is compiled with.
        Level::Avx512 => return unsafe { avx512(work) },
        // SAFETY: as above.
        Level::Avx2 => return unsafe { avx2(work) },
        Level::Basic => {}
    }
    basic(work)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt")]
fn avx512<W: Wide>(work: W) -> W::Output {
    work.run::<Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt")]
fn avx2<W: Wide>(work: W) -> W::Output {
    work.run::<Avx2>()
}

fn basic<W: Wide>(work: W) -> W::Output {
    work.run::<Basic>()
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
impl Vector for Avx512 {
    type Bits = __m512i;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: for all of them: the type is only named by `avx512`. Loads and stores go over
        // arrays of 16 floats.
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    fn load(line: &[f32; LANES]) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_loadu_ps(line.as_ptr()) })
    }

    #[inline(always)]
    fn add_product(self, x: f32, line: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_fmadd_ps(_mm512_set1_ps(x), line.0, self.0) })
    }

    #[inline(always)]
    fn add_products(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    fn store(self) -> [f32; LANES] {
        let mut line = [0.0; LANES];
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(line.as_mut_ptr(), self.0) };
        line
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn positive(self) -> Self {
        // SAFETY: as above. Of 0 and NaN it gives the second operand.
        Self(unsafe { _mm512_max_ps(_mm512_setzero_ps(), self.0) })
    }

    #[inline(always)]
    fn at_most(self, most: f32) -> Self {
        // SAFETY: as above. With NaN it gives the second operand.
        Self(unsafe { _mm512_min_ps(_mm512_set1_ps(most), self.0) })
    }

    #[inline(always)]
    fn store_into(self, to: &mut [f32]) {
        let lanes = to.len().min(LANES);
        let mask = ((1_u32 << lanes) - 1) as __mmask16;
        // SAFETY: as above; lanes beyond the slice are masked.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, self.0) };
    }

    #[inline(always)]
    fn all() -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(-1) }
    }

    #[inline(always)]
    fn strike(self, threshold: f32, keeps: u32, bits: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let threshold = _mm512_set1_ps(threshold);
            let fails = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, threshold);
            _mm512_mask_and_epi32(bits, fails, bits, _mm512_set1_epi32(keeps.cast_signed()))
        }
    }

    #[inline(always)]
    fn strike_each(
        self,
        thresholds: &[f32; LANES],
        keeps: &[u32; LANES],
        bits: __m512i,
    ) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let thresholds = _mm512_loadu_ps(thresholds.as_ptr());
            let fails = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, thresholds);
            _mm512_mask_and_epi32(bits, fails, bits, _mm512_loadu_si512(keeps.as_ptr().cast()))
        }
    }

    #[inline(always)]
    fn look_up<const N: usize>(table: &[[f32; LANES]; N], places: &[u32; LANES]) -> Self {
        let (low, high) = match table.as_slice() {
            [a, b, c, d, ..] => ([a, b], Some([c, d])),
            [a, b, ..] => ([a, b], None),
            _ => return Self::zero(),
        };
        let [a, b] = low;
        // SAFETY: as above. A permutation takes five bits of a place; the sixth chooses the pair.
        unsafe {
            let places = _mm512_loadu_si512(places.as_ptr().cast());
            let (a, b) = (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()));
            let low = _mm512_permutex2var_ps(a, places, b);
            let Some([a, b]) = high else {
                return Self(low);
            };
            let (a, b) = (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()));
            let high = _mm512_permutex2var_ps(a, places, b);
            let beyond = _mm512_test_epi32_mask(places, _mm512_set1_epi32(32));
            Self(_mm512_mask_blend_ps(beyond, low, high))
        }
    }

    #[inline(always)]
    fn common(bits: __m512i) -> u32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_and_epi32(bits) }.cast_unsigned()
    }

    #[inline(always)]
    fn pick(bits: __m512i, values: &[u32; 32]) -> [u32; LANES] {
        let mut picked = [0; LANES];
        let values = values.as_ptr();
        // SAFETY: as above; the 32 values are two vectors, and so many the permutation knows.
        unsafe {
            let low = _mm512_loadu_si512(values.cast());
            let high = _mm512_loadu_si512(values.add(LANES).cast());
            let places = _mm512_lzcnt_epi32(bits);
            let found = _mm512_permutex2var_epi32(low, places, high);
            _mm512_storeu_si512(picked.as_mut_ptr().cast(), found);
        }
        picked
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx2(__m256, __m256);

#[cfg(target_arch = "x86_64")]
impl Vector for Avx2 {
    type Bits = [__m256i; 2];

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: for all of them: the type is only named by `avx2`. Loads and stores go over the
        // halves of arrays of 16 floats.
        unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
    }

    #[inline(always)]
    fn load(line: &[f32; LANES]) -> Self {
        let line = line.as_ptr();
        // SAFETY: as above.
        unsafe { Self(_mm256_loadu_ps(line), _mm256_loadu_ps(line.add(8))) }
    }

    #[inline(always)]
    fn add_product(self, x: f32, line: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = _mm256_set1_ps(x);
            Self(
                _mm256_fmadd_ps(x, line.0, self.0),
                _mm256_fmadd_ps(x, line.1, self.1),
            )
        }
    }

    #[inline(always)]
    fn add_products(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_fmadd_ps(a.0, b.0, self.0),
                _mm256_fmadd_ps(a.1, b.1, self.1),
            )
        }
    }

    #[inline(always)]
    fn store(self) -> [f32; LANES] {
        let mut line = [0.0; LANES];
        let to = line.as_mut_ptr();
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
        line
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_add_ps(self.0, other.0),
                _mm256_add_ps(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    fn positive(self) -> Self {
        // SAFETY: as above. Of 0 and NaN it gives the second operand.
        unsafe {
            let zero = _mm256_setzero_ps();
            Self(_mm256_max_ps(zero, self.0), _mm256_max_ps(zero, self.1))
        }
    }

    #[inline(always)]
    fn at_most(self, most: f32) -> Self {
        // SAFETY: as above. With NaN it gives the second operand.
        unsafe {
            let most = _mm256_set1_ps(most);
            Self(_mm256_min_ps(most, self.0), _mm256_min_ps(most, self.1))
        }
    }

    #[inline(always)]
    fn store_into(self, to: &mut [f32]) {
        store_each(self.store(), to);
    }

    #[inline(always)]
    fn all() -> [__m256i; 2] {
        // SAFETY: as above.
        [unsafe { _mm256_set1_epi32(-1) }; 2]
    }

    #[inline(always)]
    fn strike(self, threshold: f32, keeps: u32, [low, high]: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe {
            let threshold = _mm256_set1_ps(threshold);
            let keeps = _mm256_set1_epi32(keeps.cast_signed());
            let stays = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(self.0, threshold));
            let low = _mm256_and_si256(low, _mm256_or_si256(stays, keeps));
            let stays = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(self.1, threshold));
            [low, _mm256_and_si256(high, _mm256_or_si256(stays, keeps))]
        }
    }

    #[inline(always)]
    fn strike_each(
        self,
        thresholds: &[f32; LANES],
        keeps: &[u32; LANES],
        [low, high]: [__m256i; 2],
    ) -> [__m256i; 2] {
        let (thresholds, keeps) = (Self::load(thresholds), keeps.as_ptr());
        // SAFETY: as above.
        unsafe {
            let stays = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(self.0, thresholds.0));
            let keeps_low = _mm256_loadu_si256(keeps.cast());
            let low = _mm256_and_si256(low, _mm256_or_si256(stays, keeps_low));
            let stays = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(self.1, thresholds.1));
            let keeps_high = _mm256_loadu_si256(keeps.add(8).cast());
            [
                low,
                _mm256_and_si256(high, _mm256_or_si256(stays, keeps_high)),
            ]
        }
    }

    #[inline(always)]
    fn look_up<const N: usize>(table: &[[f32; LANES]; N], places: &[u32; LANES]) -> Self {
        Self::load(&look_up_each(table.as_flattened(), places))
    }

    #[inline(always)]
    fn common([low, high]: [__m256i; 2]) -> u32 {
        let mut bits = [0_u32; 8];
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(bits.as_mut_ptr().cast(), _mm256_and_si256(low, high)) };
        bits.iter().fold(u32::MAX, |all, bits| all & bits)
    }

    #[inline(always)]
    fn pick([low, high]: [__m256i; 2], values: &[u32; 32]) -> [u32; LANES] {
        let mut bits = [0_u32; LANES];
        let to = bits.as_mut_ptr();
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_si256(to.cast(), low);
            _mm256_storeu_si256(to.add(8).cast(), high);
        }
        pick_each(bits, values)
    }
}

/// What the compiler makes of it.
#[derive(Clone, Copy)]
struct Basic([f32; LANES]);

/// Every 64-bit ARM has it as one instruction.
#[inline(always)]
fn product_and_sum(a: f32, b: f32, sum: f32) -> f32 {
    if cfg!(target_arch = "aarch64") {
        a.mul_add(b, sum)
    } else {
        sum + a * b
    }
}

impl Vector for Basic {
    type Bits = [u32; LANES];

    #[inline(always)]
    fn zero() -> Self {
        Self([0.0; LANES])
    }

    #[inline(always)]
    fn load(line: &[f32; LANES]) -> Self {
        Self(*line)
    }

    #[inline(always)]
    fn add_product(self, x: f32, line: Self) -> Self {
        self.add_products(Self([x; LANES]), line)
    }

    #[inline(always)]
    fn add_products(mut self, a: Self, b: Self) -> Self {
        for ((sum, a), b) in self.0.iter_mut().zip(a.0).zip(b.0) {
            *sum = product_and_sum(a, b, *sum);
        }
        self
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b);
        self
    }

    #[inline(always)]
    fn positive(self) -> Self {
        Self(self.0.map(|lane| if lane < 0.0 { 0.0 } else { lane }))
    }

    #[inline(always)]
    fn at_most(self, most: f32) -> Self {
        Self(self.0.map(|lane| if lane > most { most } else { lane }))
    }

    #[inline(always)]
    fn store(self) -> [f32; LANES] {
        self.0
    }

    #[inline(always)]
    fn store_into(self, to: &mut [f32]) {
        store_each(self.0, to);
    }

    #[inline(always)]
    fn all() -> [u32; LANES] {
        [u32::MAX; LANES]
    }

    #[inline(always)]
    fn strike(self, threshold: f32, keeps: u32, mut bits: [u32; LANES]) -> [u32; LANES] {
        for (bits, lane) in bits.iter_mut().zip(self.0) {
            *bits &= if lane <= threshold { u32::MAX } else { keeps };
        }
        bits
    }

    #[inline(always)]
    fn strike_each(
        self,
        thresholds: &[f32; LANES],
        keeps: &[u32; LANES],
        mut bits: [u32; LANES],
    ) -> [u32; LANES] {
        let tests = self.0.iter().zip(thresholds).zip(keeps);
        for (bits, ((lane, threshold), keeps)) in bits.iter_mut().zip(tests) {
            *bits &= if lane <= threshold { u32::MAX } else { *keeps };
        }
        bits
    }

    #[inline(always)]
    fn look_up<const N: usize>(table: &[[f32; LANES]; N], places: &[u32; LANES]) -> Self {
        Self(look_up_each(table.as_flattened(), places))
    }

    #[inline(always)]
    fn common(bits: [u32; LANES]) -> u32 {
        bits.iter().fold(u32::MAX, |all, bits| all & bits)
    }

    #[inline(always)]
    fn pick(bits: [u32; LANES], values: &[u32; 32]) -> [u32; LANES] {
        pick_each(bits, values)
    }
}
