//! Arithmetic on sixteen numbers at a time, with the best instruction set that the processor has.
//!
//! A kernel is written once, as a [`Job`] that is generic over [`Simd`]. [`InstructionSet::run`] compiles the whole job
//! once for each instruction set. All of its functions must be inlined into that one function, hence `inline(always)`
//! everywhere: a function that is not inlined lacks the instructions.
//!
//! The instruction sets differ in the rounding of [`Simd::mul_add`] and [`Simd::over_root`]. Each alone gives the same
//! bits on every run and on every processor that has it: no instruction is used whose bits a maker may choose.

#![expect(unsafe_code, reason = "vector instructions, which the processor may lack, and a control register")]
#![expect(clippy::needless_range_loop, reason = "kernels go through several arrays alike, by indices that unroll")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod denormals;
mod hints;
mod portable;
pub mod tile;

pub use self::denormals::FlushDenormals;
pub use self::hints::{huge_pages, prefetch};
pub use self::portable::Single;

use serde::Serialize;

use self::portable::Portable;
use self::tile::TileUnit;
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

/// The numbers of some blocks.
pub fn numbers(blocks: &[Block]) -> &[f32] {
    // SAFETY: a block is its sixteen numbers and nothing else: they fill its 64 bytes.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len() * LANES) }
}

/// The environment variable that names the instruction set to use.
pub const VARIABLE: &str = "MNIST_INSTRUCTION_SET";

/// What numbers the products of matrices are made of. Sums are float32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    Float32,
    /// Numbers rounded to bf16, see [`tile`].
    Bf16,
}

impl Precision {
    /// The choices by their names in the parameters file.
    pub const ALL: &[(&'static str, Self)] = &[("float32", Self::Float32), ("bf16", Self::Bf16)];
}

/// An instruction set that this processor has, and what multiplies its tiles of bf16 numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstructionSet(Instructions, TileUnit);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Work that an instruction set does.
pub trait Job {
    /// The result of the work.
    type Output;
    /// Does the work. Mark it `inline(always)`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl InstructionSet {
    /// All instruction sets that this processor has for float32, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512f") {
                all.push(Self(Instructions::Avx512, TileUnit::VECTORS));
            }
            all.push(Self(Instructions::Avx2, TileUnit::VECTORS));
        }
        all.push(Self(Instructions::Portable, TileUnit::VECTORS));
        all
    }

    /// All instruction sets that this processor has for `precision`, the fastest first.
    pub fn available_for(precision: Precision) -> Vec<Self> {
        let available = Self::available();
        let units = if precision == Precision::Bf16 { TileUnit::available() } else { vec![TileUnit::VECTORS] };
        // Those with a unit for tiles are kinds of the fastest.
        let tiled = units.into_iter().filter(|&unit| unit != TileUnit::VECTORS).map(|unit| Self(available[0].0, unit));
        tiled.chain(available.iter().copied()).collect()
    }

    /// The fastest instruction set for float32, or the one that the environment variable [`VARIABLE`] names.
    ///
    /// # Errors
    /// The variable names an instruction set that this processor lacks, or none at all.
    pub fn choose() -> Result<Self> {
        Self::choose_for(Precision::Float32)
    }

    /// [`InstructionSet::choose`] for `precision`. A set that is for bf16 only stands for the one it is a kind of.
    ///
    /// # Errors
    /// As for `choose`.
    pub fn choose_for(precision: Precision) -> Result<Self> {
        let unit = |Self(instructions, unit)| match precision {
            Precision::Bf16 => Self(instructions, unit),
            Precision::Float32 => Self(instructions, TileUnit::VECTORS),
        };
        Self::named().map(|named| named.unwrap_or(Self::available_for(precision)[0])).map(unit)
    }

    /// The instruction set that [`VARIABLE`] names.
    fn named() -> Result<Option<Self>> {
        let available = Self::available_for(Precision::Bf16);
        let Some(asked) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let asked = asked.to_string_lossy().into_owned();
        (available.iter().copied().find(|set| set.name() == asked)).map(Some).ok_or_else(|| Error::InstructionSet {
            variable: VARIABLE,
            asked,
            available: available.iter().map(|set| set.name()).collect(),
        })
    }

    /// Its name in messages, metrics and [`VARIABLE`].
    pub fn name(self) -> &'static str {
        self.1.name().unwrap_or(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            Instructions::Portable => portable::NAME,
        })
    }

    /// What multiplies its tiles of bf16 numbers.
    pub fn tile_unit(self) -> TileUnit {
        self.1
    }

    /// Does `job` with this instruction set.
    pub fn run<J: Job>(self, job: J) -> J::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `available` makes this value, after it found AVX-512, AVX2 and FMA.
            Instructions::Avx512 => unsafe { avx512::run(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `available` makes this value, after it found AVX2 and FMA.
            Instructions::Avx2 => unsafe { avx2::run(job) },
            Instructions::Portable => job.run(Portable),
        }
    }
}

