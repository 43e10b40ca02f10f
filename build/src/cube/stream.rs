//! Files as one stream, between this machine and a container that has this program and no other: `mnist cube job pack` and
//! `unpack`. A file is a line of JSON and its bytes; the last line says how many there were, so that a stream which was cut
//! off is never taken for a whole one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::listing::{self, FileChanges, Inventory, is_below, is_inside, is_left_out, listed};
use crate::error::{CubeError, Error, Result};
use crate::files::permissions::{mode, set_mode};
use crate::{files, interrupt};

/// In a stream of changes, the file that lists them, by their names in the stream.
pub const CHANGES: &str = "changes.json";
/// The longest line: paths have at most 4096 bytes.
const LONGEST_LINE: u64 = 65_536;

/// A line of the stream, and what follows it.
#[derive(Debug, Serialize, Deserialize)]
enum StreamLine {
    /// A directory.
    Directory { path: PathBuf },
    /// A file of so many bytes, which follow; its time in seconds since 1970, and who may do what with it.
    File { path: PathBuf, bytes: u64, time: u64, mode: u32 },
    /// Nothing follows.
    End { files: u64 },
}

/// Something that is packed: its name in the stream, and the file or directory; none for an empty directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// A path below the directory that the stream is unpacked in.
    pub name: PathBuf,
    /// What there is here. It need not be there.
    pub path: Option<PathBuf>,
}

impl Packed {
    /// Reads `NAME=PATH`, or `NAME=` for an empty directory.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, path) = text.split_once('=')?;
        Some(Self { name: name.into(), path: (!path.is_empty()).then(|| path.into()) })
    }
}

/// Writes the files of `sources` to `output`: all of them, or what has changed in the directory of the file `since`, which
/// [`mark`](super::in_pod::mark) has made.
///
/// # Errors
/// A file cannot be read, or the output cannot be written.
pub fn pack(sources: &[Packed], since: Option<&Path>, output: &mut impl Write) -> Result<()> {
    let changes = since.map(|since| changes(sources, since)).transpose()?;
    let written: Option<BTreeSet<&PathBuf>> =
        changes.as_ref().map(|changes| changes.written.iter().map(|(path, _)| path).collect());
    let is_sent = |path: &PathBuf| written.as_ref().is_none_or(|written| written.contains(path)) && !is_left_out(path);
    let mut files = 0;
    for Packed { name, path } in sources {
        match path {
            Some(path) if path.is_file() && !is_sent(path) => {}
            Some(path) if path.is_file() => files += pack_file(name, path, output)?,
            Some(path) if !path.exists() => {}
            path => {
                put(&StreamLine::Directory { path: name.clone() }, output)?;
                for (below, ..) in
                    path.iter().map(|path| listing::list(path, &[])).collect::<Result<Vec<_>>>()?.concat()
                {
                    let file = path.iter().map(|path| path.join(&below)).collect::<PathBuf>();
                    if is_sent(&file) {
                        files += pack_file(&name.join(&below), &file, output)?;
                    }
                }
            }
        }
    }
    if let Some(changes) = &changes {
        let json = serde_json::to_vec(&in_stream(changes, sources))
            .map_err(|error| Error::io("write", "stdout")(error.into()))?;
        let (path, bytes) = (CHANGES.into(), json.len() as u64);
        put(&StreamLine::File { path, bytes, time: 0, mode: 0o600 }, output)?;
        output.write_all(&json).map_err(Error::io("write", "stdout"))?;
        files += 1;
    }
    put(&StreamLine::End { files }, output)?;
    output.flush().map_err(Error::io("write", "stdout"))
}

/// What has changed in the directory of the file `since`, with whole paths.
fn changes(sources: &[Packed], since: &Path) -> Result<FileChanges> {
    let directories = sources.iter().filter_map(|source| source.path.as_ref());
    directories.filter(|path| path.is_dir()).try_for_each(|path| listing::settle(path))?;
    let json = fs::read(since).map_err(Error::io("read", since))?;
    let before: Inventory = serde_json::from_slice(&json).map_err(|error| Error::io("read", since)(error.into()))?;
    let directory = since.parent().unwrap_or(since);
    let changes = before.changes_to(&Inventory::of(directory, None)?);
    Ok(changes.renamed(|path| Some(directory.join(path))))
}

/// The changes of `sources`, by their names in the stream.
fn in_stream(changes: &FileChanges, sources: &[Packed]) -> FileChanges {
    changes.renamed(|whole| {
        let mut sources = sources.iter().filter_map(|Packed { name, path }| Some((name, path.as_ref()?)));
        let (name, below) = sources.find_map(|(name, path)| Some((name, whole.strip_prefix(path).ok()?)))?;
        Some(name.join(below).components().collect()) // without a slash after a file
    })
}

