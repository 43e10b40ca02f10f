//! `mnist medperf sanity_check`: is prepared data whole, do images and labels belong together, and can they be scored?

use tracing::warn;

use super::prepared;
use crate::cli::PreparedArgs;
use crate::error::Result;
use crate::files;
use crate::output::console;
use crate::text;

/// Runs the task and says what was checked.
///
/// # Errors
/// The data is missing or damaged, an image is blank, or labels lie where a model sees them.
pub fn run(args: &PreparedArgs) -> Result<()> {
    let (images, labels) = prepared::read(&args.data_path, &args.labels_path)?;
    let is_blank = |image: &[u8]| image.iter().all(|pixel| *pixel == image[0]);
    let blank = images.bytes.chunks_exact(prepared::inputs()).enumerate().filter(|(_, image)| is_blank(image));
    let blank: Vec<usize> = blank.map(|(index, _)| index).collect();
    if let Some(first) = blank.first() {
        let count = text::counted(blank.len(), "image");
        let problem = format!("expected images that show something, found {count} of one shade, the first at {first}");
        return Err(prepared::fault(&args.data_path.join(prepared::IMAGES), problem));
    }
    let below = files::lies_in(&args.labels_path, &args.data_path);
    let directory = if below { &args.labels_path } else { &args.data_path };
    let exposed = directory.join(prepared::LABELS);
    if exposed.exists() {
        let problem = "expected no labels in the directory of the images, where a model sees them";
        return Err(prepared::fault(&exposed, problem));
    }
    let absent = |class: &usize| !labels.labels.iter().any(|label| usize::from(*label) == *class);
    for class in (0..prepared::classes().len()).filter(absent) {
        warn!("no image shows a {}", prepared::classes()[class]);
    }
    console::print(&format!("{}: whole\n", text::counted(labels.labels.len(), "image")))
}
