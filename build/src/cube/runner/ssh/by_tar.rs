//! Files by tar, where one side has no rsync. What rsync does besides is done here: telling what differs, removing what is
//! gone or in the way, and directories without files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::super::super::command::HostCommand;
use super::super::super::listing::Tree;
use super::transfer::{FileTransfer, Sent, in_directory, names_file};
use crate::error::{Error, Result};
use crate::text::counted;

/// More paths than this are not given as arguments.
const MOST_ARGUMENTS: usize = 500;
/// Tar compares none: a file that is named itself, such as one of parameters, and has no more bytes, is always sent.
const ALWAYS_SENT: u64 = 1 << 16;

/// Makes the directories of the arguments, also where something else has the name.
const MAKE: &str = r#"for d; do [ -d "$d" ] || { rm -f -- "$d" && mkdir -p -- "$d"; } || exit 1; done"#;
/// Packs the arguments. GNU's tar would take `\101` in a name for an `A`; others do not know the option, nor such signs.
const PACK: &str =
    r#"if tar --no-unquote --version >/dev/null 2>&1; then tar --no-unquote -cf - "$@"; else tar -cf - "$@"; fi"#;

impl FileTransfer<'_> {
    /// Makes what is there equal to what is here.
    pub(super) fn send_by_tar(&self, what: &'static str, sent: &Sent) -> Result<()> {
        let (here, there) = (sent.tree()?, self.tree(sent.to)?);
        self.remove(sent.to, &gone(sent, &here, &there))?;
        let new: Vec<PathBuf> = here.directories.difference(&there.directories).cloned().collect();
        self.with_arguments("make a directory", sent.to, MAKE, &new)?;
        let known: BTreeMap<&PathBuf, (u64, u64)> =
            there.files.iter().map(|(path, size, time)| (path, (*size, *time))).collect();
        let is_small = |path: &PathBuf| sent.names.contains(path) && sent.is_small(path, ALWAYS_SENT).unwrap_or(false);
        let changed =
            here.files.iter().filter(|(path, size, time)| known.get(path) != Some(&(*size, *time)) || is_small(path));
        let changed: Vec<&PathBuf> = changed.map(|(path, ..)| path).collect();
        tracing::info!(
            "{}: {what}: {} sent, {} there",
            self.connection.host(),
            counted(changed.len(), "file"),
            here.files.len() - changed.len()
        );
        if changed.is_empty() {
            return Ok(());
        }
        let names = names_file(&changed)?;
        let pack = HostCommand::new("tar")
            .args(["--null", if sent.follows_links { "-chf" } else { "-cf" }, "-", "-T", "-"])
            .directory(sent.from);
        let unpack = self.connection.command(&["tar", "-xpf", "-", "-C", sent.to]);
        let (packed, unpacked) = pack.pipe(names.into(), &unpack)?;
        if packed.success && unpacked.success {
            return Ok(());
        }
        Err(self.failed("send", what, said(if unpacked.success { &packed.stderr } else { &unpacked.stderr })))
    }

    /// Brings files there, which `names` names below the directory `far`, into the directory `stage`.
    pub(super) fn fetch_by_tar(&self, far: &str, names: &[PathBuf], stage: &Path) -> Result<()> {
        let names: Vec<String> = names.iter().map(|path| format!("./{}", path.display())).collect();
        for some in names.chunks(MOST_ARGUMENTS) {
            // A stream must not follow a link out of here that one before it has brought.
            without_links(stage).map_err(Error::io("tidy up", stage))?;
            let pack = self.connection.command(&in_directory(far, PACK, some));
            // Root would give files here to whoever has that number there.
            let unpack = HostCommand::new("tar").args(["--no-same-owner", "-xpf", "-"]).directory(stage);
            let (packed, unpacked) = pack.pipe(Stdio::null(), &unpack)?;
            if !packed.success || !unpacked.success {
                let stderr = if packed.success { &unpacked.stderr } else { &packed.stderr };
                return Err(self.failed("bring", far, said(stderr)));
            }
        }
        Ok(())
    }

    /// Removes what `names` names below the directory `far` there.
    ///
    /// # Errors
    /// Something cannot be removed, the connection is lost, or a signal arrived.
    pub fn remove(&self, far: &str, names: &[PathBuf]) -> Result<()> {
        self.with_arguments("tidy up", far, "rm -rf -- \"$@\"", names)
    }

    /// Runs `script` in the directory `far` there with `names` as arguments.
    fn with_arguments(&self, action: &'static str, far: &str, script: &str, names: &[PathBuf]) -> Result<()> {
        let names: Vec<String> = names.iter().map(|path| path.display().to_string()).collect();
        names.chunks(MOST_ARGUMENTS).try_for_each(|some| {
            self.connection.succeed(action, &in_directory(far, script, some), Stdio::null()).map(drop)
        })
    }
}

