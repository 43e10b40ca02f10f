//! Better tips than clap's, for what people type who know MLCube.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::flags_of;
use crate::cube::check::{self, CubeDescription, Program};
use crate::cube::directory::{CubeDir, FileFlag, PLATFORM, TASK};
use crate::text::{escaped, suggestion};

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
    let tips: Vec<String> = match error.kind() {
        ErrorKind::InvalidSubcommand if !of_cube => text(ContextKind::InvalidSubcommand)
            .filter(|name| OF_CUBE.contains(&&**name))
            .map(|name| format!("it is a command of the cube: mnist cube {name}"))
            .into_iter()
            .collect(),
        ErrorKind::UnknownArgument if of_cube => {
            let Some(flag) = text(ContextKind::InvalidArg).filter(|_| error.get(ContextKind::Suggested).is_some())
            else {
                return;
            };
            let is_similar = error.get(ContextKind::SuggestedArg).is_some();
            parameter(&flag, &words).filter(|_| !is_similar).into_iter().collect()
        }
        ErrorKind::MissingRequiredArgument if of_cube => {
            let missing = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(missing)) => missing.clone(),
                _ => vec![],
            };
            let mlcube = value("--mlcube", &words);
            let choices = choices(&missing, mlcube.unwrap_or("."));
            let mlcube = mlcube.map(|mlcube| format!(" --mlcube={mlcube}")).unwrap_or_default();
            let elsewhere =
                || vec![format!("the cube's tasks and platforms are listed by: mnist cube describe{mlcube}")];
            if choices.is_empty() { elsewhere() } else { choices }
        }
        _ => return,
    };
    if !tips.is_empty() {
        error.remove(ContextKind::SuggestedSubcommand);
        let tips = tips.into_iter().map(StyledStr::from).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    } else if error.kind() == ErrorKind::UnknownArgument {
        // `-- --name` would be no parameter.
        error.insert(ContextKind::Suggested, ContextValue::None);
    }
}

/// What the cube `mlcube` has for the flags that are `missing`; nothing if that cannot be read.
fn choices(missing: &[String], mlcube: &str) -> Vec<String> {
    let program = Program { flags_of: &flags_of, check_parameters: &|_| Ok(()) };
    let Ok(cube) = CubeDir::new(Path::new(mlcube), None) else { return vec![] };
    let Ok(CubeDescription { runs, platforms, .. }) = check::description(&cube, &program) else { return vec![] };
    let runs = if cube.configuration_2.is_some() { runs } else { cube.names_in(TASK.folder) };
    let of = |flag: &FileFlag, names: &[String]| {
        let flag = format!("--{}", flag.name);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let is_missing = missing.iter().any(|one| one.starts_with(&flag)) && !names.is_empty();
        is_missing.then(|| format!("{flag}: {}", escaped(&suggestion("", [], &names))))
    };
    [of(&PLATFORM, &platforms), of(&TASK, &runs)].into_iter().flatten().collect()
}

/// The value of a flag, with `=` or after it.
fn value<'a>(flag: &str, words: &'a [impl AsRef<str>]) -> Option<&'a str> {
    let mut words = words.iter().map(AsRef::as_ref);
    let rest =
        words.find_map(|word| word.strip_prefix(flag).filter(|rest| rest.is_empty() || rest.starts_with('=')))?;
    rest.strip_prefix('=').or_else(|| words.next().filter(|next| !next.starts_with('-')))
}

/// How the parameter of a task is written that was typed as a `flag`.
fn parameter(flag: &str, words: &[impl AsRef<str>]) -> Option<String> {
    let name = flag.strip_prefix("--").filter(|name| !["task", "platform"].contains(name))?;
    let value = value(flag, words).unwrap_or("PATH");
    Some(format!("parameters of tasks are written without hyphens: {name}={value}"))
}
