//! Flags and subcommands: what was typed, checked as far as that needs no disk. Does no work.

mod cube;
mod help;
mod job;
mod medperf;
mod tips;
mod values;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::exit;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{
    Arg, ArgMatches, Args, Command as ClapCommand, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};
use clap_complete::Shell;

pub use self::cube::{CleanArgs, ConfigurationArgs, Cube, CubeArgs};
use self::help::{
    AFTER_HELP, AFTER_SHORT_HELP, AUGMENT_EXAMPLES, COMPLETIONS_EXAMPLES, DEMO_EXAMPLES, DOWNLOAD_EXAMPLES,
    EVALUATE_EXAMPLES, MAN_EXAMPLES, PREDICT_EXAMPLES, SCHEMA_EXAMPLES, TRAIN_EXAMPLES, long_version, with_examples,
};
pub use self::job::JobCommand;
pub use self::medperf::{InferArgs, MedPerf, PrepareArgs, PreparedArgs, ScoreArgs, StatisticsArgs, VOLUMES};
use self::values::{count, path, url_or_path};
use crate::cube::check::TaskFlags;
use crate::output::console::{self, Verbosity};
use crate::parameters::Setting;
use crate::parameters::key::{Key, ValueKind};
use crate::parameters::table::KEYS;
use crate::text::{escaped, quoted, repeated};
use crate::workspace;

/// The program.
pub const NAME: &str = "mnist";

/// The MNIST MLCube as one native program: download the data, train a network, evaluate it.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Only warnings and errors on stderr; a task with a log file writes all of it there
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// On stderr too what else goes to a log file, if the task has one
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// The places in the workspace that no flag named.
    #[arg(skip)]
    pub by_default: Vec<String>,
}

impl Cli {
    /// How much stderr says.
    pub fn verbosity(&self) -> Verbosity {
        match self {
            Self { quiet: true, .. } => Verbosity::Quiet,
            Self { verbose: true, .. } => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// Reads this process's arguments. Where they are wrong, or ask for help, it says so and ends the process.
pub fn parse() -> Cli {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    parsed(&arguments).unwrap_or_else(|error| {
        // The message quotes the arguments. What is wrong with them is wrong without control characters too.
        let plain: Vec<OsString> =
            arguments.iter().map(|argument| escaped(&argument.to_string_lossy()).into_owned().into()).collect();
        let mut error = parsed(&plain).err().unwrap_or(error);
        tips::improve(&mut error, &plain);
        for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
            if let Some(ContextValue::String(found)) = error.get(kind) {
                let shown = repeated(&escaped(found));
                if shown != *found {
                    // A suggestion would repeat it once more.
                    error.insert(ContextKind::Suggested, ContextValue::None);
                    error.insert(kind, ContextValue::String(shown));
                }
            }
        }
        let printed = error.print();
        if !error.use_stderr()
            && let Err(failure) = console::written(printed)
        {
            // There is no console yet.
            _ = writeln!(io::stderr(), "error: {failure}");
            exit(1);
        }
        exit(error.exit_code())
    })
}

fn parsed(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = Cli::command().long_version(long_version());
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    let by_default = matches.subcommand().map(|(_, matches)| places_by_default(matches)).unwrap_or_default();
    let cli = Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    Ok(Cli { by_default, ..cli })
}

/// The places in the workspace that a task takes since no flag names others.
fn places_by_default(matches: &ArgMatches) -> Vec<String> {
    let place = |id: &clap::Id| {
        let by_default = matches.value_source(id.as_str()) == Some(ValueSource::DefaultValue);
        let value = matches.get_raw(id.as_str())?.next()?.to_str()?;
        value.strip_prefix(workspace::DIRECTORY).filter(|_| by_default).map(str::to_string)
    };
    matches.ids().filter_map(place).collect()
}

/// How this program was started, to be typed before a task.
pub fn started_as() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_else(|| "mnist".into());
    let by_cargo = std::env::var_os("CARGO").is_some() && path.components().any(|part| part.as_os_str() == "target");
    match path.parent().and_then(Path::file_name) {
        Some(profile) if by_cargo && profile == "release" => "cargo run --release --".into(),
        Some(profile) if by_cargo && profile == "debug" => "cargo run --".into(),
        _ => quoted(&path),
    }
}

/// The tasks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start here: download, train and evaluate in ./workspace, with one command
    Demo(Demo),
    /// Fetch the four files of MNIST, or draw a synthetic stand-in
    Download(Download),
    /// Train a network and write the model
    Train(Train),
    /// Score a trained model on the test set
    Evaluate(Evaluate),
    /// Say which digits images show
    Predict(Predict),
    /// Draw a sheet of training images as `augment` distorts them
    Augment(Augment),
    /// List what could be trained on
    #[command(after_help = AFTER_HELP)]
    Devices,
    /// Print the JSON Schema of a file, for editors and for programs that check it
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(SCHEMA_EXAMPLES))]
    Schema {
        /// The kind of file
        #[arg(value_enum, value_name = "KIND")]
        file: SchemaOf,
    },
    /// Print what a shell needs to complete the command line
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(COMPLETIONS_EXAMPLES))]
    Completions {
        /// The shell
        #[arg(value_enum, value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(MAN_EXAMPLES))]
    Man {
        /// Where they go
        #[arg(value_name = "DIR", value_parser = path())]
        directory: PathBuf,
    },
    /// Work with the cube: the directory with mlcube.yaml
    #[command(subcommand, after_help = AFTER_HELP)]
    Cube(Cube),
    /// Be a container of MedPerf: prepare data, infer, evaluate
    #[command(name = "medperf", subcommand, after_help = AFTER_HELP)]
    MedPerf(MedPerf),
}

