//! The workspace: where the tasks' files are if no flag says otherwise. The cube's run configurations name the same places,
//! below `$WORKSPACE`; a test compares them.

/// Where they are, in the current directory.
pub const DIRECTORY: &str = "workspace/";
/// DATA_DIR.
pub const DATA: &str = "workspace/data";
/// MODEL_DIR.
pub const MODEL: &str = "workspace/model";
/// The parameters file. Without it, all parameters have their defaults.
pub const PARAMETERS: &str = "workspace/parameters/default.parameters.yaml";
/// LOG_DIR of `download`.
pub const DOWNLOAD_LOGS: &str = "workspace/download_logs";
/// LOG_DIR of `train`.
pub const TRAIN_LOGS: &str = "workspace/train_logs";
/// LOG_DIR of `evaluate`.
pub const EVALUATE_LOGS: &str = "workspace/evaluate_logs";
/// The LOG_DIRs of all tasks, as a shell's pattern.
pub const ALL_LOGS: &str = "workspace/*_logs";
