//! Makes the lists of an image's nonzero pixels, with the flags that tell which they are.

#![expect(unsafe_code, reason = "vector instructions that read memory")]

#[cfg(target_arch = "x86_64")]
use super::compress::Compress;
use super::lists::{self, NonzeroPixel};

/// What lists the nonzero pixels.
#[derive(Debug, Clone, Copy)]
pub enum Lister {
    /// AVX-512.
    #[cfg(target_arch = "x86_64")]
    Compress(Compress),
    /// The flags, one after the other.
    Flags,
}

impl Lister {
    /// The fastest that this processor has.
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(compress) = Compress::find() {
            return Self::Compress(compress);
        }
        Self::Flags
    }

    /// Writes the lists of `image` into `records`, as [`lists::write`] does. `flags` then tell which pixels are not zero: pixel i
    /// is bit i % 64 of number i / 64.
    pub fn list(self, image: &[u8], flags: &mut [u64], records: &mut [[u16; 2]]) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Compress(compress) => compress.list(image, flags, records),
            Self::Flags => {
                for (flags, pixels) in flags.iter_mut().zip(image.chunks(64)) {
                    *flags = flags_of(pixels);
                }
                lists::write(image, records, |first, pixels, list| list_flagged(flags, first, pixels, list))
            }
        }
    }
}

/// Lists the nonzero ones of `pixels`, whose first has the number `first` in its image. The image's `flags` tell which are
/// not zero.
#[inline(always)]
fn list_flagged(flags: &[u64], first: usize, pixels: &[u8], list: &mut [u16]) -> usize {
    let end = first + pixels.len();
    let mut count = 0;
    for word in first / 64..end.div_ceil(64) {
        // Without the flags of other stretches.
        let (before, after) = (first.saturating_sub(64 * word), (64 * (word + 1)).saturating_sub(end));
        let mut left = flags[word] >> before << before << after >> after;
        while left != 0 {
            let index = (64 * word + left.trailing_zeros() as usize) - first;
            left &= left - 1;
            list[count] = NonzeroPixel::new(index, pixels[index]).0;
            count += 1;
        }
    }
    count
}

/// Which of eight bytes are not zero: byte i is bit i.
#[inline(always)]
fn nonzero_of_8(bytes: [u8; 8]) -> u8 {
    // The highest bit of each byte that is not zero. A product then brings the eight bits together.
    let x = u64::from_le_bytes(bytes);
    let high = (((x & 0x7f7f_7f7f_7f7f_7f7f) + 0x7f7f_7f7f_7f7f_7f7f) | x) & 0x8080_8080_8080_8080;
    ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

/// Which of 32 bytes are not zero: byte i is bit i.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn nonzero_of_32(bytes: &[u8; 32]) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_setzero_si128};
    let [low, high] = [0, 16].map(|begin| {
        // SAFETY: every x86-64 processor has SSE2. The 16 bytes from `begin` on lie in the array, and need no
        // alignment.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().add(begin).cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128())) as u32
        }
    });
    !(low | high << 16)
}

/// Which of 32 bytes are not zero: byte i is bit i.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn nonzero_of_32(bytes: &[u8; 32]) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| nonzero_of_8(bytes.as_chunks::<8>().0[n])))
}

/// Which of up to 64 pixels are not zero: pixel i is bit i.
#[inline(always)]
fn flags_of(pixels: &[u8]) -> u64 {
    if let Some(pixels) = pixels.as_array::<64>() {
        let [low, high] = [0, 1].map(|half| u64::from(nonzero_of_32(&pixels.as_chunks::<32>().0[half])));
        return low | high << 32;
    }
    let (eights, rest) = pixels.as_chunks::<8>();
    let mut flags = 0;
    for (n, eight) in eights.iter().enumerate() {
        flags |= u64::from(nonzero_of_8(*eight)) << (8 * n);
    }
    for (i, &pixel) in rest.iter().enumerate() {
        flags |= u64::from(pixel != 0) << (8 * eights.len() + i);
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::super::lists::STRETCH;
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn every_lister_gives_the_same_lists() {
        if let Lister::Flags = Lister::fastest() {
            return println!("skipped: this processor has no AVX-512 VBMI2");
        }
        let mut stream = Stream::new(2, Purpose::Order, 0);
        for d in [784, 1, 63, 64, 65, STRETCH, STRETCH + 1, 2 * STRETCH - 1] {
            for share in [1, 2, 5, 1000] {
                let pixels: Vec<u8> =
                    (0..d).map(|_| if stream.below(share) == 0 { stream.below(256) as u8 } else { 0 }).collect();
                let listed = |lister: Lister| {
                    let (mut flags, mut records) = (vec![7; d.div_ceil(64)], vec![[7; 2]; lists::room(d)]);
                    let used = lister.list(&pixels, &mut flags, &mut records);
                    records.truncate(used);
                    (flags, records)
                };
                assert!(listed(Lister::Flags) == listed(Lister::fastest()), "{d} {share}");
            }
        }
    }

    #[test]
    fn nonzero_bytes_are_found_among_32() {
        let bytes = std::array::from_fn(|i| if i % 3 == 0 || i == 31 { 0 } else { 7 * i as u8 + 1 });
        let expected = (0..32).filter(|i| !(i % 3 == 0 || *i == 31)).fold(0, |mask, i| mask | 1 << i);
        for (bytes, expected) in [(bytes, expected), ([0; 32], 0), ([128; 32], u32::MAX)] {
            assert_eq!(nonzero_of_32(&bytes), expected);
            let eights = bytes.as_chunks::<8>().0;
            assert_eq!(u32::from_le_bytes(std::array::from_fn(|n| nonzero_of_8(eights[n]))), expected);
        }
    }
}
