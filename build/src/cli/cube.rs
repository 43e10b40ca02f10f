//! The flags of `mnist cube`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::help::{
    AFTER_HELP, CUBE_CHECK_EXAMPLES, CUBE_CLEAN_EXAMPLES, CUBE_CONFIGURE_EXAMPLES, CUBE_DESCRIBE_EXAMPLES,
    CUBE_INSPECT_EXAMPLES, CUBE_RUN_EXAMPLES, CUBE_SHOW_CONFIG_EXAMPLES, with_examples,
};
use super::job::JobCommand;
use super::values::{path, text};
use crate::cube::configuration::{Override, TaskArgument};

/// `mnist cube`.
#[derive(Debug, Subcommand)]
pub enum Cube {
    /// Verify the cube's files: schemas, tasks, run configurations, parameters
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(CUBE_CHECK_EXAMPLES))]
    Check {
        /// The cube: its directory, or its file, such as mlcube.yaml
        #[arg(long, value_name = "DIR", value_parser = path(), default_value = ".")]
        mlcube: PathBuf,
    },
    /// Build or pull the image of a platform
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(CUBE_CONFIGURE_EXAMPLES))]
    Configure {
        /// Where the cube is.
        #[command(flatten)]
        cube: ConfigurationArgs,
        /// The platform file, or its name alone: docker for platforms/docker.yaml
        #[arg(long, value_name = "FILE", value_parser = path())]
        platform: PathBuf,
        /// Print the command instead of running it
        #[arg(long = "dry_run", alias = "dry-run")]
        dry_run: bool,
    },
    /// Run tasks where a platform file says, building the image if it is missing
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(CUBE_RUN_EXAMPLES))]
    Run {
        /// Where the cube is.
        #[command(flatten)]
        cube: ConfigurationArgs,
        /// The platform file, or its name alone: docker for platforms/docker.yaml
        #[arg(long, value_name = "FILE", value_parser = path())]
        platform: PathBuf,
        /// The run configuration, or its name alone: train for run/train.yaml; several with commas between run one after the other
        #[arg(long, value_name = "FILE", value_parser = path())]
        task: PathBuf,
        /// Print the command, or the manifest, instead of running it
        #[arg(long = "dry_run", alias = "dry-run", conflicts_with = "attach")]
        dry_run: bool,
        /// Kubernetes: leave the job in the cluster after a success
        #[arg(long)]
        keep: bool,
        /// ssh, Kubernetes: take up a task whose connection was lost
        #[arg(long)]
        attach: bool,
        /// Configuration 2.0: the value of a parameter of the tasks
        #[arg(value_name = "NAME=PATH", value_parser = text(TaskArgument::parse))]
        parameters: Vec<TaskArgument>,
    },
    /// Say what the cube is, its tasks with their inputs and outputs, and how to run them
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(CUBE_DESCRIBE_EXAMPLES))]
    Describe {
        /// Where the cube is.
        #[command(flatten)]
        cube: CubeArgs,
    },
    /// Print the effective configuration of a cube of configuration 2.0
    #[command(
        name = "show_config",
        alias = "show-config",
        after_help = AFTER_HELP,
        after_long_help = with_examples(CUBE_SHOW_CONFIG_EXAMPLES)
    )]
    ShowConfig {
        /// Where the cube is.
        #[command(flatten)]
        cube: ConfigurationArgs,
        /// docker or singularity, whose section becomes `runner`
        #[arg(long, value_name = "NAME", default_value = "docker")]
        platform: PathBuf,
        /// Put in the values of all ${...}
        #[arg(long)]
        resolve: bool,
        /// The value of a parameter of the tasks
        #[arg(value_name = "NAME=PATH", value_parser = text(TaskArgument::parse))]
        parameters: Vec<TaskArgument>,
    },
    /// Print the hash of the image of a platform
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(CUBE_INSPECT_EXAMPLES))]
    Inspect {
        /// Where the cube is.
        #[command(flatten)]
        cube: ConfigurationArgs,
        /// The platform file, or its name alone: docker for platforms/docker.yaml
        #[arg(long, value_name = "FILE", value_parser = path(), default_value = "docker")]
        platform: PathBuf,
    },
    /// Remove what earlier runs wrote into the workspace; parameters, data and your own files stay
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(CUBE_CLEAN_EXAMPLES))]
    Clean(CleanArgs),
    /// For a runner on another machine: a task that outlives its connection.
    #[command(subcommand, hide = true)]
    Job(JobCommand),
}

/// `mnist cube clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Where the cube is.
    #[command(flatten)]
    pub cube: CubeArgs,
    /// Remove the data too: the files of MNIST, or of its synthetic stand-in, whose hash is right
    #[arg(long)]
    pub data: bool,
    /// Remove without asking
    #[arg(long)]
    pub yes: bool,
    /// Only say what would be removed
    #[arg(long = "dry_run", alias = "dry-run")]
    pub dry_run: bool,
}

/// A cube and its workspace.
#[derive(Debug, Args)]
pub struct CubeArgs {
    /// The cube: its directory, or its file, such as mlcube.yaml
    #[arg(long, value_name = "DIR", value_parser = path(), default_value = ".")]
    pub mlcube: PathBuf,
    /// What $WORKSPACE stands for [default: the cube's workspace directory]
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub workspace: Option<PathBuf>,
}

/// The same, with changes of the cube's file.
#[derive(Debug, Args)]
pub struct ConfigurationArgs {
    /// Where the cube is.
    #[command(flatten)]
    pub place: CubeArgs,
    /// Configuration 2.0: a value in place of the file's, such as -Pdocker.image=a/b:c
    #[arg(short = 'P', short_alias = 'p', value_name = "KEY=VALUE", value_parser = text(Override::parse))]
    pub overrides: Vec<Override>,
}
