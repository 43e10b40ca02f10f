//! `mnist cube run` looks whether an image is this program's before it runs a task in it.

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
