//! Places that break a rule for a reason. A place is named as the test prints it.

/// A place and the reason.
#[derive(Debug)]
pub struct Exception {
    pub place: &'static str,
    pub reason: &'static str,
}

const fn except(place: &'static str, reason: &'static str) -> Exception {
    Exception { place, reason }
}

pub const DIRECTION: &[Exception] = &[];

pub const CIRCLES: &[Exception] = &[];

pub const SIZES: &[Exception] = &[
    except(
        "tests/cube.rs::our_files_are_those_of_mlcubes_documentation",
        "one literal copy of the files in MLCube's documentation",
    ),
    except("tests/engines_agree.rs", "the judge of all engines, with its own test"),
    except("tests/train.rs", "one table of outputs and refused inputs, read from top to bottom"),
];

pub const NAMES: &[Exception] = &[];

pub const MENTIONS: &[Exception] = &[
    except("build/src/optim/definition.rs: mlperf_logging/mllog/constants.py", "a file of the package mlperf-logging"),
    except("build/src/output/mllog.rs: mlperf_logging/mllog/mllog.py", "a file of the package mlperf-logging"),
];
