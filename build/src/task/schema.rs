//! `mnist schema`: prints the JSON Schema of a file.

use crate::cli::SchemaOf;
use crate::error::Result;
use crate::output::{console, metrics};
use crate::parameters::schema;

/// Prints the schema.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(file: SchemaOf) -> Result<()> {
    let schema = match file {
        SchemaOf::Parameters => schema::schema(),
        SchemaOf::Metrics => metrics::schema(),
    };
    console::print(&format!("{schema:#}\n"))
}
