//! AVX2 and FMA: two registers hold the sixteen numbers.

use std::arch::x86_64::*;

use super::{Block, Job, LANES, Simd, U32Lanes};

/// A proof that the processor has AVX2 and FMA: only [`run`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// Runs `job` with these instructions.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub fn run<J: Job>(job: J) -> J::Output {
    job.run(Avx2(()))
}

/// The value of an expression of instructions that take no pointers.
macro_rules! avx2 {
    ($value:expr) => {{
        // SAFETY: the processor must have the instructions, and `self` proves that it does.
        unsafe { $value }
    }};
}

/// The values for both halves, `$half` being 0 and 1, of an expression of instructions that take no pointers.
macro_rules! halves {
    ($half:ident => $value:expr) => {{
        let $half = 0;
        let low = avx2!($value);
        let $half = 1;
        let high = avx2!($value);
        [low, high]
    }};
}

impl U32Lanes for Avx2 {
    type U = [__m256i; 2];

    #[inline(always)]
    fn splat_u32(self, x: u32) -> Self::U {
        [avx2!(_mm256_set1_epi32(x as i32)); 2]
    }
    #[inline(always)]
    fn add_u32(self, a: Self::U, b: Self::U) -> Self::U {
        halves!(h => _mm256_add_epi32(a[h], b[h]))
    }
    #[inline(always)]
    fn mul_u32(self, a: Self::U, b: Self::U) -> Self::U {
        halves!(h => _mm256_mullo_epi32(a[h], b[h]))
    }
    #[inline(always)]
    fn xor(self, a: Self::U, b: Self::U) -> Self::U {
        halves!(h => _mm256_xor_si256(a[h], b[h]))
    }
    #[inline(always)]
    fn shift_left(self, a: Self::U, bits: u32) -> Self::U {
        halves!(h => _mm256_sll_epi32(a[h], _mm_cvtsi32_si128(bits as i32)))
    }
    #[inline(always)]
    fn shift_right(self, a: Self::U, bits: u32) -> Self::U {
        halves!(h => _mm256_srl_epi32(a[h], _mm_cvtsi32_si128(bits as i32)))
    }
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [avx2!(_mm256_set1_ps(x)); 2]
    }
    #[inline(always)]
    fn load(self, from: &Block) -> Self::F {
        let from = from.0.as_ptr();
        // SAFETY: `self` proves that the processor has the instruction. A block is sixteen numbers, aligned to 64
        // bytes.
        unsafe { [_mm256_load_ps(from), _mm256_load_ps(from.add(8))] }
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut Block) {
        let to = to.0.as_mut_ptr();
        // SAFETY: `self` proves that the processor has the instruction. A block is sixteen numbers, aligned to 64
        // bytes.
        unsafe {
            _mm256_store_ps(to, x[0]);
            _mm256_store_ps(to.add(8), x[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(h => _mm256_add_ps(a[h], b[h]))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(h => _mm256_sub_ps(a[h], b[h]))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(h => _mm256_mul_ps(a[h], b[h]))
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(h => _mm256_fmadd_ps(a[h], b[h], c[h]))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(h => _mm256_fnmadd_ps(a[h], b[h], c[h]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(h => _mm256_max_ps(a[h], b[h]))
    }
    #[inline(always)]
    fn over_root(self, a: Self::F, x: Self::F, scale: f32, offset: f32) -> Self::F {
        // Exact: the bits of the estimate that AVX2 has differ between makers of processors.
        let (scale, offset) = (self.splat(scale), self.splat(offset));
        halves!(h => _mm256_div_ps(a[h], _mm256_fmadd_ps(_mm256_sqrt_ps(x[h]), scale[h], offset[h])))
    }
    #[inline(always)]
    fn nonzero(self, x: Self::F) -> u16 {
        let [low, high] = halves!(h => _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(x[h], _mm256_setzero_ps())));
        (low | high << 8) as u16
    }
    #[inline(always)]
    fn where_positive(self, condition: Self::F, x: Self::F) -> Self::F {
        halves!(h => _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(condition[h], _mm256_setzero_ps()), x[h]))
    }
    #[inline(always)]
    fn where_at_least(self, a: Self::U, b: Self::U, x: Self::F) -> Self::F {
        // AVX2 compares signed integers only: a >= b where a is the larger of the two.
        halves!(h => {
            let at_least = _mm256_cmpeq_epi32(_mm256_max_epu32(a[h], b[h]), a[h]);
            _mm256_and_ps(_mm256_castsi256_ps(at_least), x[h])
        })
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        halves!(h => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x[h]))
    }
    #[inline(always)]
    fn whole(self, x: Self::F) -> Self::U {
        halves!(h => _mm256_cvtps_epi32(x[h]))
    }
    #[inline(always)]
    fn as_floats(self, bits: Self::U) -> Self::F {
        halves!(h => _mm256_castsi256_ps(bits[h]))
    }
    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::U {
        halves!(h => _mm256_castps_si256(x[h]))
    }
    #[inline(always)]
    fn store_u32(self, x: Self::U, to: &mut [u32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: `self` proves that the processor has the instruction. Sixteen integers are 64 bytes, and the instruction
        // needs no alignment.
        unsafe {
            _mm256_storeu_si256(to.cast(), x[0]);
            _mm256_storeu_si256(to.add(8).cast(), x[1]);
        }
    }
    #[inline(always)]
    fn lane_numbers(self) -> Self::U {
        halves!(h => _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * h)))
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        // In the order of `Portable`.
        avx2!({
            let eight = _mm256_add_ps(x[0], x[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let pairs = _mm_add_ps(four, _mm_movehdup_ps(four));
            _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehl_ps(pairs, pairs)))
        })
    }
    #[inline(always)]
    fn highest(self, x: Self::F) -> f32 {
        avx2!({
            let eight = _mm256_max_ps(x[0], x[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let pairs = _mm_max_ps(four, _mm_movehdup_ps(four));
            _mm_cvtss_f32(_mm_max_ss(pairs, _mm_movehl_ps(pairs, pairs)))
        })
    }
}
