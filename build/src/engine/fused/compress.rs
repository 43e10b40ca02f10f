//! The nonzero pixels of a stretch by AVX-512. `vpcompressb` takes the bytes that a mask selects and leaves no gaps.

#![expect(unsafe_code, reason = "vector instructions, which the processor may lack")]

use std::arch::x86_64::*;

use super::lists;

/// Pixels that are looked at together.
const WIDTH: usize = 64;

/// The instructions: whoever has a value may use them.
#[derive(Debug, Clone, Copy)]
pub struct Compress(());

impl Compress {
    /// If the processor has them.
    pub fn find() -> Option<Self> {
        let is_there = is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("popcnt");
        is_there.then_some(Self(()))
    }

    /// See [`Lister::list`](super::lister::Lister::list).
    pub fn list(self, image: &[u8], flags: &mut [u64], records: &mut [[u16; 2]]) -> usize {
        // SAFETY: `find` found the instructions.
        unsafe { list_image(image, flags, records) }
    }
}

#[target_feature(enable = "avx512bw,avx512vbmi2,popcnt")]
fn list_image(image: &[u8], flags: &mut [u64], records: &mut [[u16; 2]]) -> usize {
    for (flags, pixels) in flags.iter_mut().zip(image.chunks(WIDTH)) {
        let values = load(pixels);
        *flags = _mm512_test_epi8_mask(values, values);
    }
    lists::write(image, records, |_, pixels, list| list_all(pixels, list))
}

/// Lists the nonzero ones of `pixels`, at most 192 in all, in their order. A number of `list` holds a pixel's index in its
/// lower byte and the value in its upper byte. Returns how many pixels it listed; numbers after them change too.
#[inline]
#[target_feature(enable = "avx512bw,avx512vbmi2,popcnt")]
fn list_all(pixels: &[u8], list: &mut [u16]) -> usize {
    let mut count = 0;
    for (n, pixels) in pixels.chunks(WIDTH).enumerate() {
        let values = load(pixels);
        let nonzero = _mm512_test_epi8_mask(values, values);
        let indices = _mm512_add_epi8(numbers(), _mm512_set1_epi8((n * WIDTH) as i8));
        let indices = _mm512_maskz_compress_epi8(nonzero, indices);
        let values = _mm512_maskz_compress_epi8(nonzero, values);
        let (low, high) = list[count..count + WIDTH].split_at_mut(WIDTH / 2);
        store(_mm512_castsi512_si256(indices), _mm512_castsi512_si256(values), low);
        store(_mm512_extracti64x4_epi64::<1>(indices), _mm512_extracti64x4_epi64::<1>(values), high);
        count += nonzero.count_ones() as usize;
    }
    count
}

/// Up to 64 `pixels`, and zeros.
#[inline]
#[target_feature(enable = "avx512bw")]
fn load(pixels: &[u8]) -> __m512i {
    let there = u64::MAX >> (WIDTH - pixels.len());
    // SAFETY: the mask selects the bytes of `pixels`; others are not read.
    unsafe { _mm512_maskz_loadu_epi8(there, pixels.as_ptr().cast()) }
}

/// The bytes 0 to 63.
#[inline]
#[target_feature(enable = "avx512bw")]
fn numbers() -> __m512i {
    static NUMBERS: [u8; WIDTH] = {
        let mut numbers = [0; WIDTH];
        let mut i = 0;
        while i < WIDTH {
            numbers[i] = i as u8;
            i += 1;
        }
        numbers
    };
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(NUMBERS.as_ptr().cast()) }
}

/// Writes 32 numbers of a lower and an upper byte each.
#[inline]
#[target_feature(enable = "avx512bw")]
fn store(lower: __m256i, upper: __m256i, to: &mut [u16]) {
    assert!(to.len() == WIDTH / 2);
    let numbers = _mm512_or_si512(_mm512_cvtepu8_epi16(lower), _mm512_slli_epi16::<8>(_mm512_cvtepu8_epi16(upper)));
    // SAFETY: 32 numbers of two bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), numbers) };
}
