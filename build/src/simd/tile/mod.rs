//! Products of matrices of bf16 numbers, in tiles that fit a processor's matrix unit.
//!
//! A bf16 number is the upper half of a float32 number: 8 bits of precision, the same range. Sums stay float32.
//!
//! `z += a b` takes a in [`Bf16Tile`]s of 16 rows and 32 columns, and b in tiles of 32 rows and 16 columns. Both keep numbers
//! k and k + 16 of the 32 that are summed in one word, so that one way to pack them makes tiles of rows as well as of columns.

#![expect(unsafe_code, reason = "matrix instructions, which the processor may lack")]

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod pairs;

use std::marker::PhantomData;

use super::{Block, LANES, Simd};

/// Numbers that a tile sums over.
pub const DEPTH: usize = 2 * LANES;

/// Rows of a product that are computed together: two tiles.
pub const ROWS: usize = 2 * LANES;

/// 512 bf16 numbers. Word m of row i has two of them, in its lower and its upper half:
///
/// | tile | lower half | upper half |
/// |---|---|---|
/// | of the left matrix a | `a[i, m]` | `a[i, m + 16]` |
/// | of the right matrix b | `b[i, m]` | `b[i + 16, m]` |
#[derive(Debug, Clone, PartialEq)]
#[repr(C, align(64))]
pub struct Bf16Tile(pub [[u32; LANES]; LANES]);

impl Bf16Tile {
    /// 512 zeros.
    pub const ZERO: Self = Self([[0; LANES]; LANES]);

    /// Puts `pack(low, high)` into a row.
    #[inline(always)]
    pub fn set_row<S: Simd>(&mut self, s: S, row: usize, low: &Block, high: &Block) {
        s.store_u32(pack(s, s.load(low), s.load(high)), &mut self.0[row]);
    }

    /// Exchanges rows and words: makes a tile of the right matrix of one of the left matrix's transpose, and the reverse.
    #[inline(always)]
    pub fn transpose<S: Simd>(&mut self, s: S) {
        s.transpose(&mut self.0);
    }
}

/// The bf16 number nearest to `x`, the even one of two; its bits are the lower half of each lane.
#[inline(always)]
fn nearest<S: Simd>(s: S, x: S::F) -> S::U {
    let bits = s.bits(x);
    let is_odd = s.shift_right(s.shift_left(bits, 15), 31);
    s.shift_right(s.add_u32(bits, s.add_u32(is_odd, s.splat_u32(0x7fff))), 16)
}

/// `x` rounded to bf16.
#[inline(always)]
pub fn rounded<S: Simd>(s: S, x: S::F) -> S::F {
    s.as_floats(s.shift_left(nearest(s, x), 16))
}

/// The bf16 number nearest to `x`.
pub fn nearest_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16 << 16)
}

/// Two numbers in each word, rounded to bf16.
#[inline(always)]
fn pack<S: Simd>(s: S, low: S::F, high: S::F) -> S::U {
    s.add_u32(nearest(s, low), s.shift_left(nearest(s, high), 16))
}

/// What multiplies tiles on this processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileUnit(Unit);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Tiles of AMX, the matrix unit of some processors of Intel.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// AVX-512 with products of pairs of bf16 numbers (VDPBF16PS).
    #[cfg(target_arch = "x86_64")]
    Pairs,
    /// The products of float32.
    Vectors,
}

impl TileUnit {
    /// Vectors of float32, which every processor has.
    pub const VECTORS: Self = Self(Unit::Vectors);

    /// Those that this processor has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if pairs::is_available() {
            if amx::is_available() {
                all.push(Self(Unit::Amx));
            }
            all.push(Self(Unit::Pairs));
        }
        all.push(Self::VECTORS);
        all
    }

    /// Its name; none for vectors, which are any instruction set's.
    pub fn name(self) -> Option<&'static str> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Unit::Amx => Some("amx"),
            #[cfg(target_arch = "x86_64")]
            Unit::Pairs => Some("avx512_bf16"),
            Unit::Vectors => None,
        }
    }
}