/// Arithmetic on unsigned 32-bit integers, some at a time. It wraps around.
///
/// A value of a type that implements it proves that the processor has the instructions.
pub trait U32Lanes: Copy + Send + Sync {
    /// Integers in registers.
    type U: Copy;

    /// `x` in every lane.
    fn splat_u32(self, x: u32) -> Self::U;
    /// `a + b`.
    fn add_u32(self, a: Self::U, b: Self::U) -> Self::U;
    /// The lower 32 bits of `a b`.
    fn mul_u32(self, a: Self::U, b: Self::U) -> Self::U;
    /// `a ^ b`.
    fn xor(self, a: Self::U, b: Self::U) -> Self::U;
    /// `a << bits`, for `bits` from 0 to 31.
    fn shift_left(self, a: Self::U, bits: u32) -> Self::U;
    /// `a >> bits`, for `bits` from 0 to 31.
    fn shift_right(self, a: Self::U, bits: u32) -> Self::U;
}

/// Arithmetic on sixteen numbers.
pub trait Simd: U32Lanes {
    /// Sixteen numbers in registers.
    type F: Copy;
    /// How many `F` fit into the registers.
    const REGISTERS: usize;
    /// Whether the registers hold two sums for each block in a row of the widest slab.
    const MANY_REGISTERS: bool = Self::REGISTERS >= 16;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// Reads a block from memory.
    fn load(self, from: &Block) -> Self::F;
    /// Writes a block to memory.
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
    /// The larger of the two; `b` where one of them is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / (sqrt(x) scale + offset)` for normal `x > 0`, to about four units in the last place.
    fn over_root(self, a: Self::F, x: Self::F, scale: f32, offset: f32) -> Self::F;
    /// The lanes of `x` that are not zero, NaN among them: lane i is bit i.
    fn nonzero(self, x: Self::F) -> u16;
    /// `x` where `condition > 0`, zero elsewhere.
    fn where_positive(self, condition: Self::F, x: Self::F) -> Self::F;
    /// `x` where `a >= b`, zero elsewhere.
    fn where_at_least(self, a: Self::U, b: Self::U, x: Self::F) -> Self::F;
    /// `x` rounded to the nearest whole number, for `x` from -2^22 to 2^22.
    fn round(self, x: Self::F) -> Self::F;
    /// A whole number `x` as an integer; a negative one in two's complement.
    fn whole(self, x: Self::F) -> Self::U;
    /// The numbers that have these bits.
    fn as_floats(self, bits: Self::U) -> Self::F;
    /// The bits of these numbers.
    fn bits(self, x: Self::F) -> Self::U;
    /// Writes integers to memory.
    fn store_u32(self, x: Self::U, to: &mut [u32; LANES]);
    /// Exchanges rows and columns.
    #[inline(always)]
    fn transpose(self, rows: &mut [[u32; LANES]; LANES]) {
        let columns = std::array::from_fn(|_| [0; LANES]);
        for (i, row) in std::mem::replace(rows, columns).iter().enumerate() {
            for m in 0..LANES {
                rows[m][i] = row[m];
            }
        }
    }
    /// The number of each lane, from 0 to 15.
    fn lane_numbers(self) -> Self::U;
    /// The sum of the sixteen, always in the same order.
    fn sum(self, x: Self::F) -> f32;
    /// The largest of the sixteen.
    fn highest(self, x: Self::F) -> f32;
}

/// `2^x` for whole `x` from -126 to 127.
#[inline(always)]
fn pow2<S: Simd>(s: S, x: S::F) -> S::F {
    let exponent = s.add_u32(s.whole(x), s.splat_u32(127));
    s.as_floats(s.shift_left(exponent, 23))
}

