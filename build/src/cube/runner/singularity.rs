//! Containers of Singularity, and of Apptainer, its newer name.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_yaml::{Mapping, Value};

use super::super::command::HostCommand;
use super::super::invocation::Invocation;
use super::super::listing::leads_up;
use super::super::mount::{self, Mount, csv_quoted};
use super::super::schema::{Expected, Field, Schema, arguments, optional, required};
use super::{Image, ImageFound, LABEL, Platform, Runner, last_line, own_name, refuse_foreign, text, with_label};
use crate::data::download::environment;
use crate::error::{CubeError, Error, Result};
use crate::files::growing::{self, Growing};
use crate::files::{self, is_root};
use crate::open;
use crate::sha256::Sha256;

/// `mlcube_singularity` of MLCube's documentation. `nv` is ours: the documentation does not mention GPUs.
pub const PLATFORM: Platform = Platform {
    schema: Schema {
        name: "mlcube_singularity",
        fields: &[required("image", Expected::ImageFile), optional("nv", Expected::Bool)],
    },
    runner: |file, cube, _| Box::new(Singularity::read(file, &cube.workspace)),
};

/// The keys of the section `singularity` of configuration 2.0: those of `mlcube-singularity` 0.0.9, which refuses any
/// others.
pub const SECTION: &[Field] = &[
    required("image", Expected::ImageFile),
    optional("runner", Expected::Text),
    optional("image_dir", Expected::Text),
    optional("singularity", Expected::OneOf(&["singularity", "apptainer"])),
    optional("build_args", Expected::Arguments),
    optional("run_args", Expected::Arguments),
    optional("build_file", Expected::Text),
    optional("--network", Expected::Scalar),
    optional("--security", Expected::Scalar),
    optional("--nv", Expected::Scalar),
    optional("--vm-ram", Expected::Scalar),
    optional("--vm-cpu", Expected::Scalar),
];

/// Their values where the section does not say.
pub const DEFAULTS: &str = "{runner: singularity, image_dir: '${runtime.workspace}/.image', singularity: singularity, \
                            build_args: --fakeroot, run_args: '', build_file: Singularity.recipe, --network: null, \
                            --security: null, --nv: null, --vm-ram: null, --vm-cpu: null}";

/// The section of a cube that only has the section `docker`: its image is made from that of Docker.
pub fn from_docker(docker: &Value) -> Value {
    let image = text(docker, "image");
    let name: String = image.chars().filter(|c| c.is_alphanumeric()).collect();
    let keys = [("image", format!("{name}.sif")), ("build_file", format!("{DOCKER_IMAGE}{image}"))];
    Value::Mapping(Mapping::from_iter(keys.map(|(name, value)| (name.into(), value.into()))))
}

/// The beginning of the name of an image in a registry of Docker.
const DOCKER_IMAGE: &str = "docker://";

/// The program's newer name. Where it alone is installed, it takes the place of the older one.
const APPTAINER: &str = "apptainer";

/// The first version with `--fakeroot`, which builds images without root's rights.
const FAKEROOT: (u32, u32) = (3, 5);

/// The program, and an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Singularity {
    image: PathBuf,
    /// Whether the container gets the host's NVIDIA GPUs (`--nv`).
    nv: bool,
    program: &'static str,
    /// As the program prints it; empty before [`Runner::find`].
    version: String,
    /// More arguments of `run`.
    arguments: Vec<String>,
    /// What the image is built from, if not from the cube's directory `build`.
    source: Option<SifSource>,
}

/// How a cube of configuration 2.0 gets its image.
#[derive(Debug, PartialEq, Eq)]
struct SifSource {
    /// The cube's directory.
    root: PathBuf,
    /// A recipe in it, or an image elsewhere, such as `docker://IMAGE`.
    file: String,
    arguments: Vec<String>,
}

impl SifSource {
    /// The recipe; none of an image elsewhere.
    fn recipe(&self) -> Option<PathBuf> {
        let elsewhere = [DOCKER_IMAGE, "docker-archive:"].iter().any(|scheme| self.file.starts_with(scheme));
        (!elsewhere).then(|| self.root.join(&self.file))
    }
}

impl Singularity {
    /// Containers of the file `image`, with `nv` for GPUs.
    pub fn new(image: PathBuf, nv: bool) -> Self {
        Self { image, nv, program: "singularity", version: String::new(), arguments: vec![], source: None }
    }

