//! Files that the configuration names. All of them are read here, so that otpd can detect
//! changes.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

thread_local! {
    /// Files that [`track_reads`] has recorded so far, if it runs on this thread.
    static RECORD: RefCell<Option<FileSnapshot>> = const { RefCell::new(None) };
}

/// Snapshot of files that were read. Two snapshots are equal if all contents are.
#[derive(Clone, Debug, Default)]
pub struct FileSnapshot(BTreeMap<PathBuf, FileState>);

/// State of one file at the time of reading.
#[derive(Clone, Copy, Debug)]
struct FileState {
    stamp: Option<FileStamp>,
    /// SHA-256 of its content; `None`: it could not be read.
    digest: Option<[u8; 32]>,
}

/// Metadata that change when the content does, and that are cheap to read. They are those of
/// the target of all links, because Kubernetes changes files by moving a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    node: u64,
    length: u64,
    modified: (i64, i64),
}

/// Reads the content of a file.
///
/// # Errors
/// The error of the file system.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // The stamp first, so that a change in between is detected by the next refresh.
    let stamp = FileStamp::of(path);
    let content = fs::read(path);
    let digest = content.as_deref().ok().map(digest);
    RECORD.with_borrow_mut(|record| {
        if let Some(FileSnapshot(files)) = record {
            files.insert(path.to_owned(), FileState { stamp, digest });
        }
    });
    content
}

/// Reads the text of a file.
///
/// # Errors
/// The error of the file system, or an error if the file is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8");
    String::from_utf8(read(path)?).map_err(not_text)
}

/// Runs `work`, and returns the files that it read.
pub fn track_reads<T>(work: impl FnOnce() -> T) -> (T, FileSnapshot) {
    let outer = RECORD.replace(Some(FileSnapshot::default()));
    let done = work();
    let files = RECORD.replace(outer).unwrap_or_default();
    // Reads inside a nested call also belong to the outer one.
    RECORD.with_borrow_mut(|record| {
        if let Some(outer) = record {
            outer.0.extend(files.0.clone());
        }
    });
    (done, files)
}

impl FileSnapshot {
    /// Returns a new snapshot of the same files. Reads only those whose stamp has changed.
    #[must_use]
    pub fn refresh(&self) -> Self {
        let refreshed = |(path, seen): (&PathBuf, &FileState)| {
            let stamp = FileStamp::of(path);
            let digest = if stamp == seen.stamp {
                seen.digest
            } else {
                fs::read(path).as_deref().ok().map(digest)
            };
            (path.clone(), FileState { stamp, digest })
        };
        Self(self.0.iter().map(refreshed).collect())
    }

    /// Returns the files whose content has changed since `before`, or that are new.
    pub fn changed(&self, before: &Self) -> Vec<PathBuf> {
        let digest = |files: &Self, path: &PathBuf| files.0.get(path).map(|seen| seen.digest);
        let changed = self
            .0
            .keys()
            .filter(|path| digest(self, path) != digest(before, path));
        changed.cloned().collect()
    }

    /// Returns a digest of all paths and contents.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (path, seen) in &self.0 {
            let path = path.as_os_str().as_encoded_bytes();
            hash.update(path.len().to_be_bytes());
            hash.update(path);
            hash.update(seen.digest.unwrap_or_default());
        }
        hash.finalize().into()
    }
}

impl PartialEq for FileSnapshot {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|(one, other)| one.0 == other.0 && one.1.digest == other.1.digest)
    }
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            node: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

fn digest(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn file_change_is_detected_for_every_kind_of_write() {
        let directory = std::env::temp_dir().join(format!("otpd-files-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let place = |name: &str| directory.join(name);
        let write = |name: &str, text: &str| fs::write(place(name), text).unwrap();
        write("first", "one");
        symlink(place("first"), place("link")).unwrap();
        let (text, files) = track_reads(|| {
            read(&place("absent")).unwrap_err();
            track_reads(|| read_text(&place("link")).unwrap()).0
        });
        assert_eq!(text, "one");
        assert_eq!(files, files.refresh());

        // Written again, and the same.
        write("first", "one");
        assert_eq!(files, files.refresh());
        // Of the same length.
        write("first", "two");
        let changed = files.refresh();
        assert_ne!(files, changed);
        assert_ne!(files.digest(), changed.digest());
        // Another file behind the link.
        write("second", "three");
        symlink(place("second"), place("new")).unwrap();
        fs::rename(place("new"), place("link")).unwrap();
        let moved = changed.refresh();
        assert_ne!(changed, moved);
        // One that comes, and one that goes.
        write("absent", "");
        let there = moved.refresh();
        assert_ne!(moved, there);
        fs::remove_file(place("second")).unwrap();
        assert_ne!(there, there.refresh());
        fs::remove_dir_all(&directory).unwrap();
    }
}
