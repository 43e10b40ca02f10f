//! How much memory there is, found out before much of it is taken. What nobody found out ends the process with an error
//! too: see [`crate::interrupt::install`].

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A limit of a control group: the files that hold it and what is taken, and the line in `memory.stat` that counts the
/// cached files which give way.
struct GroupFiles {
    root: &'static str,
    limit: &'static str,
    taken: &'static str,
    cached: &'static str,
}

const VERSION_1: GroupFiles = GroupFiles {
    root: "memory",
    limit: "memory.limit_in_bytes",
    taken: "memory.usage_in_bytes",
    cached: "total_inactive_file",
};
const VERSION_2: GroupFiles =
    GroupFiles { root: "", limit: "memory.max", taken: "memory.current", cached: "inactive_file" };

/// Fewer bytes are taken unasked: to ask takes half a millisecond, and they are no more than a process takes to start.
const LITTLE: u64 = 1 << 20;

/// Checks that there are `bytes` of memory for `purpose`.
///
/// # Errors
/// There are fewer. Where the system does not say, or if they are less than a megabyte, there is no error.
pub fn require(bytes: u64, purpose: &str) -> Result<()> {
    if bytes < LITTLE { Ok(()) } else { require_of(available(), bytes, purpose) }
}

/// [`require`] where `found` bytes are left.
///
/// # Errors
/// There are fewer.
pub fn require_of(found: Option<u64>, bytes: u64, purpose: &str) -> Result<()> {
    match found {
        Some(found) if found < bytes => Err(Error::Memory { purpose: purpose.into(), expected: bytes, found }),
        _ => Ok(()),
    }
}

/// Makes place in `bytes` for this many `more`, for `purpose`.
///
/// # Errors
/// There is not so much memory.
pub fn reserve(bytes: &mut Vec<u8>, more: usize, purpose: &str) -> Result<()> {
    let expected = more as u64;
    require(expected, purpose)?;
    bytes.try_reserve_exact(more).map_err(|_| {
        let found = available().unwrap_or(0).min(expected);
        Error::Memory { purpose: purpose.into(), expected, found }
    })
}

/// So many bytes, all 0, for `purpose`. The system gives the memory itself as they are written.
///
/// # Errors
/// There is not so much memory.
pub fn zeroed(length: usize, purpose: &str) -> Result<Vec<u8>> {
    require(length as u64, purpose)?;
    Ok(vec![0; length])
}

/// How many bytes this process can still take: by its own limits, those of its control groups, and the machine's memory.
/// None where nothing says.
pub fn available() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let of_groups = left_in_groups(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    let of_machine = bytes_in(&read("/proc/meminfo"), &["MemAvailable:", "SwapFree:"]);
    of_limits(&read("/proc/self/status")).into_iter().chain(of_groups).chain(of_machine).min()
}

/// What the limits of `ulimit -v` and `ulimit -d` leave. `status` is that of the process.
fn of_limits(status: &str) -> Vec<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let left = |resource, taken| Some(getrlimit(resource).current?.saturating_sub(bytes_in(status, &[taken])?));
        [left(Resource::As, "VmSize:"), left(Resource::Data, "VmData:")].into_iter().flatten().collect()
    }
    #[cfg(not(unix))]
    {
        let _ = status;
        vec![]
    }
}

/// The sum of some lines such as `MemAvailable:  1024 kB`, in bytes. None without the first; others may be missing.
fn bytes_in(text: &str, names: &[&str]) -> Option<u64> {
    let value = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(1024 * line.split_whitespace().next()?.parse::<u64>().ok()?)
    };
    value(names[0]).map(|first| first + names[1..].iter().filter_map(|name| value(name)).sum::<u64>())
}

/// What the limits of the control groups below `root` leave. `groups` names those of a process, as `/proc/self/cgroup`.
fn left_in_groups(groups: &str, root: &Path) -> Option<u64> {
    let paths = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let files = match controllers {
            "" => VERSION_2,
            _ if controllers.split(',').any(|name| name == "memory") => VERSION_1,
            _ => return None,
        };
        Some((files, path.trim_start_matches('/').to_string()))
    });
    let left = paths.flat_map(|(files, path)| {
        let root = root.join(files.root);
        let groups: Vec<PathBuf> = Path::new(&path).ancestors().map(|group| root.join(group)).collect();
        groups.into_iter().filter_map(move |group| left_in_group(&files, &group))
    });
    left.min()
}

fn left_in_group(files: &GroupFiles, group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |name| -> Option<u64> { read(name)?.trim().parse().ok() };
    let stat = read("memory.stat").unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(files.cached)?.trim().parse::<u64>().ok());
    let taken = number(files.taken)?.saturating_sub(cached.unwrap_or(0));
    Some(number(files.limit)?.saturating_sub(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_its_available_memory_and_its_free_swap() {
        let text = "MemTotal:  100 kB\nMemAvailable:   50 kB\nSwapFree:  7 kB\n";
        assert_eq!(bytes_in(text, &["MemAvailable:", "SwapFree:"]), Some(57 * 1024));
        assert_eq!(bytes_in(text, &["MemAvailable:", "None:"]), Some(50 * 1024));
        assert_eq!(bytes_in(text, &["None:", "MemAvailable:"]), None);
    }

    #[test]
    fn the_tightest_of_a_groups_ancestors_counts_and_cached_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let group = |path: &str, files: [(&str, &str); 3]| {
            fs::create_dir_all(dir.path().join(path)).unwrap();
            files.iter().for_each(|(name, text)| fs::write(dir.path().join(path).join(name), text).unwrap());
        };
        let names = ["memory.max", "memory.current", "memory.stat"];
        let version_2 = |path, texts: [&str; 3]| group(path, std::array::from_fn(|i| (names[i], texts[i])));
        version_2("a", ["1000\n", "700\n", "anon 1\ninactive_file 200\n"]);
        version_2("a/b", ["max\n", "600\n", "inactive_file 0\n"]);
        assert_eq!(left_in_groups("0::/a/b\n", dir.path()), Some(500));
        version_2("a/b", ["800\n", "600\n", "inactive_file 0\n"]);
        assert_eq!(left_in_groups("0::/a/b\n", dir.path()), Some(200));
        assert_eq!(left_in_groups("0::/\n", dir.path()), None);
        let files = [("memory.limit_in_bytes", "90"), ("memory.usage_in_bytes", "100"), ("memory.stat", "")];
        group("memory/c", files);
        assert_eq!(left_in_groups("2:cpu:/x\n3:hugetlb,memory:/c\n0::/\n", dir.path()), Some(0));
    }

    #[test]
    fn too_much_memory_is_refused_with_its_purpose() {
        assert!(require(1, "nothing").is_ok());
        let message = reserve(&mut vec![], usize::MAX / 4, "the images").unwrap_err().to_string();
        assert!(message.starts_with("the images: expected "), "{message}");
    }
}
