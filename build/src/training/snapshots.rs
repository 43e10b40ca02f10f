//! The snapshots in `MODEL_DIR/snapshots`: which is the newest, and how new ones are written while the training goes on.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::warn;

use super::snapshot::{self, RunId, Snapshot, SnapshotHead};
use crate::error::{Error, Result};
use crate::files::{self, AtomicFile, OutputDirectory, atomic};
use crate::interrupt;
use crate::memory;
use crate::model::tensors::Fault;
use crate::open;
use crate::output::names;
use crate::threads;

/// How many snapshots of a training stay: the newest, and others should it be damaged.
pub const NEWEST_KEPT: usize = 3;
/// How often the training that waits to hand over a snapshot looks for a signal.
const TICK: Duration = Duration::from_millis(5);

/// Whether there are snapshots in `model_dir`, sound or not.
pub fn exist(model_dir: &Path) -> bool {
    paths(&model_dir.join(names::SNAPSHOTS)).is_ok_and(|paths| !paths.is_empty())
}

/// The run id of a training that begins now, after all that have snapshots in `model_dir`, whatever the clock says.
pub fn new_run(model_dir: &Path) -> RunId {
    let paths = paths(&model_dir.join(names::SNAPSHOTS)).unwrap_or_default();
    let before = paths.iter().filter_map(|path| Some(opened(path).ok()?.1.run().begin)).max();
    let now = RunId::now();
    RunId { begin: before.map_or(now.begin, |before| now.begin.max(before.saturating_add(1))), ..now }
}

/// The newest sound snapshot in `model_dir` and its path: that of the last epoch of the training that began last. One that
/// is damaged or cannot be read is passed over with a warning; a damaged one gets another name, so that there is only one.
///
/// # Errors
/// None is sound and one cannot be read, one is of a newer format or needs more memory than there is, or two of the newest
/// epoch differ.
pub fn newest(model_dir: &Path) -> Result<Option<(PathBuf, Snapshot)>> {
    let mut heads = vec![];
    let mut unreadable = None;
    for path in paths(&model_dir.join(names::SNAPSHOTS))? {
        if let Some((_, head)) = sound(&path, opened(&path), &mut unreadable)? {
            heads.push((head.run().clone(), head.epoch(), path));
        }
    }
    heads.sort_by(|a, b| (&b.0, b.1, &a.2).cmp(&(&a.0, a.1, &b.2)));
    let mut newest: Option<(PathBuf, Snapshot)> = None;
    for (run, epoch, path) in heads {
        if newest.as_ref().is_some_and(|(_, found)| (&found.run, found.epoch()) != (&run, epoch)) {
            break;
        }
        let Some((mut file, head)) = sound(&path, opened(&path), &mut unreadable)? else { continue };
        memory::require(head.bytes(), &path.display().to_string())?;
        let Some(read) = sound(&path, head.tensors(&mut file), &mut unreadable)? else { continue };
        match &newest {
            Some((first, found)) if *found != read => {
                let problem = format!("is of the same training and epoch {epoch} as {}, but differs", first.display());
                let next = "leave the right one of the two there, and move the other into another directory".into();
                return Err(Error::Snapshot { path, problem, next });
            }
            Some(_) => {}
            None => newest = Some((path, read)),
        }
    }
    match (newest, unreadable) {
        (None, Some(error)) => Err(error),
        (newest, _) => Ok(newest),
    }
}

/// The files in `directory` that have a snapshot's name, sorted.
fn paths(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.and_then(|entries| entries.collect::<io::Result<Vec<_>>>()),
    };
    let entries = entries.map_err(Error::io("read the directory", directory))?;
    let ours = entries.iter().filter(|entry| {
        entry.file_name().to_str().is_some_and(names::is_snapshot) && entry.file_type().is_ok_and(|kind| !kind.is_dir())
    });
    let mut paths: Vec<_> = ours.map(fs::DirEntry::path).collect();
    paths.sort();
    Ok(paths)
}

