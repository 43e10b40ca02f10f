//! `mnist cube run` looks whether an image is this program's before it runs a task in it, and builds one at a time.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::cube::{Cube, DOCKER, SINGULARITY};

const DOWNLOAD: &str = "run --platform=platforms/docker.yaml --task=run/download.yaml";
const SINGULAR: &str = "run --platform=platforms/mlcube-0.0.3/singularity.yaml --task=run/download.yaml";

#[test]
fn an_image_of_another_program_under_our_name_is_refused() {
    let cube = Cube::new().with("docker", DOCKER);
    cube.sandbox.write("image", r#"{"Entrypoint":["python3","/workspace/run.sh"],"Labels":null}"#);
    cube.run(DOWNLOAD).failed_with(
        "mlcommons/mlcube:mnist: expected this program's image, which has the label \
         mlcube.mnist.program=native, found one without it, which starts python3 /workspace/run.sh\n\
         hint: build this program's with `mnist cube configure`, which takes the name over, or give a platform file that \
         names another image",
    );
    assert!(!cube.sandbox.path("run").exists(), "nothing was started");
    cube.sandbox.write("image", r#"{"Labels":{"mlcube.mnist.program":"other"}}"#);
    assert_eq!(cube.run(DOWNLOAD).code, Some(1));
    cube.sandbox.write("image", r#"{"Labels":{"mlcube.mnist.program":"native"}}"#);
    cube.run(DOWNLOAD).done();
    assert!(cube.sandbox.path("run").exists());
}

#[test]
fn a_singularity_image_of_another_program_is_refused() {
    let cube = Cube::new().with("singularity", SINGULARITY);
    let image = "mlcommons_mlcube_mnist-0.01.simg";
    cube.write(&format!("workspace/{image}"), "an image");
    cube.sandbox.write("labels", r#"{"data":{"attributes":{"labels":{"author":"MLCommons"}}}}"#);
    let ended = cube.run(SINGULAR);
    assert!(ended.stderr.contains(": expected this program's image, which has the label "), "{ended:#?}");
    assert_eq!(ended.code, Some(1));
    assert!(!cube.sandbox.path("run").exists(), "nothing was started");
    // Nor does a build replace it, which may be the only one.
    let configure = "configure --platform=platforms/mlcube-0.0.3/singularity.yaml";
    assert_eq!(cube.run(configure).code, Some(1));
    cube.write("build/Singularity.recipe", "newer");
    assert_eq!(cube.run(configure).code, Some(1));
    assert_eq!(cube.sandbox.read(&format!("the cube/workspace/{image}")), "an image");
    cube.sandbox.write("labels", r#"{"data":{"attributes":{"labels":{"mlcube.mnist.program":"native"}}}}"#);
    cube.run(SINGULAR).done();
    // Where the labels cannot be read the task runs, with a warning.
    std::fs::remove_file(cube.sandbox.path("labels")).unwrap();
    let ended = cube.run(SINGULAR).done();
    assert!(ended.stderr.contains("warning: "), "{ended:#?}");
}

#[test]
fn our_build_files_give_the_label() {
    for file in ["Dockerfile", "Singularity.recipe"] {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(root.join("build").join(file)).unwrap();
        assert!(text.replace('=', " ").replace('"', "").contains("mlcube.mnist.program native"), "{file}");
    }
}

/// A Singularity that takes a while to build, and refuses to build where something is, as the real one does without a terminal.
const SLOW_SINGULARITY: &str = r#"case "$1" in
--version) echo singularity version 3.8.7 ;;
inspect) echo '{"attributes":{"labels":{"mlcube.mnist.program":"native"}}}' ;;
build) echo >>"$HERE/builds"; while [ $# -gt 2 ]; do shift; done; [ ! -e "$1" ] || exit 255; sleep 2; echo image >"$1" ;;
esac"#;

#[test]
fn two_runs_build_one_singularity_image_and_a_killed_one_is_no_obstacle() {
    let cube = Cube::new().with("singularity", SLOW_SINGULARITY);
    let image = cube.workspace("mlcommons_mlcube_mnist-0.01.simg");
    let growing = cube.workspace(".mlcommons_mlcube_mnist-0.01.simg.mnist-part");
    fs::create_dir(&growing).unwrap();
    fs::write(format!("{growing}/image"), "left by a process that was killed").unwrap();
    let arguments = "run --platform=platforms/mlcube-0.0.3/singularity.yaml --task=run/download.yaml";
    let runs = [(); 2].map(|()| cube.command(arguments).stderr(Stdio::piped()).spawn().unwrap());
    let said = runs.map(|run| {
        let output = run.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    });
    assert_eq!(fs::read_to_string(&image).unwrap(), "image\n");
    assert!(!Path::new(&growing).exists());
    // A run that begins when the other has ended finds the image; one that begins before waits.
    assert_eq!(cube.wrote("builds").len(), 1, "{said:#?}");
}

#[test]
fn a_link_to_nothing_among_the_sources_hides_no_change() {
    let cube = Cube::new().with("singularity", SLOW_SINGULARITY);
    let arguments = "configure --platform=platforms/mlcube-0.0.3/singularity.yaml";
    cube.run(arguments).done();
    assert!(cube.run(arguments).done().stderr.contains(": up to date"));
    // As Emacs makes one while a file is edited.
    std::os::unix::fs::symlink("user@host.1", cube.sandbox.path("the cube/build/.#Dockerfile")).unwrap();
    cube.write("build/Dockerfile", "changed");
    assert!(!cube.run(arguments).done().stderr.contains(": up to date"));
    assert_eq!(cube.wrote("builds").len(), 2);
}

/// A Singularity that writes its number into the image again and again, and does not hear SIGTERM.
const DEAF_SINGULARITY: &str = r#"case "$1" in
--version) echo singularity version 3.8.7 ;;
inspect) echo '{"attributes":{"labels":{"mlcube.mnist.program":"native"}}}' ;;
build) trap '' TERM; echo >>"$HERE/builds"; while [ $# -gt 2 ]; do shift; done
    for part in 1 2 3 4 5 6; do echo $$ >>"$1"; sleep 0.3; done ;;
esac"#;

#[test]
fn the_builder_of_a_killed_run_writes_into_no_other_image() {
    let cube = Cube::new().with("singularity", DEAF_SINGULARITY);
    let mut first = cube.command(SINGULAR).spawn().unwrap();
    let begin = Instant::now();
    while !cube.sandbox.path("builds").exists() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(10));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    cube.run(SINGULAR).done();
    let image = fs::read_to_string(cube.workspace("mlcommons_mlcube_mnist-0.01.simg")).unwrap();
    let parts: Vec<&str> = image.lines().collect();
    assert!(parts.len() == 6 && parts.iter().all(|part| *part == parts[0]), "{parts:?}");
    cube.run(SINGULAR).done();
    assert!(!Path::new(&cube.workspace(".mlcommons_mlcube_mnist-0.01.simg.mnist-part")).exists());
}
