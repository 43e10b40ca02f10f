//! The IDX format of MNIST's files: a big-endian header (magic number, then one length a dimension), then the bytes.

/// The magic number of unsigned bytes in three dimensions: images.
pub const IMAGES_MAGIC: u32 = 0x0000_0803;
/// The magic number of unsigned bytes in one dimension: labels.
pub const LABELS_MAGIC: u32 = 0x0000_0801;

/// The bytes of an image file: header (count, rows, columns), then `images`, (N, `rows` x `columns`) row-major.
///
/// # Panics
/// `images` holds no whole number of images, or more of them than 32 bits can count: a fault of the program.
pub fn encode_images(images: &[u8], rows: u32, columns: u32) -> Vec<u8> {
    let pixels = rows as usize * columns as usize;
    assert!(images.len().is_multiple_of(pixels), "{} bytes are no whole {rows} x {columns} images", images.len());
    encode(IMAGES_MAGIC, &[count(images.len() / pixels), rows, columns], images)
}

/// The bytes of a label file: header (count), then `labels`, (N).
///
/// # Panics
/// There are more labels than 32 bits can count: a fault of the program.
pub fn encode_labels(labels: &[u8]) -> Vec<u8> {
    encode(LABELS_MAGIC, &[count(labels.len())], labels)
}

fn count(items: usize) -> u32 {
    u32::try_from(items).expect("an IDX file counts its items in 32 bits")
}

fn encode(magic: u32, dimensions: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + 4 * dimensions.len() + data.len());
    bytes.extend(magic.to_be_bytes());
    for length in dimensions {
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_big_endian_and_data_follows() {
        let images = encode_images(&[9; 12], 2, 3);
        assert_eq!(images[..16], [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3]);
        assert_eq!(images[16..], [9; 12]);
        assert_eq!(encode_labels(&[7, 1, 4]), [0, 0, 8, 1, 0, 0, 0, 3, 7, 1, 4]);
    }
}
