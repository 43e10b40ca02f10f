//! A node of a Slurm cluster, which has the files of this machine: the task runs there on another platform, under `srun`.

use std::path::Path;

use serde_yaml::Value;

use super::super::command::HostCommand;
use super::super::invocation::Invocation;
use super::super::schema::{Expected, Schema, optional, required};
use super::{Image, Platform, Runner, flag, last_line, own_name};
use crate::error::{CubeError, Result};

/// `mlcube_slurm`, which only `mnist cube` knows. The keys but `platform` are the flags of `srun`.
pub const PLATFORM: Platform = Platform {
    schema: Schema {
        name: "mlcube_slurm",
        fields: &[
            required("platform", Expected::Text),
            optional("partition", Expected::Word),
            optional("account", Expected::Word),
            optional("qos", Expected::Word),
            optional("time", Expected::Word),
            optional("cpus-per-task", Expected::Word),
            optional("mem", Expected::Word),
            optional("gpus", Expected::Word),
            optional("constraint", Expected::Word),
        ],
    },
    runner: |file, _, on_the_node| match on_the_node {
        Some(on_the_node) => Box::new(Slurm::read(file, on_the_node)),
        None => unreachable!("`cube/check` reads the platform of the node"),
    },
};

/// `srun` with its flags, and the runner on the node.
#[derive(Debug)]
pub struct Slurm {
    flags: Vec<String>,
    on_the_node: Box<dyn Runner>,
}

impl Slurm {
    fn read(file: &Value, on_the_node: Box<dyn Runner>) -> Self {
        let given = PLATFORM.schema.fields.iter().map(|field| field.name).filter(|name| *name != "platform");
        Self { flags: given.filter_map(|name| flag(file, name)).collect(), on_the_node }
    }

    /// `command` on a node. At SIGINT `srun` only says how it stands, and at SIGTERM it kills the task.
    fn on_a_node(&self, command: HostCommand, task: &str) -> HostCommand {
        let srun = HostCommand::new("srun").args(["--ntasks=1", "--unbuffered"]);
        let name = own_name(task);
        let srun = srun.arg(format!("--job-name={name}")).args(&self.flags).arg("--");
        command
            .under(srun)
            .signalled_by(HostCommand::new("scancel").args(["--me", "--quiet"]).arg(format!("--name={name}")))
    }
}

impl Runner for Slurm {
    fn find(&mut self) -> Result<()> {
        let srun = HostCommand::new("srun").arg("--version").output()?;
        if !srun.success {
            return Err(CubeError::Slurm { problem: last_line(&srun.stderr) }.into());
        }
        self.on_the_node.find()
    }

    fn image(&self) -> Option<&dyn Image> {
        self.on_the_node.image()
    }

    fn command(&self, invocation: &Invocation) -> Result<HostCommand> {
        Ok(self.on_a_node(self.on_the_node.command(invocation)?, &invocation.task))
    }

    fn is_here(&self, path: &Path) -> bool {
        self.on_the_node.is_here(path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::native::Native;
    use super::*;

    #[test]
    fn the_keys_are_flags_of_srun() {
        let file = "platform: native.yaml\ntime: 00:10:00\ngpus: 2\npartition: long";
        let slurm = Slurm::read(&serde_yaml::from_str(file).unwrap(), Box::new(Native));
        let command = slurm.on_a_node(HostCommand::new("a").arg("b c").env("D", "e"), "train");
        let name = own_name("train");
        let expected = format!(
            "D=e srun --ntasks=1 --unbuffered --job-name={name} --partition=long --time=00:10:00 --gpus=2 -- \
                        a 'b c'"
        );
        assert_eq!(command.to_string(), expected);
    }
}
