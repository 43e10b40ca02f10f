//! AVX-512: a register holds all sixteen numbers.

use std::arch::x86_64::*;

use super::{Block, Job, LANES, Simd, U32Lanes};

/// A proof that the processor has AVX-512 (foundation), AVX2 and FMA: only [`run`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

/// Runs `job` with these instructions.
///
/// # Safety
/// The processor must have AVX-512 (foundation), AVX2 and FMA.
#[target_feature(enable = "avx512f,avx2,fma")]
pub fn run<J: Job>(job: J) -> J::Output {
    job.run(Avx512(()))
}

/// The value of an expression of instructions that take no pointers.
macro_rules! avx512 {
    ($value:expr) => {{
        // SAFETY: the processor must have the instructions, and `self` proves that it does.
        unsafe { $value }
    }};
}

impl Avx512 {
    /// Reads sixteen integers from memory.
    #[inline(always)]
    fn load_u32(self, from: &[u32; LANES]) -> __m512i {
        // SAFETY: `self` proves that the processor has the instruction. Sixteen integers are 64 bytes, and the instruction
        // needs no alignment.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    /// The lanes of `a` and `b` that `indices` name.
    #[inline(always)]
    fn pick(self, a: __m512i, indices: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_permutex2var_epi32(a, indices, b))
    }
}

impl U32Lanes for Avx512 {
    type U = __m512i;

    #[inline(always)]
    fn splat_u32(self, x: u32) -> __m512i {
        avx512!(_mm512_set1_epi32(x as i32))
    }
    #[inline(always)]
    fn add_u32(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn mul_u32(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_xor_si512(a, b))
    }
    #[inline(always)]
    fn shift_left(self, a: __m512i, bits: u32) -> __m512i {
        avx512!(_mm512_sll_epi32(a, _mm_cvtsi32_si128(bits as i32)))
    }
    #[inline(always)]
    fn shift_right(self, a: __m512i, bits: u32) -> __m512i {
        avx512!(_mm512_srl_epi32(a, _mm_cvtsi32_si128(bits as i32)))
    }
}

impl Simd for Avx512 {
    type F = __m512;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        avx512!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &Block) -> __m512 {
        // SAFETY: `self` proves that the processor has the instruction. A block is sixteen numbers, aligned to 64
        // bytes.
        unsafe { _mm512_load_ps(from.0.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: __m512, to: &mut Block) {
        // SAFETY: `self` proves that the processor has the instruction. A block is sixteen numbers, aligned to 64
        // bytes.
        unsafe { _mm512_store_ps(to.0.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn over_root(self, a: __m512, x: __m512, scale: f32, offset: f32) -> __m512 {
        // Estimates of 1 / sqrt(x) and of the quotient, to 14 bits, with one step of Newton's method each: several
        // times the rate of a square root and a division.
        avx512!({
            let r = _mm512_rsqrt14_ps(x);
            let root = _mm512_mul_ps(x, r);
            let factor = _mm512_fnmadd_ps(_mm512_mul_ps(root, r), self.splat(0.5 * scale), self.splat(1.5 * scale));
            let divisor = _mm512_fmadd_ps(root, factor, self.splat(offset));
            let r = _mm512_rcp14_ps(divisor);
            let factor = _mm512_fnmadd_ps(divisor, r, self.splat(2.0));
            _mm512_mul_ps(_mm512_mul_ps(a, r), factor)
        })
    }
    #[inline(always)]
    fn nonzero(self, x: __m512) -> u16 {
        avx512!(_mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(x, _mm512_setzero_ps()))
    }
    #[inline(always)]
    fn where_positive(self, condition: __m512, x: __m512) -> __m512 {
        avx512!(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(condition, _mm512_setzero_ps()), x))
    }
    #[inline(always)]
    fn where_at_least(self, a: __m512i, b: __m512i, x: __m512) -> __m512 {
        avx512!(_mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(a, b), x))
    }
    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        avx512!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x))
    }
    #[inline(always)]
    fn whole(self, x: __m512) -> __m512i {
        avx512!(_mm512_cvtps_epi32(x))
    }
    #[inline(always)]
    fn as_floats(self, bits: __m512i) -> __m512 {
        avx512!(_mm512_castsi512_ps(bits))
    }
    #[inline(always)]
    fn bits(self, x: __m512) -> __m512i {
        avx512!(_mm512_castps_si512(x))
    }
    #[inline(always)]
    fn store_u32(self, x: __m512i, to: &mut [u32; LANES]) {
        // SAFETY: `self` proves that the processor has the instruction. Sixteen integers are 64 bytes, and the instruction
        // needs no alignment.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [[u32; LANES]; LANES]) {
        let mut registers = [self.splat_u32(0); LANES];
        for i in 0..LANES {
            registers[i] = self.load_u32(&rows[i]);
        }
        // Rows and columns whose numbers differ in one bit change places, bit by bit.
        exchange::<8>(self, &mut registers);
        exchange::<4>(self, &mut registers);
        exchange::<2>(self, &mut registers);
        exchange::<1>(self, &mut registers);
        for i in 0..LANES {
            self.store_u32(registers[i], &mut rows[i]);
        }
    }
    #[inline(always)]
    fn lane_numbers(self) -> __m512i {
        avx512!(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
    }
    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        avx512!(_mm512_reduce_add_ps(x))
    }
    #[inline(always)]
    fn highest(self, x: __m512) -> f32 {
        avx512!(_mm512_reduce_max_ps(x))
    }
}

/// A step of [`Simd::transpose`]: the blocks of `BIT` rows and columns off the diagonal change places.
#[inline(always)]
fn exchange<const BIT: usize>(s: Avx512, rows: &mut [__m512i; LANES]) {
    // From 16 on, an index is one into the second row.
    const {
        assert!(BIT < LANES && BIT.is_power_of_two());
    }
    let mut upper = [0; LANES];
    let mut lower = [0; LANES];
    for m in 0..LANES {
        upper[m] = if m & BIT == 0 { m } else { LANES + m - BIT } as u32;
        lower[m] = if m & BIT == 0 { m + BIT } else { LANES + m } as u32;
    }
    let (upper, lower) = (s.load_u32(&upper), s.load_u32(&lower));
    for i in 0..LANES {
        if i & BIT == 0 {
            let (a, b) = (rows[i], rows[i + BIT]);
            rows[i] = s.pick(a, upper, b);
            rows[i + BIT] = s.pick(a, lower, b);
        }
    }
}
