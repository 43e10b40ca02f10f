//! Pixels for GPUs, whose kernels know no bytes.

/// Images of `inputs` (D) pixels as words, (N,D/4), rounded up: four pixels to a word, the first in the lowest byte.
pub fn pixel_words(pixels: &[u8], inputs: usize) -> impl Iterator<Item = u32> {
    let word = |four: &[u8]| {
        let mut bytes = [0; 4];
        bytes[..four.len()].copy_from_slice(four);
        u32::from_le_bytes(bytes)
    };
    pixels.chunks(inputs).flat_map(move |image| image.chunks(4).map(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_begins_with_a_word_of_its_own() {
        let words: Vec<u32> = pixel_words(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 5).collect();
        assert_eq!(words, [0x0403_0201, 5, 0x0908_0706, 10]);
    }
}
