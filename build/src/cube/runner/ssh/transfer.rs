//! Files sent to another machine and brought back: by rsync, or where one side has none by tar. Only what differs in size or
//! time is sent.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::super::super::command::{HostCommand, ProgramOutput, file_of};
use super::super::super::listing::{self, LEFT_OUT, Tree, has_below, is_below, is_left_out, listed};
use super::connection::{Connection, problem};
use crate::error::{CubeError, Error, Result};

/// Files between this machine and another.
#[derive(Debug)]
pub struct FileTransfer<'a> {
    pub connection: &'a Connection,
    /// This program over there.
    pub program: &'a str,
    pub has_rsync: bool,
}

/// What goes there.
#[derive(Debug)]
pub struct Sent<'a> {
    /// The directory here that all names are in.
    pub from: &'a Path,
    /// Files and directories.
    pub names: &'a [PathBuf],
    /// Paths that stay here, from that directory on.
    pub without: &'a [&'a str],
    /// The directory there.
    pub to: &'a str,
    /// Whether what links lead to is sent in their place.
    pub follows_links: bool,
}

/// Files of so many bytes are compared by their contents: two may have been made within a second, with one size.
const COMPARED: u64 = 4 << 20;
/// If they are not more than these.
const FEW: usize = 1000;

impl Sent<'_> {
    /// What has the names: files, or the directories themselves, which a link at this place stands for.
    fn sources(&self, names: &[&PathBuf]) -> Vec<PathBuf> {
        let source = |name: &&PathBuf| {
            let source = Path::new(".").join(name);
            if self.from.join(name).is_dir() { source.join("") } else { source } // with a slash at its end
        };
        names.iter().map(source).collect()
    }

    /// Paths that stay here below `name`, from there on.
    fn left_out_of(&self, name: &Path) -> Vec<&Path> {
        self.without.iter().filter_map(|path| Path::new(path).strip_prefix(name).ok()).collect()
    }

    /// All files and directories that the names stand for, with the directories on the way to them.
    pub(super) fn tree(&self) -> Result<Tree> {
        let mut all = Tree::default();
        for name in self.names {
            let path = self.from.join(name);
            if path.is_dir() {
                let Tree { files, directories } = listing::tree(&path, &self.left_out_of(name))?;
                all.files.extend(files.into_iter().map(|(below, size, time)| (name.join(below), size, time)));
                all.directories.extend(directories.into_iter().map(|below| name.join(below)));
                all.directories.insert(name.clone());
            } else if let Ok(metadata) = fs::metadata(&path) {
                all.files.push(listed(name.clone(), &metadata));
            }
            all.directories.extend(name.ancestors().skip(1).map(Path::to_path_buf));
        }
        all.files.retain(|(path, ..)| !is_left_out(path));
        all.directories.remove(Path::new(""));
        Ok(all)
    }

    /// Whether a name stands for few files, which have at most so many bytes together.
    pub(super) fn is_small(&self, name: &Path, bytes: u64) -> Result<bool> {
        let path = self.from.join(name);
        if path.is_dir() {
            return listing::is_small(&path, &self.left_out_of(name), (FEW, bytes));
        }
        Ok(fs::metadata(&path).map_or(0, |metadata| metadata.len()) <= bytes)
    }
}

