//! The portable instruction set: plain loops, which every compiler turns into vector instructions.

use super::{Block, LANES, Simd, U32Lanes};

/// Sixteen numbers at a time with the instructions that the program was compiled for.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

/// Whether products are added with one rounding.
const FUSES: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// The name of the instruction set: the two kinds round differently.
pub const NAME: &str = if FUSES { "portable_fma" } else { "portable" };

/// `a b + c`, rounded once only where the processor has an instruction for it: a library call would be slow.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if FUSES { a.mul_add(b, c) } else { a * b + c }
}

/// An array whose element `$lane` is `$value`.
macro_rules! lanes {
    ($lane:ident => $value:expr) => {{
        let mut result = [Default::default(); LANES];
        for $lane in 0..LANES {
            result[$lane] = $value;
        }
        result
    }};
}

impl U32Lanes for Portable {
    type U = [u32; LANES];

    #[inline(always)]
    fn splat_u32(self, x: u32) -> Self::U {
        [x; LANES]
    }
    #[inline(always)]
    fn add_u32(self, a: Self::U, b: Self::U) -> Self::U {
        lanes!(i => a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn mul_u32(self, a: Self::U, b: Self::U) -> Self::U {
        lanes!(i => a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    fn xor(self, a: Self::U, b: Self::U) -> Self::U {
        lanes!(i => a[i] ^ b[i])
    }
    #[inline(always)]
    fn shift_left(self, a: Self::U, bits: u32) -> Self::U {
        lanes!(i => a[i] << bits)
    }
    #[inline(always)]
    fn shift_right(self, a: Self::U, bits: u32) -> Self::U {
        lanes!(i => a[i] >> bits)
    }
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
    fn nonzero(self, x: Self::F) -> u16 {
        (0..LANES).fold(0, |mask, i| mask | u16::from(x[i] != 0.0) << i)
    }
    #[inline(always)]
    fn where_positive(self, condition: Self::F, x: Self::F) -> Self::F {
        lanes!(i => if condition[i] > 0.0 { x[i] } else { 0.0 })
    }
    #[inline(always)]
    fn where_at_least(self, a: Self::U, b: Self::U, x: Self::F) -> Self::F {
        lanes!(i => if a[i] >= b[i] { x[i] } else { 0.0 })
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        // Adding 1.5 * 2^23 leaves no bits for a fraction. The compiler may not simplify this sum.
        const SHIFT: f32 = 12_582_912.0;
        lanes!(i => (x[i] + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn whole(self, x: Self::F) -> Self::U {
        lanes!(i => x[i] as i32 as u32)
    }
    #[inline(always)]
    fn as_floats(self, bits: Self::U) -> Self::F {
        lanes!(i => f32::from_bits(bits[i]))
    }
    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::U {
        lanes!(i => x[i].to_bits())
    }
    #[inline(always)]
    fn store_u32(self, x: Self::U, to: &mut [u32; LANES]) {
        *to = x;
    }
    #[inline(always)]
    fn lane_numbers(self) -> Self::U {
        lanes!(i => i as u32)
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

/// A single number at a time: for code that is written over [`U32Lanes`] and has only one.
#[derive(Debug, Clone, Copy)]
pub struct Single;

impl U32Lanes for Single {
    type U = u32;

    #[inline(always)]
    fn splat_u32(self, x: u32) -> u32 {
        x
    }
    #[inline(always)]
    fn add_u32(self, a: u32, b: u32) -> u32 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn mul_u32(self, a: u32, b: u32) -> u32 {
        a.wrapping_mul(b)
    }
    #[inline(always)]
    fn xor(self, a: u32, b: u32) -> u32 {
        a ^ b
    }
    #[inline(always)]
    fn shift_left(self, a: u32, bits: u32) -> u32 {
        a << bits
    }
    #[inline(always)]
    fn shift_right(self, a: u32, bits: u32) -> u32 {
        a >> bits
    }
}
