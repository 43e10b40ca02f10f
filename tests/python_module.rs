//! The Python module of the wheel, with the program of this build.

use std::path::Path;

use crate::common::{Sandbox, end, python_with, root};

#[test]
fn python_trains_and_asks_a_network() {
    let Some(mut python) = python_with(&["numpy"]) else { return };
    let sandbox = Sandbox::with_data();
    let program = Path::new(env!("CARGO_BIN_EXE_mnist")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([program.to_path_buf()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    python.current_dir(sandbox.path("")).env("PYTHONPATH", root().join("python")).env("PATH", path);
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = end(python.arg(root().join("tests/python/use_module.py")).arg(root().join("examples/seven.png")));
    assert_eq!((&*ended.stdout, ended.code), ("done\n", Some(0)), "{}", ended.stderr);
}
