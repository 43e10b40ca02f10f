//! The platform files: which there are, and the runner that one stands for.

use serde_yaml::Value;

use super::configuration::{Configuration, Section};
use super::directory::CubeDir;

use super::runner::docker::{self, Docker, Engine};
use super::runner::singularity::{self, Singularity};
use super::runner::{Platform, Runner, gcp, native, slurm, text};
#[cfg(unix)]
use super::runner::{kubernetes, ssh};
use super::schema::{self, Expected, Field, Mismatch, Schema, optional, required};

/// Every kind of platform file.
pub const PLATFORMS: &[Platform] = &[
    docker::PLATFORM,
    singularity::PLATFORM,
    native::PLATFORM,
    slurm::PLATFORM,
    gcp::PLATFORM,
    #[cfg(unix)]
    ssh::PLATFORM,
    #[cfg(unix)]
    kubernetes::PLATFORM,
    #[cfg(unix)]
    kubernetes::SETTINGS,
    MLCUBE_0_0_3,
];

/// The one platform file of the published runners 0.0.1 to 0.0.3, for Docker or for Singularity.
const MLCUBE_0_0_3: Platform = Platform {
    schema: Schema {
        name: "mlcube_platform",
        fields: &[
            required(
                "platform",
                Expected::Record(&[
                    required("name", Expected::OneOf(&["docker", "singularity"])),
                    required("version", Expected::Text),
                ]),
            ),
            required("container", Expected::Any), // see `check_container`
        ],
    },
    runner: mlcube_0_0_3,
};

/// The part of that file that depends on another: the kind of image.
pub fn check_container(file: &Value) -> Vec<Mismatch> {
    const OF_DOCKER: &[Field] = &[required(
        "container",
        Expected::Record(&[required("image", Expected::Image), optional("runtime", Expected::Text)]),
    )];
    const OF_SINGULARITY: &[Field] = &[required(
        "container",
        Expected::Record(&[required("image", Expected::ImageFile), optional("runtime", Expected::Text)]),
    )];
    if text(file, "schema_type") != MLCUBE_0_0_3.schema.name || file.get("container").is_none() {
        return vec![];
    }
    schema::check_fields(file, if is_docker(file) { OF_DOCKER } else { OF_SINGULARITY })
}

fn is_docker(file: &Value) -> bool {
    text(file.get("platform").unwrap_or(&Value::Null), "name") == "docker"
}

fn mlcube_0_0_3(file: &Value, cube: &CubeDir, _: Option<Box<dyn Runner>>) -> Box<dyn Runner> {
    let container = file.get("container").unwrap_or(&Value::Null);
    let (image, runtime) = (text(container, "image"), text(container, "runtime"));
    if is_docker(file) {
        let runtime = (!runtime.is_empty()).then(|| format!("--runtime={runtime}"));
        Box::new(Docker::new(Engine::Docker, image, runtime.into_iter().collect()))
    } else {
        Box::new(Singularity::new(cube.workspace.join(image), runtime == "nvidia"))
    }
}

/// The platform file that a platform file names, and whether it is used on this machine.
pub fn named_by(file: &Value) -> Option<(&str, bool)> {
    let schema_type = text(file, "schema_type");
    let is_here = match schema_type.as_str() {
        name if name == slurm::PLATFORM.schema.name => true,
        #[cfg(unix)]
        name if name == ssh::PLATFORM.schema.name => false,
        _ => return None,
    };
    Some((file.get("platform").and_then(Value::as_str)?, is_here))
}

/// The flags of `mnist cube run` that some platforms have: the flag, and the `schema_type` of their files.
pub const FLAGS: &[(&str, &[&str])] = &[
    #[cfg(unix)]
    ("attach", &[ssh::PLATFORM.schema.name, kubernetes::PLATFORM.schema.name, kubernetes::SETTINGS.schema.name]),
    #[cfg(unix)]
    ("keep", &[kubernetes::PLATFORM.schema.name, kubernetes::SETTINGS.schema.name]),
];

/// The runner that the section of a configuration stands for, whose values it has as `runner`.
pub fn configured(section: Section, configuration: &Configuration, cube: &CubeDir) -> Box<dyn Runner> {
    let (values, root) = (configuration.runner(), cube.absolute_root());
    match section {
        Section::Docker => Box::new(Docker::configured(values, root, configuration.has_accelerators())),
        Section::Singularity => Box::new(Singularity::configured(values, root)),
    }
}

/// The runner of a platform file that follows its schema; none if the `schema_type` is unknown. `named` is that of the file
/// which this one names.
pub fn runner(file: &Value, cube: &CubeDir, named: Option<Box<dyn Runner>>) -> Option<Box<dyn Runner>> {
    let schema_type = schema::schema_type(file)?;
    let platform = PLATFORMS.iter().find(|platform| platform.schema.name == schema_type)?;
    Some((platform.runner)(file, cube, named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let cube =
            CubeDir { root: "/c".into(), configuration_2: None, build: "/c/build".into(), workspace: "/w".into() };
        format!("{:?}", runner(&serde_yaml::from_str(text).unwrap(), &cube, None))
    }

    #[test]
    fn the_schema_type_decides_the_runner() {
        let docker = Docker::new(Engine::Docker, "a/b:c".into(), vec!["--gpus=all".into()]);
        let file = "schema_type: mlcube_docker\nimage: a/b:c\ndocker_runtime: nvidia-docker";
        assert_eq!(read(file), format!("{:?}", Some(docker)));
        let singularity = Singularity::new("/w/a/b:c".into(), true);
        assert_eq!(read("schema_type: mlcube_singularity\nimage: a/b:c\nnv: true"), format!("{:?}", Some(singularity)));
        assert_eq!(read("schema_type: mlcube_native"), "Some(Native)");
        assert_eq!(read("schema_type: mlcube_odd"), "None");
    }

    #[test]
    fn the_file_of_0_0_3_names_docker_or_singularity() {
        let of = |name: &str, more: &str| {
            read(&format!(
                "schema_type: mlcube_platform\nplatform: {{name: {name}}}\ncontainer: {{image: 'a/b:c'{more}}}"
            ))
        };
        let docker =
            |runtime: &[String]| format!("{:?}", Some(Docker::new(Engine::Docker, "a/b:c".into(), runtime.to_vec())));
        assert_eq!(of("docker", ""), docker(&[]));
        assert_eq!(of("docker", ", runtime: nvidia"), docker(&["--runtime=nvidia".into()]));
        let singularity = |nv| format!("{:?}", Some(Singularity::new("/w/a/b:c".into(), nv)));
        assert_eq!(of("singularity", ""), singularity(false));
        assert_eq!(of("singularity", ", runtime: nvidia"), singularity(true));
    }
}
