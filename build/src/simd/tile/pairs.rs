//! AVX-512 BF16: an instruction that adds two products of bf16 numbers to each of sixteen sums.

use std::arch::x86_64::*;

use super::{ROWS, Term};
use crate::simd::{Block, LANES};

/// Rows at a time: with two blocks each, 16 registers of sums.
const AT_A_TIME: usize = 8;

/// Whether the processor has it.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

/// Adds a product to `sums`, whose rows are `stride` blocks apart.
///
/// # Safety
/// [`is_available`] is true.
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn multiply<const C: usize>(terms: &[Term<C>], sums: &mut [Block], stride: usize) {
    for row in (0..ROWS).step_by(AT_A_TIME) {
        let mut z = [[_mm512_setzero_ps(); C]; AT_A_TIME];
        for r in 0..AT_A_TIME {
            for c in 0..C {
                z[r][c] = load(&sums[(row + r) * stride + c]);
            }
        }
        for Term { left, right } in terms {
            let a = &left[row / LANES].0[row % LANES..][..AT_A_TIME];
            for m in 0..LANES {
                let mut b = [as_pairs(_mm512_setzero_si512()); C];
                for c in 0..C {
                    // SAFETY: a row of a tile is 64 bytes.
                    b[c] = as_pairs(unsafe { _mm512_loadu_si512(right[c].0[m].as_ptr().cast()) });
                }
                for r in 0..AT_A_TIME {
                    let a = as_pairs(_mm512_set1_epi32(a[r][m] as i32));
                    for c in 0..C {
                        z[r][c] = _mm512_dpbf16_ps(z[r][c], a, b[c]);
                    }
                }
            }
        }
        for r in 0..AT_A_TIME {
            for c in 0..C {
                // SAFETY: a block is sixteen numbers.
                unsafe { _mm512_storeu_ps(sums[(row + r) * stride + c].0.as_mut_ptr(), z[r][c]) };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(block: &Block) -> __m512 {
    // SAFETY: a block is sixteen numbers.
    unsafe { _mm512_loadu_ps(block.0.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn as_pairs(words: __m512i) -> __m512bh {
    // SAFETY: both types have 64 bytes, and any 64 bytes are a value of each.
    unsafe { std::mem::transmute(words) }
}
