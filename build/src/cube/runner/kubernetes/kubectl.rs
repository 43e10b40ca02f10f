//! The user's own `kubectl`, and the cluster that it is told to reach.

use serde_json::Value as Json;

use super::super::super::command::{HostCommand, ProgramOutput};
use super::super::last_line;
use crate::error::{CubeError, Error, Result};

/// `kubectl` with the flags that say which cluster.
#[derive(Debug)]
pub struct Kubectl {
    pub flags: Vec<String>,
}

impl Kubectl {
    /// Without a command.
    pub fn command(&self) -> HostCommand {
        HostCommand::new("kubectl").args(&self.flags)
    }

    /// What it answers to a question.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn ask(&self, question: &[&str]) -> Result<ProgramOutput> {
        self.command().arg("--request-timeout=30s").args(question).output()
    }

    /// The same, where the answer must be right.
    ///
    /// # Errors
    /// It fails.
    pub fn ask_json(&self, question: &[&str]) -> Result<Json> {
        let answer = self.ask(&[question, &["--output=json"]].concat())?;
        if !answer.success {
            return Err(failed(&answer));
        }
        serde_json::from_str(&answer.stdout)
            .map_err(|error| CubeError::Kubernetes { problem: error.to_string() }.into())
    }

    /// This program with `arguments` in a container of a pod; it reads this process's standard input if it `listens`.
    pub fn exec(&self, pod: &str, container: &str, listens: bool, arguments: &[&str]) -> HostCommand {
        let command = self.command().args(["exec", pod, &format!("--container={container}")]);
        command.args(listens.then_some("--stdin")).args(["--", "mnist"]).args(arguments)
    }
}

/// Why `kubectl` did not do it.
pub fn failed(answer: &ProgramOutput) -> Error {
    CubeError::Kubernetes { problem: problem(&answer.stderr) }.into()
}

/// What matters of its messages: what the program in the container says stands before what `kubectl` says about its end.
pub fn problem(stderr: &str) -> String {
    let error = stderr.lines().find_map(|line| line.trim().strip_prefix("error: "));
    error.map_or_else(|| last_line(stderr), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_matters_is_found() {
        let of_ours = "error: data: cannot write: No space left\nhint: free\ncommand terminated with exit code 1\n";
        assert_eq!(problem(of_ours), "data: cannot write: No space left");
        assert_eq!(problem("W: old\nError from server (NotFound): no\n"), "Error from server (NotFound): no");
        assert_eq!(problem("error: no such host\n"), "no such host");
    }

    #[test]
    fn this_program_is_called_in_the_container() {
        let kubectl = Kubectl { flags: vec!["--namespace=n".into()] };
        let command = kubectl.exec("p", "inputs", true, &["cube", "job"]).to_string();
        assert_eq!(command, "kubectl --namespace=n exec p --container=inputs --stdin -- mnist cube job");
    }
}