/// A step of a product's sums: two tiles of the left matrix, and `C` of the right one.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Term<'a, const C: usize> {
    /// Rows 0 to 15 and 16 to 31.
    pub left: [&'a Bf16Tile; 2],
    /// Columns 0 to 15 and so on.
    pub right: [&'a Bf16Tile; C],
}

/// A thread's right to multiply tiles, as long as it lives.
#[derive(Debug)]
pub struct Tiles {
    unit: TileUnit,
    /// The unit belongs to this thread, so the right must not leave it.
    _not_send: PhantomData<*const ()>,
}

impl Tiles {
    /// Prepares `unit` for this thread.
    pub fn begin(unit: TileUnit) -> Self {
        #[cfg(target_arch = "x86_64")]
        if unit.0 == Unit::Amx {
            // SAFETY: only `available` gives this unit, after it found it.
            unsafe { amx::begin() };
        }
        Self { unit, _not_send: PhantomData }
    }

    /// Adds a product to `sums`: [`ROWS`] rows of `C` blocks, each `stride` blocks after the one before. The terms are added
    /// one after the other.
    #[inline(always)]
    pub fn multiply<S: Simd, const C: usize>(&self, s: S, terms: &[Term<C>], sums: &mut [Block], stride: usize) {
        const { assert!(C == 1 || C == 2) };
        assert!(sums.len() >= (ROWS - 1) * stride + C && stride >= C);
        match self.unit.0 {
            // SAFETY: `begin` prepared the unit for this thread. The rows lie within `sums`, as asserted.
            #[cfg(target_arch = "x86_64")]
            Unit::Amx => unsafe { amx::multiply(terms, sums.as_mut_ptr(), stride) },
            // SAFETY: only `available` gives this unit, after it found it.
            #[cfg(target_arch = "x86_64")]
            Unit::Pairs => unsafe { pairs::multiply(terms, sums, stride) },
            Unit::Vectors => multiply(s, terms, sums, stride),
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.unit.0 == Unit::Amx {
            // SAFETY: `begin` prepared the unit for this thread, which it cannot leave.
            unsafe { amx::end() };
        }
    }
}

/// [`Tiles::multiply`] in float32, 8 rows at a time. Products of bf16 numbers are exact there.
#[inline(always)]
fn multiply<S: Simd, const C: usize>(s: S, terms: &[Term<C>], sums: &mut [Block], stride: usize) {
    if S::REGISTERS >= 32 {
        multiply_by::<S, C, 8>(s, terms, sums, stride);
    } else {
        multiply_by::<S, C, 2>(s, terms, sums, stride);
    }
}

#[inline(always)]
fn multiply_by<S: Simd, const C: usize, const R: usize>(s: S, terms: &[Term<C>], sums: &mut [Block], stride: usize) {
    for row in (0..ROWS).step_by(R) {
        let mut z = [[s.splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                z[r][c] = s.load(&sums[(row + r) * stride + c]);
            }
        }
        for Term { left, right } in terms {
            let a = &left[row / LANES].0[row % LANES..][..R];
            for m in 0..LANES {
                let mut b = [[s.splat(0.0); C]; 2];
                for c in 0..C {
                    let words = s.bits(s.load(&Block(right[c].0[m].map(f32::from_bits))));
                    b[0][c] = s.as_floats(s.shift_left(words, 16));
                    b[1][c] = s.as_floats(s.shift_left(s.shift_right(words, 16), 16));
                }
                for r in 0..R {
                    let [low, high] = [a[r][m] << 16, a[r][m] >> 16 << 16].map(|bits| s.splat(f32::from_bits(bits)));
                    for c in 0..C {
                        z[r][c] = s.mul_add(high, b[1][c], s.mul_add(low, b[0][c], z[r][c]));
                    }
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                s.store(z[r][c], &mut sums[(row + r) * stride + c]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{InstructionSet, Job};

    fn number(i: usize) -> f32 {
        ((i * 7919 % 2003) as f32 - 1000.0) * 1.37e-3
    }

    /// `x` rounded to 8 bits, by another way than [`nearest`].
    fn to_8_bits(x: f32) -> f64 {
        let unit = f64::from(x).abs().log2().floor().exp2() / 128.0;
        if x == 0.0 { 0.0 } else { (f64::from(x) / unit).round_ties_even() * unit }
    }

    /// A product of (32,64) and (64, 16 C), added to ones in rows of `C + 1` blocks.
    struct Product<const C: usize>(TileUnit);

    impl<const C: usize> Job for Product<C> {
        type Output = Vec<Block>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<Block> {
            let a = |row: usize, k: usize| Block(std::array::from_fn(|lane| number(row * 64 + k + lane)));
            let b = |k: usize, c: usize| Block(std::array::from_fn(|lane| number(5 + (k * C + c) * LANES + lane)));
            let mut left = vec![[Bf16Tile::ZERO, Bf16Tile::ZERO]; 2];
            let mut right = vec![[Bf16Tile::ZERO; C]; 2];
            for k in 0..2 {
                for row in 0..ROWS {
                    left[k][row / LANES].set_row(s, row % LANES, &a(row, k * 32), &a(row, k * 32 + 16));
                }
                for c in 0..C {
                    for m in 0..LANES {
                        right[k][c].set_row(s, m, &b(k * 32 + m, c), &b(k * 32 + m + 16, c));
                    }
                }
            }
            let terms: Vec<Term<C>> = left
                .iter()
                .zip(&right)
                .map(|(left, right)| Term { left: left.each_ref(), right: right.each_ref() })
                .collect();
            let mut sums = vec![Block([1.0; LANES]); ROWS * (C + 1)];
            Tiles::begin(self.0).multiply(s, &terms, &mut sums, C + 1);
            sums
        }
    }

    fn check<const C: usize>(set: InstructionSet, unit: TileUnit) {
        let sums = set.run(Product::<C>(unit));
        for row in 0..ROWS {
            for column in 0..(C + 1) * LANES {
                let found = f64::from(sums[row * (C + 1) + column / LANES].0[column % LANES]);
                let product = |k| to_8_bits(number(row * 64 + k)) * to_8_bits(number(5 + k * C * LANES + column));
                let expected = 1.0 + if column < C * LANES { (0..64).map(product).sum() } else { 0.0 };
                assert!((found - expected).abs() < 2e-5, "{unit:?} {row},{column}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn every_unit_multiplies_as_plain_numbers_do() {
        for set in InstructionSet::available() {
            for unit in TileUnit::available() {
                check::<1>(set, unit);
                check::<2>(set, unit);
            }
        }
    }

    /// The transpose of a tile.
    struct Transpose(Bf16Tile);

    impl Job for Transpose {
        type Output = Bf16Tile;

        #[inline(always)]
        fn run<S: Simd>(mut self, s: S) -> Bf16Tile {
            self.0.transpose(s);
            self.0
        }
    }

    #[test]
    fn rows_and_words_change_places() {
        let tile = Bf16Tile(std::array::from_fn(|i| std::array::from_fn(|m| (i * LANES + m) as u32)));
        let expected = Bf16Tile(std::array::from_fn(|i| std::array::from_fn(|m| (m * LANES + i) as u32)));
        for set in InstructionSet::available() {
            assert_eq!(set.run(Transpose(tile.clone())), expected, "{}", set.name());
        }
    }

    /// Numbers rounded to bf16.
    struct Rounded(Block);

    impl Job for Rounded {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut to = Block::ZERO;
            s.store(rounded(s, s.load(&self.0)), &mut to);
            to.0
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_the_even_one_of_two() {
        let [tie_up, tie_down] = [1.0 + 3.0 / 256.0, 1.0 + 1.0 / 256.0];
        let numbers =
            [0.0, -0.0, 1.0, -1.5, 1.004, 1.003, tie_up, tie_down, 255.0, 3.3e38, 1e-30, -7.1, 0.1, 2.0, 9.0, 1e9];
        for set in InstructionSet::available() {
            let found = set.run(Rounded(Block(numbers)));
            for (x, found) in numbers.into_iter().zip(found) {
                assert_eq!(f64::from(found), to_8_bits(x), "{} {x}", set.name());
            }
            let wild = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX];
            let found = set.run(Rounded(Block(std::array::from_fn(|i| wild[i % 4]))));
            assert!(found[0].is_nan() && found[1..4] == [f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY]);
        }
    }
}
