//! What the help says besides the flags, and the version.

use crate::simd::InstructionSet;

/// What all help ends with.
pub const AFTER_HELP: &str = "Flags may be written with hyphens for underscores (--log-dir), with `=` or a space.\n\n\
    Exit codes: 0 done; 1 failed; 2 wrong arguments; 129, 130 and 143 after SIGHUP, SIGINT and SIGTERM.";

/// The short help of a task with parameters, which has no place for them.
pub const AFTER_SHORT_HELP: &str =
    "Parameters such as --train_epochs=10 are flags too: --help lists them, with examples.";

/// Of `mnist train`.
pub const TRAIN_EXAMPLES: &str = "Examples:
  mnist train
  mnist train --parameters_file=workspace/parameters/accurate.parameters.yaml
  mnist train --hidden_layers=256,128 --augment=both --train_epochs=20
  mnist train --validation=0.1 --keep=best --early_stopping=3
  mnist train --snapshots=1 --resume";

/// Of `mnist demo`.
pub const DEMO_EXAMPLES: &str = "Examples:
  mnist demo
  mnist demo --mirror=/shared/mnist --train_epochs=10";

/// Of `mnist evaluate`.
pub const EVALUATE_EXAMPLES: &str = "Examples:
  mnist evaluate
  mnist evaluate --model_dir=workspace/model/unfinished";

/// Of `mnist schema`.
pub const SCHEMA_EXAMPLES: &str = "Examples:
  mnist schema parameters >parameters.schema.json
  mnist schema metrics >metrics.schema.json";

/// Of `mnist man`.
pub const MAN_EXAMPLES: &str = "Examples:
  mnist man ~/.local/share/man/man1";

/// Of `mnist predict`.
pub const PREDICT_EXAMPLES: &str = "Examples:
  mnist predict seven.png photo.jpg
  mnist predict --json --strict scans/*.png
  scanimage --format=png | mnist predict -";

/// Of `mnist augment`.
pub const AUGMENT_EXAMPLES: &str = "Examples:
  mnist augment --out=sheet.png --augment=both
  mnist augment --out=sheet.png --count=200 \\
    --parameters_file=workspace/parameters/best.parameters.yaml";

/// Of `mnist download`.
pub const DOWNLOAD_EXAMPLES: &str = "Examples:
  mnist download
  mnist download --mirror=https://mirror.example/mnist
  mnist download --mirror=/shared/mnist
  mnist download --synthetic";

/// Of `mnist completions`.
pub const COMPLETIONS_EXAMPLES: &str = "Examples:
  mkdir -p ~/.local/share/bash-completion/completions ~/.config/fish/completions
  mnist completions bash >~/.local/share/bash-completion/completions/mnist
  mnist completions zsh >\"${fpath[1]}/_mnist\"
  mnist completions fish >~/.config/fish/completions/mnist.fish";

/// Of `mnist cube check`.
pub const CUBE_CHECK_EXAMPLES: &str = "Examples:
  mnist cube check
  mnist cube check --mlcube=mlcube-2.0.yaml";

/// Of `mnist cube configure`.
pub const CUBE_CONFIGURE_EXAMPLES: &str = "Examples:
  mnist cube configure --platform=docker
  mnist cube configure --platform=platforms/singularity.yaml --dry_run";

/// Of `mnist cube describe`.
pub const CUBE_DESCRIBE_EXAMPLES: &str = "Examples:
  mnist cube describe
  mnist cube describe --mlcube=mlcube-2.0.yaml";

/// Of `mnist cube show_config`.
pub const CUBE_SHOW_CONFIG_EXAMPLES: &str = "Examples:
  mnist cube show_config --mlcube=mlcube-2.0.yaml
  mnist cube show_config --mlcube=mlcube-2.0.yaml --platform=singularity \\
    --resolve -Pdocker.image=mine/mnist:1";

/// Of `mnist cube inspect`.
pub const CUBE_INSPECT_EXAMPLES: &str = "Examples:
  mnist cube inspect
  mnist cube inspect --platform=singularity";

/// Of `mnist cube clean`.
pub const CUBE_CLEAN_EXAMPLES: &str = "Examples:
  mnist cube clean --dry_run
  mnist cube clean --data --yes";

/// Of `mnist cube run`.
pub const CUBE_RUN_EXAMPLES: &str = "Examples:
  mnist cube run --platform=platforms/docker.yaml --task=run/train.yaml
  mnist cube run --platform=native --task=run/train-accurate.yaml --dry_run
  mnist cube run --platform=docker --task=download,train
  mnist cube run --mlcube=mlcube-2.0.yaml --platform=docker --task=train \\
    -Pdocker.image=mine/mnist:1";

/// Of `mnist medperf prepare`.
pub const PREPARE_EXAMPLES: &str = "Examples:
  mnist medperf prepare --data_path=raw --labels_path=raw \\
    --output_path=data --output_labels_path=labels";

/// Of `mnist medperf sanity_check`.
pub const SANITY_CHECK_EXAMPLES: &str = "Examples:
  mnist medperf sanity_check --data_path=data --labels_path=labels";

/// Of `mnist medperf statistics`.
pub const STATISTICS_EXAMPLES: &str = "Examples:
  mnist medperf statistics --data_path=data --labels_path=labels \\
    --output_path=statistics.yaml";

/// Of `mnist medperf infer`.
pub const INFER_EXAMPLES: &str = "Examples:
  mnist medperf infer --data_path=data --additional_files=workspace/model \\
    --output_path=predictions";

/// Of `mnist medperf evaluate`.
pub const SCORE_EXAMPLES: &str = "Examples:
  mnist medperf evaluate --predictions=predictions --labels=labels \\
    --output_path=results.yaml";

/// `examples`, then what all help ends with.
pub fn with_examples(examples: &str) -> String {
    format!("{examples}\n\n{AFTER_HELP}")
}

/// The version, with what was built in and what this machine makes of it.
pub fn long_version() -> String {
    let features =
        [(cfg!(feature = "burn"), "burn"), (cfg!(feature = "ndarray"), "ndarray"), (cfg!(feature = "gpu"), "gpu")];
    let features: Vec<_> = features.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
    let features = if features.is_empty() { "none".into() } else { features.join(", ") };
    // A wrong choice is an error of whoever trains, not of whoever asks.
    let set = InstructionSet::choose().unwrap_or(InstructionSet::available()[0]).name();
    format!("{}\nfeatures: {features}\ninstruction set: {set}", env!("CARGO_PKG_VERSION"))
}