/// Writes one file; returns how many it wrote.
fn pack_file(name: &Path, path: &Path, output: &mut impl Write) -> Result<u64> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let metadata = file.metadata().map_err(Error::io("read", path))?;
    let (path_there, bytes, time) = listed(name.into(), &metadata);
    put(&StreamLine::File { path: path_there, bytes, time, mode: mode(&metadata) }, output)?;
    let copied = io::copy(&mut file.take(bytes), output).map_err(Error::io("copy", path))?;
    // A file that has become shorter would shift all that follows.
    if copied == bytes { Ok(1) } else { Err(Error::io("read", path)(io::ErrorKind::UnexpectedEof.into())) }
}

fn put(line: &StreamLine, output: &mut impl Write) -> Result<()> {
    let text = serde_json::to_string(line).map_err(|error| Error::io("write", "stdout")(error.into()))?;
    writeln!(output, "{text}").map_err(Error::io("write", "stdout"))
}

/// Writes what `input` holds below `directory`, and nothing outside of it.
///
/// # Errors
/// The stream is not whole or leads elsewhere, or a file cannot be written.
pub fn unpack(input: &mut impl BufRead, directory: &Path) -> Result<()> {
    let mut files = 0;
    loop {
        interrupt::check()?;
        match next(input)? {
            StreamLine::Directory { path } if is_inside(&path) => files::make_directory(&directory.join(path))?,
            StreamLine::File { path, bytes, time, mode } if is_below(&path) => {
                let target = directory.join(path);
                files::make_directory(target.parent().unwrap_or(directory))?;
                let mut file = File::create(&target).map_err(Error::io("write", &target))?;
                let copied = io::copy(&mut input.take(bytes), &mut file).map_err(Error::io("write", &target))?;
                if copied < bytes {
                    return Err(cut(format!("{copied} of {bytes} bytes of {}", target.display())));
                }
                let moment = UNIX_EPOCH.checked_add(Duration::from_secs(time));
                let moment = moment.ok_or_else(|| cut(format!("the time {time} of {}", target.display())))?;
                file.set_modified(moment).map_err(Error::io("write", &target))?;
                set_mode(&target, mode | 0o600)?; // its owner can replace it
                files += 1;
            }
            StreamLine::End { files: expected } if expected == files => return Ok(()),
            StreamLine::End { files: expected } => return Err(cut(format!("{files} of {expected} files"))),
            other => return Err(cut(format!("{other:?}, which is no path below the directory"))),
        }
    }
}

fn next(input: &mut impl BufRead) -> Result<StreamLine> {
    let mut line = String::new();
    input.take(LONGEST_LINE).read_line(&mut line).map_err(Error::io("read", "stdin"))?;
    if line.is_empty() {
        return Err(cut("its end".into()));
    }
    serde_json::from_str(&line).map_err(|_| cut(format!("{:?}", crate::text::shortened(line.trim_end()))))
}