fn opened(path: &Path) -> std::result::Result<(File, SnapshotHead), Fault> {
    let mut file = open::regular(path)?;
    let length = file.metadata()?.len();
    let head = SnapshotHead::read(&mut file, length)?;
    Ok((file, head))
}

/// Gives a damaged snapshot another name; says which, if it could. What has that name already stays.
fn set_aside(path: &Path) -> String {
    let mut aside = path.as_os_str().to_owned();
    aside.push(names::DAMAGED);
    if Path::new(&aside).symlink_metadata().is_ok() {
        return String::new();
    }
    fs::rename(path, &aside).map_or(String::new(), |()| format!(", kept as {}", aside.display()))
}

/// What was read from the file at `path`; none after a warning if it is damaged or cannot be read. The first error of
/// those that cannot becomes `unreadable`.
fn sound<T>(path: &Path, read: std::result::Result<T, Fault>, unreadable: &mut Option<Error>) -> Result<Option<T>> {
    let problem = match read {
        Ok(read) => return Ok(Some(read)),
        Err(Fault::Newer(problem)) => {
            let next = "use the version of the program that wrote it, or train without --resume".into();
            return Err(Error::Snapshot { path: path.into(), problem, next });
        }
        Err(Fault::Wrong(problem)) => format!("{}: {problem}{}", path.display(), set_aside(path)),
        Err(Fault::Unreadable(error)) => unreadable.get_or_insert(Error::io("read", path)(error)).to_string(),
    };
    warn!("{problem}: passed over for the next older snapshot, if there is one");
    Ok(None)
}

/// Writes snapshots of one training, on a thread of its own where the system starts one. Only when one is being
/// written and another waits does the training wait.
#[derive(Debug)]
pub struct SnapshotWriter {
    directory: PathBuf,
    /// None before the first snapshot.
    writing: Option<Writing>,
}

/// Where snapshots are written.
#[derive(Debug)]
enum Writing {
    Thread(SyncSender<Snapshot>, JoinHandle<SnapshotFiles>),
    Here(SnapshotFiles),
    /// The thread panicked, which [`SnapshotWriter::close`] passes on.
    Panicked(Box<dyn Any + Send>),
}

impl SnapshotWriter {
    /// Prepares for snapshots in `model_dir`. Their directory is made for the first; one that is there is checked now.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(model_dir: &Path) -> Result<Self> {
        let directory = model_dir.join(names::SNAPSHOTS);
        if directory.symlink_metadata().is_ok() {
            OutputDirectory::open(&directory)?;
        }
        Ok(Self { directory, writing: None })
    }

    /// Writes `snapshot` and removes those of its training beyond the [`NEWEST_KEPT`]. A failure is a warning now, and the
    /// first is the error of [`close`](Self::close). The snapshot comes back if a signal ends the wait for earlier ones.
    pub fn write(&mut self, mut snapshot: Snapshot) -> Option<Snapshot> {
        match self.writing.get_or_insert_with(|| Writing::begin(&self.directory)) {
            Writing::Thread(sender, _) => loop {
                match sender.try_send(snapshot) {
                    Err(TrySendError::Full(waiting)) if interrupt::is_received() => return Some(waiting),
                    Err(TrySendError::Full(waiting)) => snapshot = waiting,
                    Ok(()) | Err(TrySendError::Disconnected(_)) => return None, // the thread panicked
                }
                thread::sleep(TICK);
            },
            Writing::Here(files) => files.add(&snapshot),
            Writing::Panicked(_) => {}
        }
        None
    }

    /// Writes `last` and waits until all snapshots are written, whatever signal arrives.
    ///
    /// # Errors
    /// The first that could not be written.
    pub fn close(mut self, last: Option<Snapshot>) -> Result<()> {
        if let Some(last) = last {
            match self.writing.get_or_insert_with(|| Writing::begin(&self.directory)) {
                Writing::Thread(sender, _) => drop(sender.send(last)),
                Writing::Here(files) => files.add(&last),
                Writing::Panicked(_) => {}
            }
        }
        self.end()
    }

    /// Waits until all snapshots so far are written. Others would be written by the calling thread.
    pub fn settle(&mut self) {
        self.writing = self.writing.take().map(Writing::settled);
    }

    fn end(&mut self) -> Result<()> {
        self.settle();
        match self.writing.take() {
            Some(Writing::Here(SnapshotFiles { failure: Some(failure), .. })) => Err(failure),
            Some(Writing::Panicked(panic)) => resume_unwind(panic),
            _ => Ok(()),
        }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        let _ = self.end(); // a failure was a warning
    }
}