/// What goes there: what is not here, and what has another kind here. Nothing that is in something else which goes.
fn gone(sent: &Sent, here: &Tree, there: &Tree) -> Vec<PathBuf> {
    let files: BTreeSet<&PathBuf> = here.files.iter().map(|(path, ..)| path).collect();
    let is_sent = |path: &PathBuf| {
        sent.names.iter().any(|name| path.starts_with(name))
            && !sent.without.iter().any(|name| path.starts_with(name) || Path::new(name).starts_with(path))
    };
    let files_there = there.files.iter().map(|(path, ..)| path);
    let gone_files =
        files_there.filter(|path| here.directories.contains(*path) || is_sent(path) && !files.contains(path));
    let gone_directories = there
        .directories
        .iter()
        .filter(|path| files.contains(path) || is_sent(path) && !here.directories.contains(*path));
    let all: BTreeSet<&PathBuf> = gone_files.chain(gone_directories).collect();
    let is_top = |path: &&&PathBuf| !path.ancestors().skip(1).any(|above| all.contains(&above.to_path_buf()));
    all.iter().filter(is_top).map(|path| path.to_path_buf()).collect()
}

/// Puts a directory in the place of each link below `directory`.
fn without_links(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            without_links(&path)?;
        } else if kind.is_symlink() {
            fs::remove_file(&path)?;
            fs::create_dir(&path)?;
        }
    }
    Ok(())
}

/// What matters of tar's messages: the first, after which come those that follow from it.
fn said(stderr: &str) -> &str {
    let is_error = |line: &&str| {
        let noise = ["Removing leading", "in the future", "Exiting with failure status", "Error is not recoverable"];
        line.starts_with("tar: ") && !noise.iter().any(|noise| line.contains(noise))
    };
    stderr.lines().find(is_error).unwrap_or(stderr)
}

#[cfg(test)]
mod tests {
    use super::super::connection::problem;
    use super::*;

    #[test]
    fn the_first_error_of_tar_is_shown() {
        let stderr = "tar: ./a/b: Cannot open: Not a directory\ntar: ./a/c: Cannot open: Not a directory\n\
                      tar: Exiting with failure status due to previous errors\n";
        assert_eq!(problem(said(stderr)), "tar: ./a/b: Cannot open: Not a directory");
        assert_eq!(problem(said("sh: 1: tar: not found\n")), "sh: 1: tar: not found");
    }

    #[test]
    fn what_has_another_kind_here_goes_and_what_is_not_sent_stays() {
        let tree = |files: &[&str], directories: &[&str]| Tree {
            files: files.iter().map(|path| (path.into(), 0, 0)).collect(),
            directories: directories.iter().map(PathBuf::from).collect(),
        };
        let here = tree(&["build/a", "build/b/c", "file"], &["build", "build/b", "up"]);
        let there = tree(
            &["build/a/deep/x", "build/b", "build/target/y", "build/old", "file/z", "up", "other"],
            &["build", "build/a", "build/a/deep", "build/target", "build/gone", "build/gone/deep", "file", "elsewhere"],
        );
        let names = ["build", "file", "up/name"].map(PathBuf::from);
        let sent = Sent { from: Path::new(""), names: &names, without: &["build/target"], to: "", follows_links: true };
        let expected = ["build/a", "build/b", "build/gone", "build/old", "file", "up"].map(PathBuf::from);
        assert_eq!(gone(&sent, &here, &there), expected);
    }
}
