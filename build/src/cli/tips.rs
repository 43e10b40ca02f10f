//! Better tips than clap's, for what people type who know MLCube.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The commands of `mnist cube` that are none of `mnist`.
const OF_CUBE: [&str; 5] = ["run", "configure", "describe", "show_config", "inspect"];

/// Puts the right tip into `error`, which `arguments` led to.
pub fn improve(error: &mut clap::Error, arguments: &[OsString]) {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let words: Vec<_> = arguments.iter().skip(1).map(|argument| argument.to_string_lossy()).collect();
    let mut named = words.iter().filter(|word| !word.starts_with('-'));
    let of_cube = named.next().is_some_and(|word| word == "cube");
    let tip = match error.kind() {
        ErrorKind::InvalidSubcommand if !of_cube => text(ContextKind::InvalidSubcommand)
            .filter(|name| OF_CUBE.contains(&&**name))
            .map(|name| format!("it is a command of the cube: mnist cube {name}")),
        ErrorKind::UnknownArgument if of_cube => {
            let Some(flag) = text(ContextKind::InvalidArg).filter(|_| error.get(ContextKind::Suggested).is_some())
            else {
                return;
            };
            let is_similar = error.get(ContextKind::SuggestedArg).is_some();
            parameter(&flag, &words).filter(|_| !is_similar)
        }
        ErrorKind::MissingRequiredArgument if of_cube => {
            let mlcube = words.iter().find(|word| word.starts_with("--mlcube=")).map(|word| format!(" {word}"));
            Some(format!(
                "the cube's tasks and platforms are listed by: mnist cube describe{}",
                mlcube.unwrap_or_default()
            ))
        }
        _ => return,
    };
    match tip {
        Some(tip) => {
            error.remove(ContextKind::SuggestedSubcommand);
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
        }
        // `-- --name` would be no parameter.
        None if error.kind() == ErrorKind::UnknownArgument => {
            error.insert(ContextKind::Suggested, ContextValue::None);
        }
        None => {}
    }
}

/// How the parameter of a task is written that was typed as a `flag`.
fn parameter(flag: &str, words: &[impl AsRef<str>]) -> Option<String> {
    let name = flag.strip_prefix("--").filter(|name| !["task", "platform"].contains(name))?;
    let mut words = words.iter().map(AsRef::as_ref);
    let value =
        words.find_map(|word| word.strip_prefix(flag).filter(|rest| rest.is_empty() || rest.starts_with('=')))?;
    let value = match value.strip_prefix('=') {
        Some(value) => value,
        None => words.next().filter(|next| !next.starts_with('-')).unwrap_or("PATH"),
    };
    Some(format!("parameters of tasks are written without hyphens: {name}={value}"))
}