impl Writing {
    fn begin(directory: &Path) -> Self {
        let (sender, receiver) = mpsc::sync_channel::<Snapshot>(1);
        let mut files = SnapshotFiles::new(directory);
        let work = move || {
            receiver.into_iter().for_each(|snapshot| files.add(&snapshot));
            files
        };
        match threads::begin(work) {
            Ok(thread) => Self::Thread(sender, thread),
            Err(error) => {
                threads::refused(&error.to_string());
                Self::Here(SnapshotFiles::new(directory))
            }
        }
    }

    /// Waits until all are written.
    fn settled(self) -> Self {
        let Self::Thread(sender, thread) = self else { return self };
        drop(sender);
        thread.join().map_or_else(Self::Panicked, Self::Here)
    }
}

/// The files of one training.
#[derive(Debug)]
struct SnapshotFiles {
    directory: PathBuf,
    /// Those that are there, by their epochs; none before the first is written.
    written: Option<Vec<(u32, PathBuf)>>,
    /// The first.
    failure: Option<Error>,
}

impl SnapshotFiles {
    fn new(directory: &Path) -> Self {
        Self { directory: directory.into(), written: None, failure: None }
    }

    fn add(&mut self, snapshot: &Snapshot) {
        if let Err(error) = self.try_add(snapshot) {
            warn!("{error}: the training goes on without the snapshot after epoch {}", snapshot.epoch());
            self.failure.get_or_insert(error);
        }
    }

    fn try_add(&mut self, snapshot: &Snapshot) -> Result<()> {
        let written = match &mut self.written {
            Some(written) => written,
            None => {
                OutputDirectory::open(&self.directory)?;
                self.written.insert(of_run(&self.directory, &snapshot.run)?)
            }
        };
        let path = self.directory.join(names::snapshot(snapshot.epoch()));
        let mut file = AtomicFile::create(&path)?;
        snapshot::write(snapshot, &mut file).map_err(Error::io("write", &path))?;
        file.sync()?;
        file.place().map_err(atomic::without_copy)?;
        written.retain(|(_, before)| *before != path);
        written.push((snapshot.epoch(), path));
        written.sort();
        let older = written.len().saturating_sub(NEWEST_KEPT);
        for (_, path) in written.drain(..older) {
            files::remove(&path).unwrap_or_else(|error| warn!("{error}: this older snapshot stays"));
        }
        Ok(())
    }
}