/// The files that have a schema.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SchemaOf {
    /// A parameters file for `mnist train`
    Parameters,
    /// The metrics.json of `mnist train` and `mnist evaluate`
    Metrics,
}

/// `mnist download`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, after_long_help = with_examples(DOWNLOAD_EXAMPLES))]
pub struct Download {
    /// Where the data goes; files that are there and right are used
    #[arg(long = "data_dir", alias = "data-dir", value_name = "DIR", value_parser = path(), default_value = workspace::DATA)]
    pub data_dir: PathBuf,
    /// Where the log files go
    #[arg(long = "log_dir", alias = "log-dir", value_name = "DIR", value_parser = path(), default_value = workspace::DOWNLOAD_LOGS)]
    pub log_dir: PathBuf,
    /// A mirror to try first, a URL or a directory; may be given more than once [env: MNIST_MIRROR]
    #[arg(long = "mirror", value_name = "URL_OR_DIR", value_parser = url_or_path())]
    pub mirrors: Vec<OsString>,
    /// Draw a stand-in of 70,000 synthetic digits instead; needs no network
    #[arg(long, conflicts_with = "mirrors")]
    pub synthetic: bool,
}

/// `mnist train`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_SHORT_HELP, after_long_help = with_examples(TRAIN_EXAMPLES))]
pub struct Train {
    /// Where the data is
    #[arg(long = "data_dir", alias = "data-dir", value_name = "DIR", value_parser = path(), default_value = workspace::DATA)]
    pub data_dir: PathBuf,
    /// Where the log files go
    #[arg(long = "log_dir", alias = "log-dir", value_name = "DIR", value_parser = path(), default_value = workspace::TRAIN_LOGS)]
    pub log_dir: PathBuf,
    /// Where the model goes, with its metrics and parameters
    #[arg(long = "model_dir", alias = "model-dir", value_name = "DIR", value_parser = path(), default_value = workspace::MODEL)]
    pub model_dir: PathBuf,
    /// The parameters, as YAML
    #[arg(long = "parameters_file", alias = "parameters-file", value_name = "FILE", value_parser = path(), default_value = workspace::PARAMETERS)]
    pub parameters_file: PathBuf,
    /// Go on from the newest snapshot in MODEL_DIR; without one, begin anew
    #[arg(long)]
    pub resume: bool,
    /// Begin with the weights of this model: an earlier MODEL_DIR, or the model.safetensors in it
    #[arg(long, alias = "model_in", alias = "model-in", value_name = "DIR", value_parser = path())]
    pub init: Option<PathBuf>,
    /// Parameters given as flags.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// `mnist evaluate`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, after_long_help = with_examples(EVALUATE_EXAMPLES))]
pub struct Evaluate {
    /// Where the data is
    #[arg(long = "data_dir", alias = "data-dir", value_name = "DIR", value_parser = path(), default_value = workspace::DATA)]
    pub data_dir: PathBuf,
    /// Where the log files and metrics.json go
    #[arg(long = "log_dir", alias = "log-dir", value_name = "DIR", value_parser = path(), default_value = workspace::EVALUATE_LOGS)]
    pub log_dir: PathBuf,
    /// Where the model is
    #[arg(long = "model_dir", alias = "model-dir", value_name = "DIR", value_parser = path(), default_value = workspace::MODEL)]
    pub model_dir: PathBuf,
}

/// `mnist predict`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, after_long_help = with_examples(PREDICT_EXAMPLES))]
pub struct Predict {
    /// Where the model is
    #[arg(long = "model_dir", alias = "model-dir", value_name = "DIR", value_parser = path(), default_value = workspace::MODEL)]
    pub model_dir: PathBuf,
    /// Answer with one JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,
    /// Fail if any answer is doubtful
    #[arg(long)]
    pub strict: bool,
    /// Write what the network sees of each image into this directory, as IMAGE.28x28.png
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub show: Option<PathBuf>,
    /// PNG, JPEG, GIF, BMP or PGM of one digit each, at least 8 x 8 pixels, dark on light or light on dark; - reads one from stdin
    #[arg(value_name = "IMAGE", required = true, value_parser = path())]
    pub images: Vec<PathBuf>,
}

/// `mnist augment`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_SHORT_HELP, after_long_help = with_examples(AUGMENT_EXAMPLES))]
pub struct Augment {
    /// Where the data is
    #[arg(long = "data_dir", alias = "data-dir", value_name = "DIR", value_parser = path(), default_value = workspace::DATA)]
    pub data_dir: PathBuf,
    /// How many images the sheet has, ten a row: an original, then its copies in the first nine epochs
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = count)]
    pub count: usize,
    /// Where the sheet goes, a PNG
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub out: PathBuf,
    /// The parameters, as YAML; without it, the defaults
    #[arg(long = "parameters_file", alias = "parameters-file", value_name = "FILE", value_parser = path())]
    pub parameters_file: Option<PathBuf>,
    /// Parameters given as flags.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// `mnist demo`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_SHORT_HELP, after_long_help = with_examples(DEMO_EXAMPLES))]