impl FileTransfer<'_> {
    /// Makes what is there equal to what is here.
    ///
    /// # Errors
    /// A file cannot be read or written, the connection is lost, or a signal arrived.
    pub fn send(&self, what: &'static str, sent: &Sent) -> Result<()> {
        if sent.names.is_empty() {
            return Ok(());
        }
        self.connection.succeed("make a directory", &["mkdir", "-p", sent.to], Stdio::null())?;
        if self.has_rsync { self.send_by_rsync(what, sent) } else { self.send_by_tar(what, sent) }
    }

    fn rsync(&self) -> HostCommand {
        let (ssh, _) = self.connection.for_rsync();
        // -s: no shell takes paths apart. --no-implied-dirs: a link on the way there stays one.
        let command = HostCommand::new("rsync").args(["-rtps", "--stats", "-e", &ssh]);
        command.args(LEFT_OUT.map(|name| format!("--exclude=*{name}")))
    }

    fn send_by_rsync(&self, what: &'static str, sent: &Sent) -> Result<()> {
        let (mut small, mut large) = (vec![], vec![]);
        for name in sent.names {
            if sent.is_small(name, COMPARED)? { small.push(name) } else { large.push(name) }
        }
        let mut bytes = vec![];
        for (names, compares) in [(small, Some("--checksum")), (large, None)] {
            if !names.is_empty() {
                bytes.push(self.rsync_there(what, sent, &names, compares)?);
            }
        }
        tracing::info!("{}: {what}: {} bytes sent", self.connection.host(), bytes.join(" and "));
        Ok(())
    }

    /// Sends some of the names; returns how many bytes that took, as rsync says it.
    fn rsync_there(
        &self,
        what: &'static str,
        sent: &Sent,
        names: &[&PathBuf],
        compares: Option<&str>,
    ) -> Result<String> {
        let (_, host) = self.connection.for_rsync();
        let links = if sent.follows_links { "-LR" } else { "-lR" };
        let command = self.rsync().args([links, "--no-implied-dirs", "--delete"]).args(compares).directory(sent.from);
        let command = command.args(sent.without.iter().map(|name| format!("--exclude=/{name}")));
        let command = command.arg("--").args(sent.sources(names)).arg(format!("{host}:{}/", sent.to));
        let output = command.complete(Stdio::null())?;
        if !output.success && !only_lacks_targets(&output) {
            return Err(self.failed("send", what, &output.stderr));
        }
        let sent = output.stdout.lines().find_map(|line| line.strip_prefix("Total bytes sent: "));
        Ok(sent.unwrap_or("some").into())
    }

    pub(super) fn failed(&self, verb: &str, what: &str, stderr: &str) -> Error {
        if let Err(lost) = self.connection.output(&["true"]) {
            return lost; // which is what the programs stumbled over
        }
        let (host, action) = (self.connection.host(), format!("{verb} {what}"));
        CubeError::Transfer { host, action, problem: cause(stderr) }.into()
    }

    /// What is below the directory `far` there.
    ///
    /// # Errors
    /// It cannot be listed, or the connection is lost.
    pub fn tree(&self, far: &str) -> Result<Tree> {
        let json = self.connection.succeed("list files", &[self.program, "cube", "job", "list", far], Stdio::null())?;
        let tree: Tree = serde_json::from_str(&json).map_err(|error| self.failed("list", far, &error.to_string()))?;
        let mut paths = tree.files.iter().map(|(path, ..)| path).chain(&tree.directories);
        match paths.find(|path| !is_below(path)) {
            None => Ok(tree),
            Some(path) => Err(self.failed("list", far, &format!("expected paths below it, found {}", path.display()))),
        }
    }

    /// Brings files there, which `names` names below the directory `far`, into the directory `stage`, and no others.
    ///
    /// # Errors
    /// A file cannot be read or written, the connection is lost, or a signal arrived.
    pub fn fetch(&self, far: &str, names: &[PathBuf], stage: &Path) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let wanted = names.iter().map(|name| stage.join(name)).collect();
        if self.has_rsync {
            self.fetch_by_rsync(far, names, stage)?
        } else {
            self.fetch_by_tar(far, names, stage)?
        }
        keep_only(&wanted, stage).map_err(Error::io("tidy up", stage))
    }

    fn fetch_by_rsync(&self, far: &str, names: &[PathBuf], stage: &Path) -> Result<()> {
        let (ssh, host) = self.connection.for_rsync();
        // As a list: of arguments, the other side would take some for patterns.
        let command = HostCommand::new("rsync").args(["-ltps", "--no-implied-dirs", "--from0", "--files-from=-"]);
        let command = command.args(["-e", &ssh, "--"]).arg(format!("{host}:{far}/")).arg(stage);
        let output = command.complete(names_file(names)?.into())?;
        if output.success { Ok(()) } else { Err(self.failed("bring", far, &output.stderr)) }
    }
}

