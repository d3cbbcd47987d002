//! Files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns a path in the repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The text of a file of the repository.
pub fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// Returns all files below a directory with that extension, sorted.
pub fn files_below(relative: &str, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![path(relative)];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in entries {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Returns the concatenated texts of these files.
pub fn read_below(relative: &str, extension: &str) -> String {
    files_below(relative, extension)
        .into_iter()
        .map(|file| fs::read_to_string(file).expect("it is text"))
        .collect()
}