fn cut(found: String) -> Error {
    CubeError::Stream { found }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cube::in_pod;
    use crate::cube::listing::LEFT_OUT;

    fn packed(directory: &Path) -> Vec<u8> {
        fs::create_dir_all(directory.join("data/deep")).unwrap();
        fs::write(directory.join("data/deep/a b"), "first").unwrap();
        fs::write(directory.join("data/empty"), "").unwrap();
        for end in LEFT_OUT {
            fs::write(directory.join("data").join(end), "held").unwrap();
        }
        fs::write(directory.join("p.yaml"), "second").unwrap();
        // Long before now, when a file is made anew.
        let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().write(true).open(directory.join("p.yaml")).unwrap().set_modified(old).unwrap();
        let source =
            |name: &str, path: Option<&str>| Packed { name: name.into(), path: path.map(|path| directory.join(path)) };
        let sources = [source("io0", Some("data")), source("io1/p.yaml", Some("p.yaml")), source("io2", None)];
        let mut stream = vec![];
        pack(&[&sources[..], &[source("io3", Some("missing"))]].concat(), None, &mut stream).unwrap();
        stream
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stream = packed(here.path());
        unpack(&mut &stream[..], there.path()).unwrap();
        let names: Vec<_> = listing::list(there.path(), &[]).unwrap().into_iter().map(|(path, ..)| path).collect();
        assert_eq!(names, ["io0/deep/a b", "io0/empty", "io1/p.yaml"].map(PathBuf::from));
        assert!(there.path().join("io2").is_dir());
        assert_eq!(fs::read_to_string(there.path().join("io0/deep/a b")).unwrap(), "first");
        let time = |path: PathBuf| listed(path.clone(), &fs::metadata(path).unwrap()).2;
        assert_eq!(time(there.path().join("io1/p.yaml")), time(here.path().join("p.yaml")));
    }

    #[test]
    fn a_stream_of_changes_holds_what_is_new_and_names_what_is_gone() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| here.path().join(name);
        fs::create_dir_all(at("io0/deep")).unwrap();
        fs::create_dir_all(at("io1")).unwrap();
        for name in ["io0/same", "io0/new", "io0/deep/gone", "io1/answer", "io1/other", "elsewhere"] {
            fs::write(at(name), "old").unwrap();
        }
        in_pod::mark(&at(".sent")).unwrap();
        fs::write(at("io0/new"), "newer").unwrap();
        for name in ["io0/deep/gone", "io1/answer", "io1/other", "elsewhere"] {
            fs::remove_file(at(name)).unwrap();
        }
        let source = |name: &str, path: &str| Packed { name: name.into(), path: Some(at(path)) };
        let mut stream = vec![];
        let sources = [source("model_dir", "io0"), source("answer/answer", "io1/answer")];
        pack(&sources, Some(&at(".sent")), &mut stream).unwrap();
        unpack(&mut &stream[..], there.path()).unwrap();
        let names: Vec<_> = listing::list(there.path(), &[]).unwrap().into_iter().map(|(path, ..)| path).collect();
        assert_eq!(names, [CHANGES, "model_dir/new"].map(PathBuf::from));
        let changes: FileChanges = serde_json::from_slice(&fs::read(there.path().join(CHANGES)).unwrap()).unwrap();
        assert_eq!(changes.written.iter().map(|(path, _)| path).collect::<Vec<_>>(), [Path::new("model_dir/new")]);
        let removed: Vec<_> = changes.removed.iter().map(|(path, size, _)| (path.to_str().unwrap(), *size)).collect();
        assert_eq!(removed, [("model_dir/deep/gone", 3), ("answer/answer", 3)]);
    }

    #[test]
    fn a_stream_that_is_cut_off_anywhere_is_refused() {
        let here = tempfile::tempdir().unwrap();
        let stream = packed(here.path());
        for length in 0..stream.len() - 1 {
            let there = tempfile::tempdir().unwrap();
            let error = unpack(&mut &stream[..length], there.path()).unwrap_err().to_string();
            assert!(error.starts_with("the copy is not whole: found "), "{length}: {error}");
        }
    }

    #[test]
    fn a_time_that_no_clock_has_is_refused() {
        let there = tempfile::tempdir().unwrap();
        let line = StreamLine::File { path: "file".into(), bytes: 0, time: u64::MAX, mode: 0o600 };
        let stream = serde_json::to_string(&line).unwrap() + "\n";
        let error = unpack(&mut stream.as_bytes(), there.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the copy is not whole: found the time {} of ", u64::MAX)), "{error}");
    }

    #[test]
    fn a_stream_does_not_lead_out_of_its_directory() {
        let there = tempfile::tempdir().unwrap();
        let inner = there.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for path in ["../a", "/tmp/a", "", "b/../../a"] {
            let line = serde_json::json!({ "File": { "path": path, "bytes": 1, "time": 0, "mode": 0 } });
            let error = unpack(&mut format!("{line}\nx").as_bytes(), &inner).unwrap_err().to_string();
            assert!(error.contains("no path below the directory"), "{error}");
        }
        for path in ["../a", "b/../../a"] {
            let line = serde_json::json!({ "Directory": { "path": path } });
            let error = unpack(&mut format!("{line}\n").as_bytes(), &inner).unwrap_err().to_string();
            assert!(error.contains("no path below the directory"), "{error}");
        }
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_stream_that_lost_a_file_is_refused() {
        let there = tempfile::tempdir().unwrap();
        let error = unpack(&mut &b"{\"End\":{\"files\":1}}\n"[..], there.path()).unwrap_err().to_string();
        assert!(error.starts_with("the copy is not whole: found 0 of 1 files"), "{error}");
    }

    #[test]
    fn a_file_keeps_its_permissions_and_its_owner_can_replace_it() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (here.path().join("a"), there.path().join("a"));
        fs::write(&from, "text").unwrap();
        for (given, expected) in [(0o750, 0o750), (0o444, 0o644)] {
            set_mode(&from, given).unwrap();
            let mut stream = vec![];
            pack(&[Packed { name: "a".into(), path: Some(from.clone()) }], None, &mut stream).unwrap();
            unpack(&mut &stream[..], there.path()).unwrap();
            assert_eq!(mode(&fs::metadata(&to).unwrap()) & 0o777, expected);
        }
    }
}
