//! Where lines go: to standard output, or to the audit log.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use crate::log_targets::AUDIT;

/// For its owner to write, and for whoever collects logs to read.
const MODE: u32 = 0o640;

/// The audit log. Each line is appended at once, so that it may be moved away at any
/// moment and is whole.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl AuditFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Mutex::new(append_to(path)?),
            path: path.to_owned(),
        })
    }

    /// Goes on in the file that has the path now.
    pub fn reopen(&self) -> io::Result<()> {
        let file = append_to(&self.path)?;
        // A file is replaced whole or not at all.
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .mode(MODE)
        .open(path)
}

/// Where each line goes.
#[derive(Debug)]
pub(super) struct Outlet(pub Option<Arc<AuditFile>>);

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = Out<'a>;

    fn make_writer(&'a self) -> Out<'a> {
        Out::Standard(io::stdout())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Out<'a> {
        match &self.0 {
            Some(file) if metadata.target() == AUDIT => Out::Audit(file),
            _ => self.make_writer(),
        }
    }
}

/// Where a line goes.
#[derive(Debug)]
pub(super) enum Out<'a> {
    Standard(io::Stdout),
    Audit(&'a AuditFile),
}

impl Write for Out<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(output) => output.write(line),
            Self::Audit(file) => {
                if file.append(line).is_err() {
                    // As where the disk is full: better there than nowhere.
                    io::stdout().write_all(line)?;
                }
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(output) => output.flush(),
            Self::Audit(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn what_was_moved_away_is_left_alone_once_it_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("audit"), directory.path().join("old"));
        fs::write(&path, "before\n").unwrap();
        let audit = AuditFile::open(&path).unwrap();
        audit.append(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        audit.append(b"two\n").unwrap();
        audit.reopen().unwrap();
        audit.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        // A directory that is gone takes no new file, and the old one goes on.
        let audit = AuditFile::open(&path).unwrap();
        drop(directory);
        assert!(audit.reopen().is_err());
        audit.append(b"four\n").unwrap();
    }
}