    /// The section `singularity` of the configuration 2.0 of a cube in `root`, with all its keys.
    pub fn configured(section: &Value, root: &Path) -> Self {
        let words = |name: &str| section.get(name).and_then(|value| arguments(value, "")).unwrap_or_default();
        let image = root.join(text(section, "image_dir")).join(text(section, "image"));
        let source = SifSource { root: root.into(), file: text(section, "build_file"), arguments: words("build_args") };
        let arguments = words("run_args").into_iter().chain(super::flags(section)).collect();
        let mut configured = Self { arguments, source: Some(source), ..Self::new(image, false) };
        if text(section, "singularity") == APPTAINER {
            configured.program = APPTAINER;
        }
        configured
    }

    /// A relative path of an image is below `workspace`.
    fn read(file: &Value, workspace: &Path) -> Self {
        let nv = file.get("nv").and_then(Value::as_bool).unwrap_or_default();
        Self::new(workspace.join(text(file, "image")), nv)
    }

    /// Builds `image`, which may be the image or a file that will become it.
    fn build_into(&self, image: &Path, build: &Path) -> Result<HostCommand> {
        let missing = |build: &Path, recipe: &str| {
            let (image, build, recipe) = (self.image.clone(), build.into(), recipe.into());
            CubeError::NoSingularityImage { image, build, recipe }
        };
        if let Some(source) = &self.source {
            if source.recipe().is_some_and(|recipe| !recipe.is_file()) {
                return Err(missing(&source.root, &source.file).into());
            }
            let is_old = version(&self.version).is_some_and(|version| version < FAKEROOT);
            if is_old && source.arguments.iter().any(|argument| argument == "--fakeroot") {
                return Err(CubeError::OldSingularity { found: self.version.clone() }.into());
            }
            let command = HostCommand::new(self.program).arg("build").directory(&source.root);
            return Ok(command.args(&source.arguments).arg(image).arg(&source.file));
        }
        if !build.join("Singularity.recipe").is_file() {
            return Err(missing(build, "Singularity.recipe").into());
        }
        let command = HostCommand::new(self.program).arg("build").directory(build);
        let command = if is_root() {
            command
        } else if version(&self.version).is_some_and(|version| version < FAKEROOT) {
            return Err(CubeError::OldSingularity { found: self.version.clone() }.into());
        } else {
            command.arg("--fakeroot")
        };
        Ok(command.arg(image).arg("Singularity.recipe"))
    }
}

impl Runner for Singularity {
    fn find(&mut self) -> Result<()> {
        let version = |program| HostCommand::new(program).arg("--version").output().map(|output| (program, output));
        let (program, output) = match version(self.program) {
            Err(error) if self.program != APPTAINER => version(APPTAINER).map_err(|_| error)?,
            found => found?,
        };
        if !output.success {
            return Err(CubeError::Singularity { problem: last_line(&output.stderr) }.into());
        }
        (self.program, self.version) = (program, output.stdout);
        growing::remove_leftover(&self.image);
        Ok(())
    }

    fn image(&self) -> Option<&dyn Image> {
        Some(self)
    }

    fn command(&self, invocation: &Invocation) -> Result<HostCommand> {
        let (mounts, arguments) = mount::in_container(invocation)?;
        let mirror = mount::mirror(invocation)?;
        let command = HostCommand::new(self.program).envs(mount::environment(invocation, &mounts));
        let command = command.arg(if invocation.entrypoint.is_empty() { "run" } else { "exec" });
        let mut command = command.args(self.nv.then_some("--nv")).args(&self.arguments);
        for mount in mounts.iter().chain(&mirror) {
            command = command.args(bind(mount));
        }
        if let Some(mirror) = &mirror {
            command = command.env(environment::MIRROR, &*mirror.container);
        }
        Ok(command.arg(&self.image).args(arguments))
    }
}

impl Image for Singularity {
    fn name(&self) -> String {
        self.image.display().to_string()
    }

    fn found(&self) -> Result<ImageFound> {
        if !self.image.exists() {
            return Ok(ImageFound::Nothing);
        }
        let command = HostCommand::new(self.program).args(["inspect", "--json", "--labels"]).arg(&self.image);
        let output = command.output()?;
        if !output.success {
            return Ok(ImageFound::Unreadable(last_line(&output.stderr)));
        }
        // Version 3 puts the attributes into `data`, version 2 does not.
        let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let attributes = json.get("data").unwrap_or(&json);
        let label = attributes["attributes"]["labels"][LABEL.0].as_str();
        Ok(if label == Some(LABEL.1) { ImageFound::Ours } else { ImageFound::Foreign(with_label(label)) })
    }