pub struct Demo {
    /// A mirror to try first, a URL or a directory; may be given more than once [env: MNIST_MIRROR]
    #[arg(long = "mirror", value_name = "URL_OR_DIR", value_parser = url_or_path())]
    pub mirrors: Vec<OsString>,
    /// Parameters given as flags.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// Parameters given as flags, which take precedence over the file's.
#[derive(Debug, Clone, Default)]
pub struct Overrides(pub Vec<Setting>);

impl Args for Overrides {
    fn augment_args(command: ClapCommand) -> ClapCommand {
        command.next_help_heading("Parameters, instead of the file's").args(KEYS.iter().map(argument))
    }
    fn augment_args_for_update(command: ClapCommand) -> ClapCommand {
        Self::augment_args(command)
    }
}

fn argument(key: &'static Key) -> Arg {
    let parser = move |text: &str| Setting::from_flag(key, text);
    let values = match key.kind {
        ValueKind::Text { .. } | ValueKind::Truth { .. } => String::new(), // they stand in the help
        _ => format!(" [values: {}]", key.expected()),
    };
    let help = format!("{}{values} [default: {}]", key.help, key.default());
    let hyphens = key.name.replace('_', "-");
    Arg::new(key.name)
        .long(key.name)
        .value_name(key.value_name())
        .help(help)
        .hide_short_help(true)
        .value_parser(ValueParser::new(parser))
        .visible_aliases(key.synonym)
        .aliases((hyphens != key.name).then_some(hyphens))
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(KEYS.iter().filter_map(|key| matches.get_one::<Setting>(key.name)).cloned().collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flags of a task; none if there is no such task. A cube must give those without which the task does not run, or would
/// use a place in the current directory.
pub fn flags_of(task: &str) -> Option<TaskFlags> {
    let command = Cli::command();
    let task = command.find_subcommand(task)?;
    let is_place = |argument: &Arg| {
        let default = argument.get_default_values().first().and_then(|default| default.to_str());
        default.is_some_and(|default| default.starts_with(workspace::DIRECTORY))
    };
    let names = |only_required: bool| {
        let is_meant = |argument: &&Arg| !only_required || argument.is_required_set() || is_place(argument);
        task.get_arguments().filter(is_meant).filter_map(|argument| argument.get_long().map(String::from)).collect()
    };
    Some(TaskFlags { all: names(false), required: names(true) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_parameter_is_a_flag_of_train() {
        let flags = flags_of("train").unwrap();
        for key in &KEYS {
            assert!(flags.all.iter().any(|flag| flag == key.name), "{}", key.name);
            assert!(!flags.required.iter().any(|flag| flag == key.name), "{}", key.name);
        }
        assert_eq!(flags_of("trian"), None);
    }

    #[test]
    fn every_path_may_begin_with_the_home_directory() {
        let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) else {
            return eprintln!("skipped: no environment variable HOME");
        };
        let lines = [
            "download --data_dir=~/a --log_dir=~/b --mirror=~/c",
            "train --data_dir ~/a --log_dir ~/b --model_dir ~/c --parameters_file ~/d --init ~/e",
            "evaluate --data_dir=~/a --log_dir=~/b --model_dir=~/c",
            "predict --model_dir=~/a --show=~/b ~",
            "augment --data_dir=~/a --out=~/b --parameters_file=~/c",
            "demo --mirror=~/a",
            "man ~/a",
            "cube check --mlcube=~/a",
            "cube configure --mlcube=~/a --workspace=~/b --platform=~/c",
            "cube run --mlcube=~/a --workspace=~/b --platform=~/c --task=~/d",
            "cube clean --mlcube=~/a --workspace=~/b",
            "cube describe --mlcube=~/a --workspace=~/b",
            "cube show_config --mlcube=~/a --workspace=~/b",
            "cube inspect --mlcube=~/a --workspace=~/b --platform=~/c",
            "medperf prepare --data_path=~/a --labels_path=~/b --output_path=~/c --output_labels_path=~/d",
            "medperf sanity_check --data_path=~/a --labels_path=~/b",
            "medperf statistics --data_path=~/a --labels_path=~/b --output_path=~/c",
            "medperf infer --data_path=~/a --additional_files=~/b --output_path=~/c",
            "medperf evaluate --predictions=~/a --labels=~/b --output_path=~/c",
        ];
        for line in lines {
            let cli = Cli::try_parse_from(["mnist"].into_iter().chain(line.split(' '))).unwrap();
            let parsed = format!("{cli:?}");
            let found = parsed.matches(&format!("{home:?}").trim_matches('"')).count();
            assert!(!parsed.contains('~') && found == line.matches('~').count(), "{parsed}");
        }

        fn paths(command: &ClapCommand) -> usize {
            let is_path = |argument: &&Arg| {
                let names = argument.get_value_names().unwrap_or_default();
                names.iter().any(|name| ["DIR", "FILE", "IMAGE", "URL_OR_DIR"].contains(&name.as_str()))
            };
            let typed = command.get_subcommands().filter(|command| !command.is_hide_set());
            command.get_arguments().filter(is_path).count() + typed.map(paths).sum::<usize>()
        }
        assert_eq!(paths(&Cli::command()), lines.concat().matches('~').count(), "a path is not in these lines");
    }

    #[test]
    fn every_command_has_examples_that_can_be_typed_and_fit_a_terminal() {
        fn examples(command: &ClapCommand, found: &mut Vec<(String, String)>) {
            let typed = |command: &&ClapCommand| !command.is_hide_set() && command.get_name() != "help";
            for command in command.get_subcommands().filter(typed) {
                let name = command.get_display_name().unwrap_or(command.get_name()).replace('-', " ");
                if command.has_subcommands() {
                    examples(command, found);
                } else {
                    let help = command.get_after_long_help().map(|help| help.to_string()).unwrap_or_default();
                    let text = help.split("\n\n").next().unwrap_or_default().to_string();
                    found.push((name, text));
                }
            }
        }
        let mut command = Cli::command();
        command.build();
        let mut found = vec![];
        examples(&command, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for (name, text) in found.iter().filter(|(name, _)| name != "mnist devices") {
            assert!(text.starts_with("Examples:\n"), "{name}: {text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
            let text = text.replace(" \\\n", " ");
            for line in text.lines().filter_map(|line| line.split('|').next_back()?.trim().strip_prefix("mnist ")) {
                let words = line.split(" >").next().unwrap_or_default().split_whitespace();
                if let Err(error) = Cli::try_parse_from(["mnist"].into_iter().chain(words)) {
                    panic!("{name}: {line}: {error}");
                }
                assert!(format!("mnist {line} ").starts_with(&format!("{name} ")), "{name}: {line}");
            }
        }
    }

    #[test]
    fn flags_are_taken_in_both_spellings_and_override() {
        let line = "mnist train --data-dir d --log_dir=l --model-dir=m --parameters_file p --batch-size 8 \
                    --hidden_layers=64,32 --epochs 2";
        let Command::Train(train) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else { panic!() };
        let expected =
            Parameters { batch_size: 8, hidden_layers: vec![64, 32], train_epochs: 2, ..Parameters::default() };
        assert_eq!(Parameters::resolve(&train.overrides.0), Ok(expected));
    }
}