/// Removes what else than `wanted` is below `directory`, except the files that guard one. A link does not stay where a
/// directory is wanted: what is read in it would be outside.
fn keep_only(wanted: &BTreeSet<PathBuf>, directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            keep_only(wanted, &path)?;
            if !wanted.contains(&path) {
                let _ = fs::remove_dir(&path); // it stays where something is in it
            }
            continue;
        }
        if has_below(wanted, &path) || !wanted.contains(&path) && !is_left_out(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What matters of the messages of rsync or tar: the line that names the cause. The others follow from it.
fn cause(stderr: &str) -> String {
    const CAUSES: [&str; 4] =
        ["No space left on device", "Disk quota exceeded", "Read-only file system", "Permission denied"];
    let line = |cause: &&str| stderr.lines().find(|line| line.contains(*cause));
    match CAUSES.iter().find_map(line) {
        Some(line) => line.trim().into(),
        // Tar has the cause only from its next write.
        None if stderr.contains("Wrote only ") => format!("{}: the disk may be full", problem(stderr)),
        None => problem(stderr),
    }
}

/// Whether rsync has sent all but links that lead nowhere.
fn only_lacks_targets(output: &ProgramOutput) -> bool {
    /// "Partial transfer due to error".
    const PARTIAL: i32 = 23;
    let mut lines = output.stderr.lines().filter(|line| !line.starts_with("rsync error:") && !line.trim().is_empty());
    output.code == Some(PARTIAL) && lines.all(|line| line.starts_with("symlink has no referent: "))
}

/// The words that run `script` with `arguments` in a directory there.
pub(super) fn in_directory(far: &str, script: &str, arguments: &[String]) -> Vec<String> {
    let script = format!("mkdir -p \"$1\" && cd \"$1\" && shift && {script}");
    ["sh", "-c", &script, "sh", far].map(String::from).into_iter().chain(arguments.iter().cloned()).collect()
}

/// The names, each with a zero after it, as `tar --null -T` reads them.
pub(super) fn names_file<P: AsRef<Path>>(names: &[P]) -> Result<File> {
    let lines = names.iter().map(|name| [b"./", name.as_ref().as_os_str().as_encoded_bytes(), b"\0"].concat());
    file_of(&lines.collect::<Vec<_>>().concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_stays_where_a_directory_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("stage/deep")).unwrap();
        fs::write(at("file"), "mine").unwrap();
        for link in ["stage/deep/way", "stage/wanted", "stage/other"] {
            std::os::unix::fs::symlink(directory.path(), at(link)).unwrap();
        }
        let wanted = ["stage/deep/way", "stage/deep/way/file", "stage/wanted"].map(at).into();
        keep_only(&wanted, &at("stage")).unwrap();
        assert!(at("stage/wanted").is_symlink() && !at("stage/other").is_symlink());
        assert!(!at("stage/deep/way").is_symlink() && at("file").is_file());
    }

    #[test]
    fn the_line_with_the_cause_is_shown() {
        let full = "rsync: [receiver] write failed on \"/data/x\": No space left on device (28)";
        let stderr = format!("{full}\nrsync error: x\nrsync: [sender] write error: Broken pipe (32)\n");
        assert_eq!(cause(&stderr), full);
        let quota = "tar: ./data/y: Cannot write: Disk quota exceeded";
        assert_eq!(cause(&format!("tar: ./data/x: Wrote only 1 of 2 bytes\n{quota}\n")), quota);
        let short = "tar: ./data/x: Wrote only 8704 of 10240 bytes";
        assert_eq!(cause(short), format!("{short}: the disk may be full"));
        assert_eq!(cause("one\nanother\n"), "another");
    }

    #[test]
    fn what_stays_here_does_not_make_a_directory_large() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["build/src/lib.rs", "build/target/large", "target/kept"] {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, vec![0; if name.ends_with("large") { 5000 } else { 4 }]).unwrap();
        }
        let sent = Sent { from: directory.path(), names: &[], without: &["build/target"], to: "", follows_links: true };
        let is_small = |name: &str, bytes| sent.is_small(Path::new(name), bytes).unwrap();
        assert!(is_small("build", 4) && !is_small("build", 3));
        assert!(is_small("target", 4) && !is_small("target", 3));
        assert!(is_small("build/src/lib.rs", 4) && !is_small("build/src/lib.rs", 3) && is_small("nothing", 0));
        let names = [PathBuf::from("build")];
        let tree = Sent { names: &names, ..sent }.tree().unwrap();
        assert_eq!(tree.files.into_iter().map(|(path, ..)| path).collect::<Vec<_>>(), [Path::new("build/src/lib.rs")]);
        assert_eq!(tree.directories, ["build", "build/src"].map(PathBuf::from).into());
    }
}
