//! Decodes an image file to shades of grey.

mod doubt;
mod ink;
mod opaque;
mod paper;
pub mod prepare;
mod surround;

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits,
};

pub use self::doubt::Doubt;

/// The most pixels that are decoded. Nearly all cameras have fewer.
const MOST_PIXELS: u64 = 100_000_000;
/// The most bytes of memory for a file and its decoding.
const MOST_BYTES: u64 = 200 << 20;
/// Larger images are reduced to this longer side. A digit on a twentieth of it still has more pixels than MNIST's.
const LONGEST_SIDE: u32 = 800;

/// What a file is told that is none of these.
const UNKNOWN: &str = "is no image that this program reads: expected PNG, JPEG, GIF, BMP or PGM";

/// An image in shades of grey.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// (height, width), 0 black to 1 white.
    pub pixels: Vec<f32>,
}

/// Decodes a PNG, JPEG, BMP, PGM (also PBM, PPM) or GIF, its first image. The result is upright, as the camera noted, and
/// without transparency. A large image is reduced.
///
/// # Errors
/// What is wrong with the file: the end of a sentence that begins with its name.
pub fn decode(bytes: &[u8]) -> Result<Picture, String> {
    if bytes.is_empty() {
        return Err("is empty: expected an image".into());
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|problem| format!("cannot be read as an image: {problem}"))?;
    let Some(format) = reader.format() else {
        return Err(UNKNOWN.into());
    };
    let broken = |error: ImageError| match error {
        ImageError::Unsupported(problem) => format!("{UNKNOWN}, found something else: {problem}"),
        ImageError::Limits(_) => {
            let megabytes = MOST_BYTES >> 20;
            format!(
                "expected an image of at most {MOST_PIXELS} pixels and {megabytes} MiB of memory, found a larger one"
            )
        }
        problem => format!("is no sound {} file: {problem}", name(format)),
    };
    if format == ImageFormat::Jpeg && !has_jpeg_end(bytes) {
        return Err("is no sound JPEG file: it ends early".into());
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if !(1..=MOST_PIXELS).contains(&pixels) {
        return Err(format!("expected an image of 1 to {MOST_PIXELS} pixels, found one of {width} x {height}"));
    }
    // Transparency is removed into a second image.
    let second = if decoder.color_type().has_alpha() { pixels } else { 0 };
    let copies = if format == ImageFormat::Jpeg && is_jpeg_of_many_scans(bytes) { 3 } else { 1 };
    let needed = copies * decoder.total_bytes() + second + bytes.len() as u64;
    if needed > MOST_BYTES {
        let [most, needed] = [MOST_BYTES, needed].map(|bytes| bytes.div_ceil(1 << 20));
        return Err(format!(
            "expected an image that takes at most {most} MiB of memory, found one of {width} x {height} that takes \
             {needed} MiB"
        ));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    brighten(&mut image);
    if image.color().has_alpha() {
        image = opaque::on_paper(&image).into();
    }
    if width.max(height) > LONGEST_SIDE {
        image = image.thumbnail(LONGEST_SIDE, LONGEST_SIDE);
    }
    image.apply_orientation(orientation);
    let image = image.into_luma16();
    Ok(Picture {
        width: image.width() as usize,
        height: image.height() as usize,
        pixels: image.pixels().map(|pixel| f32::from(pixel.0[0]) / f32::from(u16::MAX)).collect(),
    })
}

/// Scales samples of 8, 10, 12 or 14 bits that a sensor's program stored in 16. Unscaled, they are almost black.
fn brighten(image: &mut DynamicImage) {
    // The samples of a pixel, and those among them that are shades. The rest is transparency, which is full already.
    let (samples, each, shades): (&mut [u16], _, _) = match image {
        DynamicImage::ImageLuma16(image) => (image, 1, 1),
        DynamicImage::ImageLumaA16(image) => (image, 2, 1),
        DynamicImage::ImageRgb16(image) => (image, 3, 3),
        DynamicImage::ImageRgba16(image) => (image, 4, 3),
        _ => return,
    };
    let brightest = samples.chunks_exact(each).flat_map(|pixel| &pixel[..shades]).copied().max().unwrap_or(0);
    let full = [8, 10, 12, 14].map(|bits| (1u32 << bits) - 1).into_iter().find(|&full| u32::from(brightest) <= full);
    let Some(full) = full else { return };
    for pixel in samples.chunks_exact_mut(each) {
        pixel[..shades].iter_mut().for_each(|sample| *sample = (u32::from(*sample) * 0xffff / full) as u16);
    }
}

/// A PNG of `pixels` (H,W); `width` is W.
pub fn png(pixels: &[u8], width: usize) -> Vec<u8> {
    let height = pixels.len() / width;
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(pixels, width as u32, height as u32, ExtendedColorType::L8)
        .unwrap_or_else(|e| unreachable!("{width} x {height} bytes become a PNG in memory: {e}"));
    bytes
}

/// The name of a format that this program reads.
fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        _ => "PGM, PPM or PBM",
    }
}

/// Whether a JPEG has several scans, as progressive ones do. The decoder then holds all coefficients, of two bytes for each
/// byte of the image.
fn is_jpeg_of_many_scans(bytes: &[u8]) -> bool {
    const SCAN: [u8; 2] = [0xff, 0xda];
    let mut rest = bytes.get(2..).unwrap_or_default();
    // Segments with their lengths, up to the first scan. One of them may hold a small JPEG.
    while let [0xff, kind, high, low, ..] = rest {
        if [0xff, *kind] == SCAN {
            return rest[2..].windows(2).any(|pair| pair == SCAN);
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = rest.get(2 + length..).unwrap_or_default();
    }
    true // unusual: it counts as the worst
}

/// Whether a JPEG ends with its end marker, after its last scan. Without this test the decoder invents missing pixels.
fn has_jpeg_end(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_read_as_grey() {
        let picture = decode(b"P2 3 2 255\n0 51 255\n255 102 0\n").unwrap();
        assert_eq!((picture.width, picture.height), (3, 2));
        let expected = [0.0, 0.2, 1.0, 1.0, 0.4, 0.0];
        assert!(picture.pixels.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-4));
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        assert_eq!(decode(b"").unwrap_err(), "is empty: expected an image");
        assert_eq!(decode(b"hello").unwrap_err(), UNKNOWN);
        assert_eq!(
            decode(b"P5 100000 100000 255\n").unwrap_err(),
            "expected an image of 1 to 100000000 pixels, found one of 100000 x 100000"
        );
        assert!(decode(b"P5 10 10 255\nshort").unwrap_err().starts_with("is no sound PGM, PPM or PBM file: "));
        assert!(decode(b"\x89PNG\r\n\x1a\nrest").unwrap_err().starts_with("is no sound PNG file: "));
    }

    #[test]
    fn a_jpeg_has_one_scan_or_several() {
        let thumbnail = b"\xff\xe1\0\x08\xff\xda\0\x02\xff\xd9";
        let one = [b"\xff\xd8".as_slice(), thumbnail, b"\xff\xda\0\x02data\xff\xd9"].concat();
        assert!(!is_jpeg_of_many_scans(&one));
        let several = [&one[..one.len() - 2], b"\xff\xda\0\x02data\xff\xd9"].concat();
        assert!(is_jpeg_of_many_scans(&several) && is_jpeg_of_many_scans(&one[..5]));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(at: proptest::sample::Index, value: u8) {
            let mut bytes = b"P2 3 2 255\n0 51 255\n255 102 0\n".to_vec();
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..at]);
        }
    }
}
