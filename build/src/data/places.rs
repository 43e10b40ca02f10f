//! Where a directory may hold a file of a data set: the names and layouts in which people get MNIST.

use std::path::{Path, PathBuf};

use crate::open;

/// The files in `directory` that may be the file `name` of a set, the most likely first. Their hashes tell.
pub fn existing(directory: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    all(directory, name).into_iter().filter(|path| match path.metadata() {
        Ok(found) => !found.is_dir(),
        // Opening it says why it cannot be looked at.
        Err(error) => !open::is_absent(&error),
    })
}

/// The first link in such a place that leads to nothing.
pub fn dangling(directory: &Path, name: &str) -> Option<PathBuf> {
    all(directory, name).into_iter().find(|path| is_dangling(path))
}

/// Whether a link that leads to nothing is at `path`.
pub fn is_dangling(path: &Path) -> bool {
    path.is_symlink() && path.metadata().is_err_and(|error| open::is_absent(&error))
}

/// Its own name, also with Kaggle's and 7-Zip's point in it; both in a directory of such a name, as Kaggle has them; all
/// that in `MNIST/raw`, where torchvision puts it. Each also with `.gz`.
fn all(directory: &Path, name: &str) -> Vec<PathBuf> {
    let mut names = vec![name.to_string(), name.replacen("-idx", ".idx", 1)];
    names.dedup();
    let files: Vec<String> = names.iter().flat_map(|name| [name.clone(), format!("{name}.gz")]).collect();
    let nested = names.iter().flat_map(|outer| files.iter().map(move |inner| Path::new(outer).join(inner)));
    let places: Vec<PathBuf> = files.iter().map(PathBuf::from).chain(nested).collect();
    let torchvision = directory.join("MNIST").join("raw");
    [directory, &torchvision].into_iter().flat_map(|root| places.iter().map(|place| root.join(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_files_names_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let found = || existing(dir.path(), "a-idx1-ubyte").collect::<Vec<_>>();
        assert!(found().is_empty());
        let paths = ["a-idx1-ubyte/a.idx1-ubyte", "MNIST/raw/a.idx1-ubyte", "MNIST/raw/a-idx1-ubyte/a-idx1-ubyte.gz"];
        let paths = paths.map(|path| dir.path().join(path));
        for path in &paths {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(found(), paths);
        let own = dir.path().join("a-idx1-ubyte.gz");
        std::fs::write(&own, "").unwrap();
        assert_eq!(found()[0], own);
    }
}