    fn instead_of_foreign(&self) -> &'static str {
        "give a platform file that names another image; `mnist cube configure` builds this program's there"
    }

    fn is_up_to_date(&self, build: &Path) -> bool {
        let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let newest = match &self.source {
            None => newest(build),
            Some(source) => source.recipe().and_then(|recipe| changed(&recipe)),
        };
        changed(&self.image).is_some_and(|built| newest.is_none_or(|changed| changed < built))
    }

    fn hash(&self) -> Result<Option<String>> {
        if !self.image.is_file() {
            return Ok(None);
        }
        let mut hash = Sha256::new();
        let mut file = open::regular(&self.image).map_err(Error::io("read", &self.image))?;
        let Ok(()) = open::in_pieces(&mut file, &self.image, |piece| {
            hash.update(piece);
            Ok::<(), Infallible>(())
        })?;
        Ok(Some(hash.finish()))
    }

    fn build_command(&self, build: &Path) -> Result<HostCommand> {
        self.build_into(&self.image, build)
    }

    fn build(&self, build: &Path, is_ours: bool) -> Result<()> {
        refuse_foreign(self, is_ours)?; // the file may be the only one of another program
        self.build_command(build)?; // says what is missing
        let directory = self.image.parent().unwrap_or(&self.image);
        files::writable_directory(directory).map_err(|error| match error {
            Error::Io { source, .. } => CubeError::ImageDirectory { image: self.image.clone(), source }.into(),
            error => error,
        })?;
        // Built elsewhere: a build that fails leaves the old image.
        let growing = Growing::beside(&self.image)?;
        if self.is_up_to_date(build) {
            return Ok(()); // another process has built it meanwhile
        }
        // Under a name of its own: the builder of a process that was killed may work for a while.
        let built = growing.join(&own_name("image"));
        if !self.build_into(&built, build)?.run()?.success() {
            return Err(CubeError::ImageBuild { image: self.name() }.into());
        }
        fs::rename(&built, &self.image).map_err(Error::io("rename", &built))
    }
}

/// The time of the last change in the directory `build`, except in its `target`. A link to nothing, as an editor makes, has
/// none.
fn newest(build: &Path) -> Option<SystemTime> {
    let here = fs::metadata(build).ok()?.modified().ok()?;
    let entries = fs::read_dir(build).into_iter().flatten().flatten().filter(|entry| entry.file_name() != "target");
    let leads_up = |path: &Path| path.is_symlink() && path.is_dir() && leads_up(path, build);
    let paths = entries.map(|entry| entry.path()).filter(|path| !leads_up(path));
    Some(paths.filter_map(|path| newest(&path)).fold(here, SystemTime::max))
}

/// Major and minor version in the output of `--version`. None for Apptainer: all its versions have `--fakeroot`.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_whitespace().last().filter(|_| !text.starts_with("apptainer"))?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A mount as `--bind` takes it in every version. A path that holds a colon, a comma or a circumflex, at which `--bind`
/// splits too, needs `--mount`, which SingularityCE has since 3.9 and Apptainer always had.
fn bind(mount: &Mount) -> [String; 2] {
    let Mount { host, container, read_only } = mount;
    if host.contains([':', ',', '^']) {
        let source = csv_quoted(&format!("source={host}"));
        let read_only = if *read_only { ",ro" } else { "" };
        return ["--mount".into(), format!("type=bind,{source},destination={container}{read_only}")];
    }
    ["--bind".into(), format!("{host}:{container}{}", if *read_only { ":ro" } else { "" })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_image_is_below_the_workspace() {
        let read = |text: &str| Singularity::read(&serde_yaml::from_str(text).unwrap(), Path::new("/w"));
        assert_eq!(read("image: a/b:c\nnv: true"), Singularity::new("/w/a/b:c".into(), true));
        assert_eq!(read("image: /opt/i.simg"), Singularity::new("/opt/i.simg".into(), false));
    }

    #[test]
    fn versions_of_each_name_are_read() {
        assert_eq!(version("singularity version 3.4.2-1.1.el7"), Some((3, 4)));
        assert_eq!(version("singularity-ce version 4.1.0-jammy"), Some((4, 1)));
        assert_eq!(version("2.6.1-dist"), Some((2, 6)));
        assert_eq!(version("apptainer version 1.4.5"), None);
    }

    #[test]
    fn a_path_may_hold_colons_commas_and_quotes() {
        let mount = |host: &str, read_only| bind(&Mount { host: host.into(), container: "/c".into(), read_only });
        assert_eq!(mount("/a b", true), ["--bind", "/a b:/c:ro"]);
        assert_eq!(mount("/a:b", false), ["--mount", "type=bind,\"source=/a:b\",destination=/c"]);
        assert_eq!(mount("/a^b", false), ["--mount", "type=bind,\"source=/a^b\",destination=/c"]);
        assert_eq!(mount("/a,b\"c", true), ["--mount", "type=bind,\"source=/a,b\"\"c\",destination=/c,ro"]);
    }
}