/// The snapshots of the training `run` in `directory`, with their epochs.
fn of_run(directory: &Path, run: &RunId) -> Result<Vec<(u32, PathBuf)>> {
    let epoch = |path: &Path| {
        let (_, head) = opened(path).ok()?;
        (head.run() == run).then(|| head.epoch())
    };
    Ok(paths(directory)?.into_iter().filter_map(|path| Some((epoch(&path)?, path))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::snapshot::tests::example;

    /// A MODEL_DIR with these snapshots.
    fn model_dir(files: &[(&str, &Snapshot)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("snapshots")).unwrap();
        for (name, snapshot) in files {
            fs::write(dir.path().join("snapshots").join(name), snapshot::encode(snapshot)).unwrap();
        }
        dir
    }

    fn files(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path().join("snapshots")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The name of the newest and its contents.
    fn found(dir: &tempfile::TempDir) -> Option<(String, Snapshot)> {
        let (path, snapshot) = newest(dir.path()).unwrap()?;
        Some((path.file_name().unwrap().to_str().unwrap().into(), snapshot))
    }

    fn named(name: &str, snapshot: Snapshot) -> Option<(String, Snapshot)> {
        Some((name.into(), snapshot))
    }

    #[test]
    fn the_newest_is_of_the_last_training_and_its_last_epoch() {
        assert_eq!(newest(tempfile::tempdir().unwrap().path()).unwrap(), None);
        assert_eq!(found(&model_dir(&[])), None);
        let dir = model_dir(&[
            ("epoch-009.safetensors", &example(1, 9)),
            ("epoch-002.safetensors", &example(2, 2)),
            ("epoch-001.safetensors", &example(2, 1)),
            (".epoch-007.safetensors.abc.mnist-part", &example(3, 7)),
            ("epoch-8.safetensors", &example(3, 8)),
        ]);
        fs::create_dir(dir.path().join("snapshots/epoch-010.safetensors")).unwrap();
        assert_eq!(found(&dir), named("epoch-002.safetensors", example(2, 2)));
    }

    #[test]
    fn damaged_ones_are_passed_over_and_get_another_name() {
        let dir = model_dir(&[
            ("epoch-001.safetensors", &example(1, 1)),
            ("epoch-002.safetensors", &example(1, 2)),
            ("epoch-003.safetensors", &example(1, 3)),
        ]);
        let cut = |name: &str, length| {
            let file = File::options().write(true).open(dir.path().join("snapshots").join(name)).unwrap();
            file.set_len(length).unwrap();
        };
        cut("epoch-003.safetensors", 2000);
        assert_eq!(found(&dir), named("epoch-002.safetensors", example(1, 2)));
        assert_eq!(files(&dir)[1..], ["epoch-002.safetensors", "epoch-003.safetensors.damaged"]);
        let mut infinite = example(1, 2);
        infinite.state.slots[0][0] = f32::NAN;
        fs::write(dir.path().join("snapshots/epoch-002.safetensors"), snapshot::encode(&infinite)).unwrap();
        assert_eq!(found(&dir), named("epoch-001.safetensors", example(1, 1)));
        cut("epoch-001.safetensors", 0);
        assert_eq!(found(&dir), None);
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_read_is_passed_over_for_a_sound_one_and_else_an_error() {
        use std::os::unix::fs::symlink;
        let dir = model_dir(&[("epoch-002.safetensors", &example(1, 2))]);
        let path = |name: &str| dir.path().join("snapshots").join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("epoch-005.safetensors"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        symlink("epoch-004.safetensors", path("epoch-004.safetensors")).unwrap();
        symlink("/dev/zero", path("epoch-003.safetensors")).unwrap();
        assert_eq!(found(&dir), named("epoch-002.safetensors", example(1, 2)));
        fs::remove_file(path("epoch-002.safetensors")).unwrap();
        let message = newest(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with("epoch-003.safetensors: cannot read: expected a file, found a device"), "{message}");
    }

    #[test]
    fn a_new_training_comes_after_all_others_even_if_the_clock_was_ahead() {
        let dir = tempfile::tempdir().unwrap();
        assert!(new_run(dir.path()).begin < u64::MAX / 4);
        let ahead = u64::MAX / 2;
        let dir = model_dir(&[
            ("epoch-001.safetensors", &example(1, 1)),
            ("epoch-002.safetensors", &example(ahead, 2)),
            ("epoch-003.safetensors", &example(5, 3)),
        ]);
        assert_eq!(new_run(dir.path()).begin, ahead + 1);
    }

    #[test]
    fn a_newer_format_is_an_error_that_names_the_writer() {
        let dir = model_dir(&[("epoch-001.safetensors", &example(1, 1))]);
        let path = dir.path().join("snapshots/epoch-002.safetensors");
        let bytes = snapshot::encode(&example(1, 2));
        let text = "format_version\\\":1".as_bytes();
        let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
        let mut newer = bytes.clone();
        newer[at + text.len() - 1] = b'2';
        fs::write(&path, newer).unwrap();
        let error = newest(dir.path()).unwrap_err();
        let problem = "expected format_version 1, found 2, written by version 0.1.0 of this program";
        assert_eq!(error.to_string(), format!("{}: {problem}", path.display()));
        let hint = "use the version of the program that wrote it, or train without --resume";
        assert_eq!(error.hint().as_deref(), Some(hint));
    }

    #[test]
    fn two_of_one_epoch_must_be_equal() {
        let dir = model_dir(&[("epoch-002.safetensors", &example(1, 2)), ("epoch-0002.safetensors", &example(1, 2))]);
        assert_eq!(found(&dir).unwrap().1, example(1, 2));
        let mut other = example(1, 2);
        other.state.parameters[0] = -1.0;
        fs::write(dir.path().join("snapshots/epoch-0002.safetensors"), snapshot::encode(&other)).unwrap();
        let message = newest(dir.path()).unwrap_err().to_string();
        assert!(
            ["epoch-002.safetensors", "epoch-0002.safetensors"].iter().all(|name| message.contains(name)),
            "{message}"
        );
        // Older ones do not count.
        fs::write(dir.path().join("snapshots/epoch-003.safetensors"), snapshot::encode(&example(1, 3))).unwrap();
        assert_eq!(found(&dir).unwrap().1, example(1, 3));
    }

    #[test]
    fn the_newest_of_a_training_stay_and_those_of_others_too() {
        let dir = model_dir(&[
            ("epoch-001.safetensors", &example(2, 1)),
            ("epoch-900.safetensors", &example(1, 900)),
            (".epoch-001.safetensors.abc.mnist-part", &example(2, 1)),
        ]);
        let mut writer = SnapshotWriter::new(dir.path()).unwrap();
        assert_eq!(files(&dir), ["epoch-001.safetensors", "epoch-900.safetensors"]);
        for epoch in 2..=5 {
            assert_eq!(writer.write(example(2, epoch)), None);
        }
        writer.close(None).unwrap();
        let expected =
            ["epoch-003.safetensors", "epoch-004.safetensors", "epoch-005.safetensors", "epoch-900.safetensors"];
        assert_eq!(files(&dir), expected);
        assert_eq!(found(&dir), named("epoch-005.safetensors", example(2, 5)));
    }

    #[test]
    fn the_directory_is_made_for_the_first_snapshot_and_a_writer_that_is_dropped_ends_its_work() {
        let dir = tempfile::tempdir().unwrap();
        SnapshotWriter::new(dir.path()).unwrap().close(None).unwrap();
        assert!(!dir.path().join("snapshots").exists());
        let mut writer = SnapshotWriter::new(dir.path()).unwrap();
        assert_eq!(writer.write(example(1, 1)), None);
        drop(writer);
        assert_eq!(files(&dir), ["epoch-001.safetensors"]);
    }

    #[test]
    fn without_a_thread_the_caller_writes() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("snapshots");
        let writing = Some(Writing::Here(SnapshotFiles::new(&directory)));
        let mut writer = SnapshotWriter { directory, writing };
        assert_eq!(writer.write(example(1, 1)), None);
        assert_eq!(files(&dir), ["epoch-001.safetensors"]);
        writer.close(None).unwrap();
    }

    #[test]
    fn a_snapshot_that_cannot_be_written_ends_no_training_and_is_the_error_of_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("snapshots/epoch-001.safetensors");
        fs::create_dir_all(&blocked).unwrap();
        let mut writer = SnapshotWriter::new(dir.path()).unwrap();
        assert_eq!(writer.write(example(1, 1)), None);
        assert_eq!(writer.write(example(1, 2)), None);
        let message = writer.close(None).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: cannot write: ", blocked.display())), "{message}");
        assert!(!message.contains("kept"), "{message}");
        assert_eq!(files(&dir), ["epoch-001.safetensors", "epoch-002.safetensors"]);
        fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
        fs::write(dir.path().join("snapshots"), "in the way").unwrap();
        assert!(SnapshotWriter::new(dir.path()).is_err());
    }
}
