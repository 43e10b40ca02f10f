//! Sixteen numbers at a time on three instruction sets, chosen once when the program starts to train.
//!
//! A kernel is written once, generic over [`Simd`], and reaches its instructions through [`InstructionSet::run`]: the whole
//! job is compiled once for each set. All of it must be inlined into that one function, hence `inline(always)` everywhere.

#![expect(unsafe_code, reason = "vector instructions, which the processor may lack")]

use crate::engine::dropout::DropoutMask;
use crate::error::{Error, Result};

/// How many numbers a [`Block`] holds.
pub const LANES: usize = 16;

/// Sixteen numbers: a cache line, and one register of AVX-512.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C, align(64))]
pub struct Block(pub [f32; LANES]);

impl Block {
    /// Sixteen zeros.
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// The environment variable that names the instruction set to use.
pub const VARIABLE: &str = "MNIST_INSTRUCTION_SET";

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstructionSet(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Work to be done with an instruction set.
pub trait Job {
    /// What comes out.
    type Output;
    /// Does it; to be marked `inline(always)`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl InstructionSet {
    /// All that this processor has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512f") {
                all.push(Self(Kind::Avx512));
            }
            all.push(Self(Kind::Avx2));
        }
        all.push(Self(Kind::Portable));
        all
    }

    /// The fastest, or the one that the environment variable [`VARIABLE`] names.
    ///
    /// # Errors
    /// It names none that this processor has.
    pub fn choose() -> Result<Self> {
        let available = Self::available();
        let Some(asked) = std::env::var(VARIABLE).ok().filter(|asked| !asked.is_empty()) else {
            return Ok(available[0]);
        };
        (available.iter().copied().find(|set| set.name() == asked)).ok_or_else(|| Error::InstructionSet {
            variable: VARIABLE,
            asked,
            available: available.iter().map(|set| set.name()).collect(),
        })
    }

    /// Its name in messages, metrics and [`VARIABLE`].
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            Kind::Portable => "portable",
        }
    }

    /// How many vector registers it has, in blocks, see [`Simd::REGISTERS`].
    pub fn registers(self) -> usize {
        struct Registers;
        impl Job for Registers {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::REGISTERS
            }
        }
        self.run(Registers)
    }

    /// Does `job` with it.
    pub fn run<J: Job>(self, job: J) -> J::Output {
        match self.0 {
            // SAFETY: `available`, the only maker of these values, has asked the processor.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { x86::run_avx512(job) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { x86::run_avx2(job) },
            Kind::Portable => job.run(Portable),
        }
    }
}

