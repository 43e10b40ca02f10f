//! `mnist man`: writes the manual pages.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::files;
use crate::output::console;
use crate::text;

/// Writes a page for the program and one for each of its commands into `directory`, and prints their names.
///
/// # Errors
/// `directory` cannot be written.
pub fn run(directory: &Path) -> Result<()> {
    files::writable_directory(directory)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut written = vec![];
    write(program, directory, &mut written)?;
    console::print(&text::lines(written))
}

/// Writes the page of `command`, then those of the commands below it. `written` takes their paths.
fn write(command: Command, directory: &Path, written: &mut Vec<String>) -> Result<()> {
    let below: Vec<Command> = command.get_subcommands().filter(|below| !below.is_hide_set()).cloned().collect();
    // What the short help leaves out has no text in a page either.
    let man = Man::new(command.mut_args(|argument| argument.hide_short_help(false)));
    let path = directory.join(man.get_filename());
    let mut page = vec![];
    man.render(&mut page).map_err(Error::io("write", &path))?;
    files::write(&path, &page)?;
    written.push(path.display().to_string());
    below.into_iter().try_for_each(|command| write(command, directory, written))
}
