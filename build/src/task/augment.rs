//! `mnist augment`: draws a sheet of training images as the parameters distort them.

use std::path::Path;

use crate::cli::Augment;
use crate::data::augment::Warper;
use crate::data::augment::sheet::Sheet;
use crate::data::dataset::Dataset;
use crate::data::picture;
use crate::error::{Error, Result};
use crate::files;
use crate::interrupt;
use crate::output::console;
use crate::parameters::Parameters;
use crate::simd::InstructionSet;
use crate::text::{self, Problem};

/// Images in a row: an original and nine copies.
const COLUMNS: usize = 10;

/// Writes the sheet, and prints what is on it.
///
/// # Errors
/// The parameters distort nothing or are wrong, the data is, or the file cannot be written.
pub fn run(args: &Augment) -> Result<()> {
    check_name(&args.out)?;
    let flags = &args.overrides.0;
    let parameters = match &args.parameters_file {
        Some(path) => Parameters::read(path, flags)?,
        None => Parameters::of_flags(flags)?,
    };
    let augmentation = parameters.augmentation().ok_or_else(|| nothing_to_see(args))?;
    let mut dataset = Dataset::load(&args.data_dir)?;
    // An image's number in what is left is part of its random numbers' seed.
    dataset.split(parameters.validation)?;
    let train = &*dataset.train;
    let warper = Warper::new(augmentation, train.side, parameters.seed, InstructionSet::choose()?);
    let sheet = Sheet::new(&warper, train, args.count, COLUMNS);
    interrupt::check()?;
    files::write_named(&args.out, &picture::png(&sheet.pixels, sheet.width))?;
    let Sheet { images, originals, .. } = sheet;
    console::print(&text::named_values(&[
        ("sheet", args.out.display().to_string()),
        ("images", format!("{images}, in rows of {COLUMNS}")),
        ("first column", format!("{originals} of the {} training images", text::grouped(train.len()))),
        ("the others", format!("their copies in epochs 1 to {}: {}", COLUMNS - 1, augmentation.in_words())),
    ]))
}

/// The sheet is a PNG, whatever its name says.
fn check_name(out: &Path) -> Result<()> {
    let is_png = out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    if is_png {
        return Ok(());
    }
    let (given, expected, found) = (out.to_path_buf(), "a file whose name ends in .png", "another name");
    Err(Error::Argument { flag: "out", given, expected, found, next: None })
}

/// The parameters have no distortions.
fn nothing_to_see(args: &Augment) -> Error {
    let problem = "augment: expected affine, elastic or both, found none".to_owned();
    let by_flag = args.overrides.0.iter().any(|setting| setting.key.name == "augment");
    match &args.parameters_file {
        Some(path) if !by_flag => {
            Error::ParametersFile { path: path.clone(), problems: vec![Problem::of_file(problem)] }
        }
        Some(_) => Error::ParameterFlags { file: None, problem },
        None => {
            Error::ParameterFlags { file: None, problem: problem + ": add --augment=both, or --parameters_file=PATH" }
        }
    }
}