/// Arithmetic on sixteen numbers. A value of a type that implements it proves that the processor can do it.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen numbers in registers.
    type F: Copy;
    /// How many `F` fit into the registers.
    const REGISTERS: usize;
    /// Whether twice as many sums fit as a row of the widest slab has.
    const MANY_REGISTERS: bool = Self::REGISTERS >= 16;

    /// All sixteen `x`.
    fn splat(self, x: f32) -> Self::F;
    /// From memory.
    fn load(self, from: &Block) -> Self::F;
    /// To memory.
    fn store(self, x: Self::F, to: &mut Block);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a b`, rounded once where the processor can.
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` where one is no number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / (sqrt(x) scale + offset)` for normal `x > 0`, to about four units in the last place.
    fn over_root(self, a: Self::F, x: Self::F, scale: f32, offset: f32) -> Self::F;
    /// `x` where `condition > 0`, zero elsewhere.
    fn where_positive(self, condition: Self::F, x: Self::F) -> Self::F;
    /// `x` where `mask` keeps units `first_unit` and following, zero elsewhere.
    fn keep(self, mask: &DropoutMask, first_unit: u32, x: Self::F) -> Self::F;
    /// Which of the bytes are not zero: byte i is bit i.
    fn lit(self, bytes: &[u8; 32]) -> u32;
    /// Fetches the cache line of `from` in advance, to where it will be read in some microseconds.
    fn prefetch<T>(self, from: Option<&T>);
    /// `2^x` for whole `x` from -126 to 127.
    fn pow2(self, x: Self::F) -> Self::F;
    /// To the nearest whole number.
    fn round(self, x: Self::F) -> Self::F;
    /// The sum of the sixteen, in an order that does not change.
    fn sum(self, x: Self::F) -> f32;
    /// The largest of the sixteen.
    fn highest(self, x: Self::F) -> f32;

    /// `e^x` for `x <= 0` (below -87 as for -87), to about two units in the last place; no number where `x` is none.
    ///
    /// Source: Moshier: Cephes, `expf.c`.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        const POLYNOMIAL: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
        let x = self.max(self.splat(-87.0), x);
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, of which the first has few enough bits for an exact product.
        let r = self.neg_mul_add(n, self.splat(0.693_359_4), x);
        let r = self.neg_mul_add(n, self.splat(-2.121_944_4e-4), r);
        let mut p = self.splat(1.987_569_1e-4);
        for coefficient in POLYNOMIAL {
            p = self.mul_add(p, r, self.splat(coefficient));
        }
        let p = self.mul_add(self.mul(p, r), r, self.add(r, self.splat(1.0)));
        self.mul(p, self.pow2(n))
    }
}

/// `sums += part`, block by block.
#[inline(always)]
pub fn add<S: Simd>(s: S, sums: &mut [Block], part: &[Block]) {
    for (sum, part) in sums.iter_mut().zip(part) {
        s.store(s.add(s.load(sum), s.load(part)), sum);
    }
}

/// Which of eight bytes are not zero: byte i is bit i.
#[inline(always)]
pub fn lit_of_eight(bytes: [u8; 8]) -> u8 {
    // The highest bit of each byte that is not zero; a product then brings the eight together.
    let x = u64::from_le_bytes(bytes);
    let lit = (((x & 0x7f7f_7f7f_7f7f_7f7f) + 0x7f7f_7f7f_7f7f_7f7f) | x) & 0x8080_8080_8080_8080;
    ((lit >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

/// No instructions of its own: loops that every compiler makes vectors of.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

/// One product and one sum: rounded once only where that is an instruction and not a library call.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

macro_rules! lanes {
    ($lane:ident => $value:expr) => {{
        let mut result = [0.0f32; LANES];
        for $lane in 0..LANES {
            result[$lane] = $value;
        }
        result
    }};
}

impl Simd for Portable {
    type F = [f32; LANES];
    const REGISTERS: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &Block) -> Self::F {
        from.0
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut Block) {
        to.0 = x;
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        lanes!(i => multiply_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        lanes!(i => multiply_add(-a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn over_root(self, a: Self::F, x: Self::F, scale: f32, offset: f32) -> Self::F {
        lanes!(i => a[i] / (x[i].sqrt() * scale + offset))
    }
    #[inline(always)]
    fn where_positive(self, condition: Self::F, x: Self::F) -> Self::F {
        lanes!(i => if condition[i] > 0.0 { x[i] } else { 0.0 })
    }
    #[inline(always)]
    fn keep(self, mask: &DropoutMask, first_unit: u32, x: Self::F) -> Self::F {
        lanes!(i => if mask.keeps(first_unit.wrapping_add(i as u32)) { x[i] } else { 0.0 })
    }
    #[inline(always)]
    fn lit(self, bytes: &[u8; 32]) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|n| lit_of_eight(bytes.as_chunks::<8>().0[n])))
    }
    #[inline(always)]
    fn prefetch<T>(self, _: Option<&T>) {}
    #[inline(always)]
    fn pow2(self, x: Self::F) -> Self::F {
        lanes!(i => f32::from_bits(((x[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        // Adding 1.5 * 2^23 leaves no bits for a fraction; the compiler does not reorder float sums.
        const SHIFT: f32 = 12_582_912.0;
        lanes!(i => (x[i] + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let mut half = [0.0; 8];
        for i in 0..8 {
            half[i] = x[i] + x[i + 8];
        }
        ((half[0] + half[4]) + (half[1] + half[5])) + ((half[2] + half[6]) + (half[3] + half[7]))
    }
    #[inline(always)]
    fn highest(self, x: Self::F) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, DropoutMask, Job, Simd};

    /// Proof that the processor has AVX-512 (foundation).
    #[derive(Debug, Clone, Copy)]
    pub struct Avx512(());

    /// Proof that the processor has AVX2 and FMA.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx2(());

    /// # Safety
    /// The processor must have AVX-512 (foundation), AVX2 and FMA.
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub fn run_avx512<J: Job>(job: J) -> J::Output {
        job.run(Avx512(()))
    }

    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub fn run_avx2<J: Job>(job: J) -> J::Output {
        job.run(Avx2(()))
    }

    // SAFETY, for every block of the two implementations: the value `self` proves that the processor has the
    // instructions, and the pointers come from references to as many numbers, aligned to 64 bytes.

    impl Simd for Avx512 {
        type F = __m512;
        const REGISTERS: usize = 32;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        fn load(self, from: &Block) -> __m512 {
            unsafe { _mm512_load_ps(from.0.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, x: __m512, to: &mut Block) {
            unsafe { _mm512_store_ps(to.0.as_mut_ptr(), x) }
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fnmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn over_root(self, a: __m512, x: __m512, scale: f32, offset: f32) -> __m512 {
            // Estimates of 1 / sqrt(x) and of the quotient, to 14 bits, with one step of Newton's method each: several
            // times the rate of a square root and a division.
            unsafe {
                let r = _mm512_rsqrt14_ps(x);
                let root = _mm512_mul_ps(x, r);
                let factor = _mm512_fnmadd_ps(_mm512_mul_ps(root, r), self.splat(0.5 * scale), self.splat(1.5 * scale));
                let divisor = _mm512_fmadd_ps(root, factor, self.splat(offset));
                let r = _mm512_rcp14_ps(divisor);
                let factor = _mm512_fnmadd_ps(divisor, r, self.splat(2.0));
                _mm512_mul_ps(_mm512_mul_ps(a, r), factor)
            }
        }
        #[inline(always)]
        fn where_positive(self, condition: __m512, x: __m512) -> __m512 {
            unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(condition, _mm512_setzero_ps()), x) }
        }
        #[inline(always)]
        fn keep(self, mask: &DropoutMask, first_unit: u32, x: __m512) -> __m512 {
            let DropoutMask { key, threshold, .. } = *mask;
            unsafe {
                let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let splat = |n: u32| _mm512_set1_epi32(n as i32);
                let mut h = _mm512_xor_si512(_mm512_add_epi32(lanes, splat(first_unit)), splat(key[0]));
                h = _mm512_xor_si512(h, _mm512_srli_epi32::<16>(h));
                h = _mm512_xor_si512(_mm512_mullo_epi32(h, splat(DropoutMask::FACTORS[0])), splat(key[1]));
                h = _mm512_xor_si512(h, _mm512_srli_epi32::<15>(h));
                h = _mm512_mullo_epi32(h, splat(DropoutMask::FACTORS[1]));
                h = _mm512_xor_si512(h, _mm512_srli_epi32::<16>(h));
                _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(h, splat(threshold)), x)
            }
        }
        #[inline(always)]
        fn lit(self, bytes: &[u8; 32]) -> u32 {
            unsafe {
                let black = _mm256_cmpeq_epi8(_mm256_loadu_si256(bytes.as_ptr().cast()), _mm256_setzero_si256());
                !(_mm256_movemask_epi8(black) as u32)
            }
        }
        #[inline(always)]
        fn prefetch<T>(self, from: Option<&T>) {
            let from = from.map_or(std::ptr::null(), std::ptr::from_ref);
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }
        #[inline(always)]
        fn pow2(self, x: __m512) -> __m512 {
            unsafe {
                let n = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n))
            }
        }
        #[inline(always)]
        fn round(self, x: __m512) -> __m512 {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
        }
        #[inline(always)]
        fn sum(self, x: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(x) }
        }
        #[inline(always)]
        fn highest(self, x: __m512) -> f32 {
            unsafe { _mm512_reduce_max_ps(x) }
        }
    }

    /// Applies an AVX instruction to both halves.
    macro_rules! halves {
        ($half:ident => $value:expr) => {{
            let $half = 0;
            let low = unsafe { $value };
            let $half = 1;
            let high = unsafe { $value };
            [low, high]
        }};
    }

    impl Simd for Avx2 {
        type F = [__m256; 2];
        const REGISTERS: usize = 8;

        #[inline(always)]
        fn splat(self, x: f32) -> Self::F {
            [unsafe { _mm256_set1_ps(x) }; 2]
        }
        #[inline(always)]
        fn load(self, from: &Block) -> Self::F {
            halves!(h => _mm256_load_ps(from.0.as_ptr().add(8 * h)))
        }
        #[inline(always)]
        fn store(self, x: Self::F, to: &mut Block) {
            halves!(h => _mm256_store_ps(to.0.as_mut_ptr().add(8 * h), x[h]));
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
            // As for AVX-512, but from 12 bits, and with a division, which takes a turn of its own beside the products.
            let (half, three_halves) = (self.splat(0.5 * scale), self.splat(1.5 * scale));
            let offset = self.splat(offset);
            halves!(h => {
                let r = _mm256_rsqrt_ps(x[h]);
                let root = _mm256_mul_ps(x[h], r);
                let factor = _mm256_fnmadd_ps(_mm256_mul_ps(root, r), half[h], three_halves[h]);
                _mm256_div_ps(a[h], _mm256_fmadd_ps(root, factor, offset[h]))
            })
        }
        #[inline(always)]
        fn where_positive(self, condition: Self::F, x: Self::F) -> Self::F {
            halves!(h => _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(condition[h], _mm256_setzero_ps()), x[h]))
        }
        #[inline(always)]
        fn keep(self, mask: &DropoutMask, first_unit: u32, x: Self::F) -> Self::F {
            let DropoutMask { key, threshold, .. } = *mask;
            halves!(half => {
                let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                let splat = |n: u32| _mm256_set1_epi32(n as i32);
                let first = splat(first_unit.wrapping_add(8 * half as u32));
                let mut h = _mm256_xor_si256(_mm256_add_epi32(lanes, first), splat(key[0]));
                h = _mm256_xor_si256(h, _mm256_srli_epi32::<16>(h));
                h = _mm256_xor_si256(_mm256_mullo_epi32(h, splat(DropoutMask::FACTORS[0])), splat(key[1]));
                h = _mm256_xor_si256(h, _mm256_srli_epi32::<15>(h));
                h = _mm256_mullo_epi32(h, splat(DropoutMask::FACTORS[1]));
                h = _mm256_xor_si256(h, _mm256_srli_epi32::<16>(h));
                // h >= threshold, without signs
                let keeps = _mm256_cmpeq_epi32(_mm256_max_epu32(h, splat(threshold)), h);
                _mm256_and_ps(_mm256_castsi256_ps(keeps), x[half])
            })
        }
        #[inline(always)]
        fn lit(self, bytes: &[u8; 32]) -> u32 {
            unsafe {
                let black = _mm256_cmpeq_epi8(_mm256_loadu_si256(bytes.as_ptr().cast()), _mm256_setzero_si256());
                !(_mm256_movemask_epi8(black) as u32)
            }
        }
        #[inline(always)]
        fn prefetch<T>(self, from: Option<&T>) {
            let from = from.map_or(std::ptr::null(), std::ptr::from_ref);
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }
        #[inline(always)]
        fn pow2(self, x: Self::F) -> Self::F {
            halves!(h => {
                let n = _mm256_add_epi32(_mm256_cvtps_epi32(x[h]), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
            })
        }
        #[inline(always)]
        fn round(self, x: Self::F) -> Self::F {
            halves!(h => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x[h]))
        }
        #[inline(always)]
        fn sum(self, x: Self::F) -> f32 {
            // In the order of `Portable`.
            unsafe {
                let eight = _mm256_add_ps(x[0], x[1]);
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let pairs = _mm_add_ps(four, _mm_movehdup_ps(four));
                _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehl_ps(pairs, pairs)))
            }
        }
        #[inline(always)]
        fn highest(self, x: Self::F) -> f32 {
            unsafe {
                let eight = _mm256_max_ps(x[0], x[1]);
                let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let pairs = _mm_max_ps(four, _mm_movehdup_ps(four));
                _mm_cvtss_f32(_mm_max_ss(pairs, _mm_movehl_ps(pairs, pairs)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each function gives for some blocks.
    #[derive(Clone, Copy)]
    struct All {
        a: Block,
        b: Block,
        mask: DropoutMask,
    }

    impl Job for All {
        type Output = (Vec<(&'static str, [f32; LANES])>, Vec<u32>);

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let (a, b) = (s.load(&self.a), s.load(&self.b));
            let positive = s.mul_add(b, b, s.splat(1e-6));
            let values = [
                ("splat", s.splat(1.5)),
                ("add", s.add(a, b)),
                ("sub", s.sub(a, b)),
                ("mul", s.mul(a, b)),
                ("mul_add", s.mul_add(a, b, s.splat(0.25))),
                ("neg_mul_add", s.neg_mul_add(a, b, s.splat(0.25))),
                ("max", s.max(a, b)),
                ("where_positive", s.where_positive(a, b)),
                ("keep", s.keep(&self.mask, 77, a)),
                ("round", s.round(s.mul(a, s.splat(9.3)))),
                ("pow2", s.pow2(s.round(s.mul(a, s.splat(9.3))))),
                ("exp", s.exp(s.neg_mul_add(a, a, s.splat(0.0)))),
                ("over_root", s.over_root(a, positive, 30.0, 1e-4)),
                ("sum", s.splat(s.sum(a))),
                ("highest", s.splat(s.highest(a))),
            ];
            let stored = values.iter().map(|&(name, value)| {
                let mut block = Block::ZERO;
                s.store(value, &mut block);
                (name, block.0)
            });
            let bytes = std::array::from_fn(|i| if i % 3 == 0 || i == 31 { 0 } else { 7 * i as u8 + 1 });
            (stored.collect(), vec![s.lit(&bytes), s.lit(&[0; 32]), s.lit(&[128; 32])])
        }
    }

    #[test]
    fn every_instruction_set_computes_what_plain_numbers_do() {
        let a = Block(std::array::from_fn(|i| (i as f32 - 7.3) * 0.77));
        let b = Block(std::array::from_fn(|i| (11.0 - i as f32) * 1e-3));
        let mask = DropoutMask::new(3, 4, 0, 0.5);
        for set in InstructionSet::available() {
            let (values, lit) = set.run(All { a, b, mask });
            for (name, values) in values {
                for (i, found) in values.into_iter().enumerate() {
                    let (x, y) = (f64::from(a.0[i]), f64::from(b.0[i]));
                    let expected = match name {
                        "splat" => 1.5,
                        "add" => x + y,
                        "sub" => x - y,
                        "mul" => x * y,
                        "mul_add" => x * y + 0.25,
                        "neg_mul_add" => 0.25 - x * y,
                        "max" => x.max(y),
                        "where_positive" => {
                            if x > 0.0 {
                                y
                            } else {
                                0.0
                            }
                        }
                        "keep" => {
                            if mask.keeps(77 + i as u32) {
                                x
                            } else {
                                0.0
                            }
                        }
                        "round" => (x * f64::from(9.3f32)).round(),
                        "pow2" => (x * f64::from(9.3f32)).round().exp2(),
                        "exp" => (-x * x).exp(),
                        "over_root" => x / ((y * y + 1e-6).sqrt() * 30.0 + 1e-4),
                        "sum" => a.0.iter().map(|&x| f64::from(x)).sum(),
                        "highest" => a.0.iter().fold(f64::MIN, |highest, &x| highest.max(x.into())),
                        _ => unreachable!("{name}"),
                    };
                    let near = (f64::from(found) - expected).abs() <= 1e-6 * expected.abs().max(1e-2);
                    assert!(near, "{} {name}[{i}]: {found}, expected {expected}", set.name());
                }
            }
            let expected = (0..32).filter(|i| !(i % 3 == 0 || *i == 31)).fold(0, |mask, i| mask | 1 << i);
            assert_eq!(lit, [expected, 0, u32::MAX], "{}", set.name());
        }
    }
}
