//! `mnist medperf statistics`: numbers about prepared data, for MedPerf's server. They hold no image and no label of one.

use std::collections::BTreeMap;

use serde::Serialize;
use tracing::info;

use super::{output, prepared};
use crate::cli::StatisticsArgs;
use crate::data::sets::MNIST;
use crate::error::Result;
use crate::files;
use crate::output::console;

/// The first of [`DataStatistics`], by which an earlier file is known.
const FIRST_KEY: &str = "num_cases";

/// The file's contents; the first two names are those of MedPerf's tutorial.
#[derive(Debug, Serialize)]
struct DataStatistics {
    num_cases: usize,
    /// The images of each class.
    labels_count: BTreeMap<&'static str, usize>,
    /// Height and width.
    image_size: [usize; 2],
    pixels: PixelStatistics,
    /// The id of the known set that the images are, or `unknown`.
    source: &'static str,
}

/// Of all pixels, from 0 (black) to 1 (white).
#[derive(Debug, PartialEq, Serialize)]
struct PixelStatistics {
    mean: f64,
    standard_deviation: f64,
}

/// Runs the task, and prints what it writes.
///
/// # Errors
/// The data is missing or damaged, or the file cannot be written or would replace anything but an earlier one.
pub fn run(args: &StatisticsArgs) -> Result<()> {
    let (data_path, labels_path) = (&args.prepared.data_path, &args.prepared.labels_path);
    output::begin(&args.output_path, [data_path, labels_path], FIRST_KEY)?;
    let (images, labels) = prepared::read(data_path, labels_path)?;
    let count = |class| labels.labels.iter().filter(|label| usize::from(**label) == class).count();
    let statistics = DataStatistics {
        num_cases: labels.labels.len(),
        labels_count: prepared::classes().iter().enumerate().map(|(class, name)| (*name, count(class))).collect(),
        image_size: [MNIST.frame.side; 2],
        pixels: pixel_statistics(&images.bytes),
        source: prepared::source(&images.sha256).id(),
    };
    let yaml = serde_yaml::to_string(&statistics).unwrap_or_else(|e| unreachable!("fields become YAML: {e}"));
    files::write_mounted(&args.output_path, yaml.as_bytes())?;
    info!("statistics: {}", args.output_path.display());
    console::print(&yaml)
}

/// Sums are whole numbers, so that they do not depend on an order.
fn pixel_statistics(pixels: &[u8]) -> PixelStatistics {
    let count = pixels.len() as f64;
    let sum = |power| pixels.iter().map(|pixel| u64::from(*pixel).pow(power)).sum::<u64>() as f64;
    let mean = sum(1) / count;
    let variance = sum(2) / count - mean * mean;
    PixelStatistics { mean: mean / 255.0, standard_deviation: variance.max(0.0).sqrt() / 255.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_described_by_mean_and_standard_deviation() {
        let of = |mean, standard_deviation| PixelStatistics { mean, standard_deviation };
        assert_eq!(pixel_statistics(&[255; 9]), of(1.0, 0.0));
        assert_eq!(pixel_statistics(&[0, 255]), of(0.5, 0.5));
        assert_eq!(pixel_statistics(&[51, 51, 51, 255]), of(0.4, 12.0f64.sqrt() / 10.0));
    }
}