/// `e^x` for `x <= 0`, to about two units in the last place. Below -87 as for -87; NaN where `x` is NaN.
///
/// Source: Moshier: Cephes, `expf.c`.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    const POLYNOMIAL: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let x = s.max(s.splat(-87.0), x);
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts. The first has so few bits that its product with n is exact.
    let r = s.neg_mul_add(n, s.splat(0.693_359_4), x);
    let r = s.neg_mul_add(n, s.splat(-2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for coefficient in POLYNOMIAL {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    let p = s.mul_add(s.mul(p, r), r, s.add(r, s.splat(1.0)));
    s.mul(p, pow2(s, n))
}

/// Reads a row of blocks from memory.
#[inline(always)]
pub fn load_row<S: Simd, const W: usize>(s: S, row: &[Block; W]) -> [S::F; W] {
    let mut values = [s.splat(0.0); W];
    for j in 0..W {
        values[j] = s.load(&row[j]);
    }
    values
}

/// Writes a row of blocks to memory.
#[inline(always)]
pub fn store_row<S: Simd, const W: usize>(s: S, values: [S::F; W], row: &mut [Block; W]) {
    for j in 0..W {
        s.store(values[j], &mut row[j]);
    }
}

/// The columns of sixteen rows.
#[inline(always)]
pub fn transposed<S: Simd>(s: S, rows: [S::F; LANES]) -> [Block; LANES] {
    let mut square = [[0; LANES]; LANES];
    for i in 0..LANES {
        s.store_u32(s.bits(rows[i]), &mut square[i]);
    }
    s.transpose(&mut square);
    square.map(|row| Block(row.map(f32::from_bits)))
}

/// `sums += part`, block by block.
#[inline(always)]
pub fn add<S: Simd>(s: S, sums: &mut [Block], part: &[Block]) {
    for (sum, part) in sums.iter_mut().zip(part) {
        s.store(s.add(s.load(sum), s.load(part)), sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each operation on two blocks.
    #[derive(Clone, Copy)]
    struct Numbers {
        a: Block,
        b: Block,
    }

    impl Job for Numbers {
        type Output = Vec<(&'static str, [f32; LANES])>;

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
                ("nonzero", s.splat(s.nonzero(s.where_positive(a, b)).into())),
                ("where_positive", s.where_positive(a, b)),
                ("round", s.round(s.mul(a, s.splat(9.3)))),
                ("pow2", pow2(s, s.round(s.mul(a, s.splat(9.3))))),
                ("exp", exp(s, s.neg_mul_add(a, a, s.splat(0.0)))),
                ("over_root", s.over_root(a, positive, 30.0, 1e-4)),
                ("sum", s.splat(s.sum(a))),
                ("highest", s.splat(s.highest(a))),
            ];
            let stored = values.iter().map(|&(name, value)| {
                let mut block = Block::ZERO;
                s.store(value, &mut block);
                (name, block.0)
            });
            stored.collect()
        }
    }

    #[test]
    fn every_instruction_set_computes_what_plain_numbers_do() {
        let a = Block(std::array::from_fn(|i| (i as f32 - 7.3) * 0.77));
        let b = Block(std::array::from_fn(|i| (11.0 - i as f32) * 1e-3));
        for set in InstructionSet::available() {
            for (name, values) in set.run(Numbers { a, b }) {
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
                        // Lanes 8 to 15, where a is positive, but for 11, where b is 0.
                        "nonzero" => f64::from(0b1111_0111_0000_0000),
                        "where_positive" if x > 0.0 => y,
                        "where_positive" => 0.0,
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
        }
    }

    /// Each operation on the integers `lane FACTOR + a` and on `b`, as bits of the numbers.
    #[derive(Clone, Copy)]
    struct Integers {
        a: u32,
        b: u32,
    }

    const FACTOR: u32 = 0x1234_5679;

    impl Job for Integers {
        type Output = Vec<(&'static str, [u32; LANES])>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let scaled = s.mul_u32(s.lane_numbers(), s.splat_u32(FACTOR));
            let (a, b) = (s.add_u32(scaled, s.splat_u32(self.a)), s.splat_u32(self.b));
            let values = [
                ("a", s.as_floats(a)),
                ("xor", s.as_floats(s.xor(a, b))),
                ("shift_left", s.as_floats(s.shift_left(a, 23))),
                ("shift_right", s.as_floats(s.shift_right(a, 15))),
                ("whole", s.as_floats(s.whole(s.splat(-3.0)))),
                ("where_at_least", s.where_at_least(a, b, s.splat(1.0))),
                ("bits", s.as_floats(s.shift_right(s.bits(s.as_floats(a)), 1))),
            ];
            let stored = values.iter().map(|&(name, value)| {
                let mut block = Block::ZERO;
                s.store(value, &mut block);
                (name, block.0.map(f32::to_bits))
            });
            stored.collect()
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same_integers() {
        for (a, b) in [(7, 9), (0xffff_fff0, 0x8000_0000), (0x8000_0001, 0x7fff_ffff), (5, 5)] {
            for set in InstructionSet::available() {
                for (name, values) in set.run(Integers { a, b }) {
                    for (i, found) in values.into_iter().enumerate() {
                        let x = FACTOR.wrapping_mul(i as u32).wrapping_add(a);
                        let expected = match name {
                            "a" => x,
                            "xor" => x ^ b,
                            "shift_left" => x << 23,
                            "shift_right" => x >> 15,
                            "whole" => -3i32 as u32,
                            "where_at_least" if x >= b => 1.0f32.to_bits(),
                            "where_at_least" => 0,
                            "bits" => x >> 1,
                            _ => unreachable!("{name}"),
                        };
                        assert_eq!(found, expected, "{} {name}[{i}]", set.name());
                    }
                }
            }
        }
    }
}
