//! The tasks that MedPerf runs in containers. Each flag has the name of a volume in MedPerf's container_config.yaml, and
//! the place where MedPerf mounts it by default.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::help::{
    AFTER_HELP, INFER_EXAMPLES, PREPARE_EXAMPLES, SANITY_CHECK_EXAMPLES, SCORE_EXAMPLES, STATISTICS_EXAMPLES,
    with_examples,
};
use super::values::path;

/// What MedPerf mounts its volumes below.
pub const VOLUMES: &str = "/mlcommons/volumes";
const DATA: &str = "/mlcommons/volumes/data";
const LABELS: &str = "/mlcommons/volumes/labels";
const PREDICTIONS: &str = "/mlcommons/volumes/predictions";

/// `mnist medperf`.
#[derive(Debug, Subcommand)]
pub enum MedPerf {
    /// Data preparation: turn raw images and labels into prepared data
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(PREPARE_EXAMPLES))]
    Prepare(PrepareArgs),
    /// Data preparation: check that prepared data is whole
    #[command(
        name = "sanity_check",
        alias = "sanity-check",
        after_help = AFTER_HELP,
        after_long_help = with_examples(SANITY_CHECK_EXAMPLES)
    )]
    SanityCheck(PreparedArgs),
    /// Data preparation: describe prepared data in numbers, as YAML
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(STATISTICS_EXAMPLES))]
    Statistics(StatisticsArgs),
    /// Model: classify prepared images
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(INFER_EXAMPLES))]
    Infer(InferArgs),
    /// Evaluator: score predictions, as YAML
    #[command(after_help = AFTER_HELP, after_long_help = with_examples(SCORE_EXAMPLES))]
    Evaluate(ScoreArgs),
}

impl MedPerf {
    /// The task's name, and its flags with their paths.
    pub fn volumes(&self) -> (&'static str, Vec<(&'static str, &Path)>) {
        match self {
            Self::Prepare(PrepareArgs { data_path, labels_path, output_path, output_labels_path }) => {
                let volumes: [(_, &Path); 4] = [
                    ("data_path", data_path),
                    ("labels_path", labels_path),
                    ("output_path", output_path),
                    ("output_labels_path", output_labels_path),
                ];
                ("prepare", volumes.into())
            }
            Self::SanityCheck(args) => ("sanity_check", args.volumes()),
            Self::Statistics(StatisticsArgs { prepared, output_path }) => {
                ("statistics", [prepared.volumes(), vec![("output_path", output_path)]].concat())
            }
            Self::Infer(InferArgs { data_path, additional_files, output_path }) => (
                "infer",
                vec![("data_path", data_path), ("additional_files", additional_files), ("output_path", output_path)],
            ),
            Self::Evaluate(ScoreArgs { predictions, labels, output_path }) => {
                ("evaluate", vec![("predictions", predictions), ("labels", labels), ("output_path", output_path)])
            }
        }
    }
}

impl PreparedArgs {
    fn volumes(&self) -> Vec<(&'static str, &Path)> {
        vec![("data_path", &self.data_path), ("labels_path", &self.labels_path)]
    }
}

/// `mnist medperf prepare`.
#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// The raw images: t10k-images-idx3-ubyte, plain or gzipped, or pictures of one digit each
    #[arg(long = "data_path", alias = "data-path", value_name = "DIR", value_parser = path(), default_value = "/mlcommons/volumes/raw_data")]
    pub data_path: PathBuf,
    /// The raw labels: t10k-labels-idx1-ubyte, plain or gzipped, or labels.csv with a line FILE,LABEL for each picture
    #[arg(long = "labels_path", alias = "labels-path", value_name = "DIR", value_parser = path(), default_value = "/mlcommons/volumes/raw_labels")]
    pub labels_path: PathBuf,
    /// Where the prepared images go
    #[arg(long = "output_path", alias = "output-path", value_name = "DIR", value_parser = path(), default_value = DATA)]
    pub output_path: PathBuf,
    /// Where the prepared labels go
    #[arg(long = "output_labels_path", alias = "output-labels-path", value_name = "DIR", value_parser = path(), default_value = LABELS)]
    pub output_labels_path: PathBuf,
}

/// Prepared data: `mnist medperf sanity_check`.
#[derive(Debug, Args)]
pub struct PreparedArgs {
    /// The prepared images
    #[arg(long = "data_path", alias = "data-path", value_name = "DIR", value_parser = path(), default_value = DATA)]
    pub data_path: PathBuf,
    /// The prepared labels
    #[arg(long = "labels_path", alias = "labels-path", value_name = "DIR", value_parser = path(), default_value = LABELS)]
    pub labels_path: PathBuf,
}

/// `mnist medperf statistics`.
#[derive(Debug, Args)]
pub struct StatisticsArgs {
    /// What is described.
    #[command(flatten)]
    pub prepared: PreparedArgs,
    /// Where the statistics go, a YAML file
    #[arg(long = "output_path", alias = "output-path", value_name = "FILE", value_parser = path(), default_value = "/mlcommons/volumes/statistics/statistics.yaml")]
    pub output_path: PathBuf,
}

/// `mnist medperf infer`.
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The prepared images
    #[arg(long = "data_path", alias = "data-path", value_name = "DIR", value_parser = path(), default_value = DATA)]
    pub data_path: PathBuf,
    /// Where the model is: the directory with model.safetensors
    #[arg(long = "additional_files", alias = "additional-files", value_name = "DIR", value_parser = path(), default_value = "/mlcommons/volumes/additional_files")]
    pub additional_files: PathBuf,
    /// Where predictions.json goes
    #[arg(long = "output_path", alias = "output-path", value_name = "DIR", value_parser = path(), default_value = PREDICTIONS)]
    pub output_path: PathBuf,
}

/// `mnist medperf evaluate`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// The directory with predictions.json
    #[arg(long, value_name = "DIR", value_parser = path(), default_value = PREDICTIONS)]
    pub predictions: PathBuf,
    /// The prepared labels
    #[arg(long, value_name = "DIR", value_parser = path(), default_value = LABELS)]
    pub labels: PathBuf,
    /// Where the results go, a YAML file
    #[arg(long = "output_path", alias = "output-path", value_name = "FILE", value_parser = path(), default_value = "/mlcommons/volumes/results/results.yaml")]
    pub output_path: PathBuf,
}
