//! Better tips than clap's, for what people type who know MLCube.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::flags_of;
use crate::cube::check::{self, CubeDescription, Program};
use crate::cube::directory::{CubeDir, FileFlag, PLATFORM, TASK};
use crate::error::Result;
use crate::parameters::table::KEYS;
use crate::text::{escaped, quoted, suggestion};

/// The commands of `mnist cube` that are none of `mnist`.
const OF_CUBE: [&str; 5] = ["run", "configure", "describe", "show_config", "inspect"];

/// The commands of `mnist` whose flags are easily given to another one.
const TASKS: [&str; 5] = ["download", "train", "evaluate", "predict", "augment"];

/// This program, as far as a tip depends on it.
const PROGRAM: Program = Program { flags_of: &flags_of, check_parameters: &|_| Ok(()) };

/// Puts the right tip into `error`, which `arguments` led to.
pub fn improve(error: &mut clap::Error, arguments: &[OsString]) {
    underscore(error);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let words: Vec<_> = arguments.iter().skip(1).map(|argument| argument.to_string_lossy()).collect();
    let command = words.iter().find(|word| !word.starts_with('-'));
    let of_cube = command.is_some_and(|word| word == "cube");
    let mlcube = value("--mlcube", &words);
    let tips: Vec<String> = match error.kind() {
        ErrorKind::InvalidSubcommand if !of_cube => text(ContextKind::InvalidSubcommand)
            .map(|name| name.replace('-', "_"))
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
            parameter(&flag, &words, mlcube.unwrap_or(".")).filter(|_| !is_similar).into_iter().collect()
        }
        ErrorKind::MissingRequiredArgument if of_cube => {
            let missing = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(missing)) => missing.clone(),
                _ => vec![],
            };
            if let (true, Err(no_cube)) = (missing.iter().any(|one| one.starts_with("--")), cube(mlcube.unwrap_or(".")))
            {
                let hint = no_cube.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
                *error = clap::Error::raw(error.kind(), format!("{no_cube}\n{hint}"));
                return;
            }
            let choices = choices(&missing, mlcube.unwrap_or("."));
            let mlcube = mlcube.map(|mlcube| format!(" --mlcube={mlcube}")).unwrap_or_default();
            let elsewhere =
                || vec![format!("the cube's tasks and platforms are listed by: mnist cube describe{mlcube}")];
            if choices.is_empty() { elsewhere() } else { choices }
        }
        ErrorKind::UnknownArgument
            if [ContextKind::SuggestedArg, ContextKind::Suggested].iter().all(|kind| error.get(*kind).is_none()) =>
        {
            let argument = text(ContextKind::InvalidArg).unwrap_or_default();
            match other_commands(&argument, command).or_else(|| with_commas(&argument, &words)) {
                Some(tip) => vec![tip],
                None => return,
            }
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

/// The commands that have the flag `typed`; nothing if there are none, or if the one that was `called` has it.
fn other_commands(typed: &str, called: Option<impl AsRef<str>>) -> Option<String> {
    let name = typed.strip_prefix("--")?.replace('-', "_");
    let has = |command: &str| flags_of(command).is_some_and(|flags| flags.all.contains(&name));
    if called.is_some_and(|called| has(called.as_ref())) {
        return None;
    }
    let commands = TASKS.iter().filter(|command| has(command)).map(|command| format!("mnist {command}"));
    let commands: Vec<_> = commands.collect();
    (!commands.is_empty()).then(|| format!("--{name} is a flag of {}", commands.join(" and ")))
}

/// How widths are written that stood apart from each other; clap has refused one of them, as it was `typed`.
fn with_commas(typed: &str, words: &[impl AsRef<str>]) -> Option<String> {
    let number = |word: &str| word.trim_end_matches(',').parse::<u32>().ok();
    let places = words.iter().enumerate().filter(|(_, word)| word.as_ref() == typed);
    places.map(|(at, _)| at).find_map(|at| {
        let flag = words[..at].iter().rposition(|word| word.as_ref().starts_with('-'))?;
        let word = words[flag].as_ref();
        let (name, first) = word.split_once('=').map_or((word, None), |(name, first)| (name, Some(first)));
        let after = words[flag + 1..].iter().map(AsRef::as_ref).map_while(number);
        let widths: Vec<_> = first.and_then(number).into_iter().chain(after).map(|width| width.to_string()).collect();
        let is_meant = name.replace('-', "_") == "__hidden_layers" && flag + widths.len() >= at;
        is_meant.then(|| format!("widths are separated by commas: --hidden_layers={}", widths.join(",")))
    })
}

/// What the cube `mlcube` has for the flags that are `missing`; nothing if that cannot be read.
fn choices(missing: &[String], mlcube: &str) -> Vec<String> {
    let Ok(cube) = cube(mlcube) else { return vec![] };
    let Ok(CubeDescription { runs, platforms, .. }) = check::description(&cube, &PROGRAM) else { return vec![] };
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

/// Where in the cube `mlcube`, or else outside, what was typed as a `flag` belongs; nothing if that is not known.
fn parameter(flag: &str, words: &[impl AsRef<str>], mlcube: &str) -> Option<String> {
    let typed = flag.strip_prefix("--").filter(|name| !["task", "platform"].contains(name))?;
    let value = value(flag, words);
    let cube = cube(mlcube).ok()?;
    let CubeDescription { is_ours, tasks, .. } = check::description(&cube, &PROGRAM).ok()?;
    let is_one_file = cube.configuration_2.is_some();
    if tasks.iter().any(|(_, parameters)| parameters.iter().flatten().any(|name| name == typed)) {
        return Some(match is_one_file {
            true => format!("parameters of tasks are written without hyphens: {typed}={}", value.unwrap_or("PATH")),
            false => {
                let written = format!("{typed}: {}", value.unwrap_or("VALUE"));
                format!("write it into the run configuration, the file of --task, as `{written}`")
            }
        });
    }
    let name = typed.replace('-', "_");
    if !is_ours {
        return None;
    }
    if KEYS.iter().any(|key| key.name == name || key.synonym == Some(&name)) {
        let file = if is_one_file { "the cube's file" } else { "the run configuration" };
        let value = value.unwrap_or("VALUE");
        return Some(format!("write `{name}: {value}` into the parameters file that {file} names"));
    }
    let has = |task: &&String| flags_of(task).is_some_and(|flags| flags.all.contains(&name));
    let task = tasks.iter().map(|(task, _)| task).find(has)?;
    let value = value.map(|value| format!("={}", quoted(Path::new(value)))).unwrap_or_default();
    Some(format!("no task of the cube has this parameter; outside the cube there is: mnist {task} --{name}{value}"))
}

fn cube(mlcube: &str) -> Result<CubeDir> {
    CubeDir::new(Path::new(mlcube), None)
}

/// Writes the names that clap found similar as the help writes them: those with hyphens are taken too.
fn underscore(error: &mut clap::Error) {
    let written = |name: &str| {
        let hyphens = name.len() - name.trim_start_matches('-').len();
        format!("{}{}", &name[..hyphens], name[hyphens..].replace('-', "_"))
    };
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand] {
        let name = match error.get(kind) {
            Some(ContextValue::String(name)) => ContextValue::String(written(name)),
            Some(ContextValue::Strings(names)) => {
                let mut names: Vec<String> = names.iter().map(|name| written(name)).collect();
                names.dedup();
                ContextValue::Strings(names)
            }
            _ => continue,
        };
        error.insert(kind, name);
    }
}
