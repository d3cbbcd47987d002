//! Selection of the queue of a line: that of standard output, or that of the audit log.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::writer_queue::LineQueue;
use otpd_base::log_targets::{AUDIT, CODE, STATE_CHANGE, UNAUTHENTICATED};

/// Mode of the audit log: readable and writable by the owner alone.
const MODE: u32 = 0o600;

/// Returns whether lines of this target belong to the audit log.
pub(super) fn is_audit(target: &str) -> bool {
    [AUDIT, UNAUTHENTICATED].contains(&target)
}

/// Audit log. Lines are only appended, so that the file may be moved away at any time.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    queue: Arc<LineQueue>,
}

impl AuditFile {
    /// Opens the file. Lines that cannot be written to it, such as on a full disk, go to `fallback`.
    pub fn open(path: &Path, fallback: Arc<LineQueue>) -> io::Result<Self> {
        Ok(Self {
            queue: LineQueue::start("audit", append_to(path)?, Some(fallback))?,
            path: path.to_owned(),
        })
    }

    /// Continues in the file that is at the path now.
    pub fn reopen(&self) -> io::Result<()> {
        self.queue.replace_file(append_to(&self.path)?);
        Ok(())
    }

    pub fn queue(&self) -> &LineQueue {
        &self.queue
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .mode(MODE)
        .open(path)
}

/// Writer that puts each line into its queue.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    pub standard: Arc<LineQueue>,
    pub audit: Option<Arc<AuditFile>>,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = QueueWriter<'a>;

    fn make_writer(&'a self) -> QueueWriter<'a> {
        QueueWriter {
            queue: &self.standard,
            is_important: false,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> QueueWriter<'a> {
        let target = metadata.target();
        let queue = match &self.audit {
            Some(file) if is_audit(target) => &file.queue,
            _ => &self.standard,
        };
        let is_important = *metadata.level() <= Level::WARN
            || is_audit(target)
            || [STATE_CHANGE, CODE].contains(&target);
        QueueWriter {
            queue,
            is_important,
        }
    }
}

/// Writer of one line.
#[derive(Debug)]
pub(super) struct QueueWriter<'a> {
    queue: &'a LineQueue,
    is_important: bool,
}

impl Write for QueueWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.is_important);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;

    #[test]
    fn reopened_file_receives_later_lines_and_the_moved_one_keeps_earlier_ones() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("audit"), directory.path().join("old"));
        fs::write(&path, "before\n").unwrap();
        let standard = LineQueue::start("test", File::open("/dev/null").unwrap(), None).unwrap();
        let audit = AuditFile::open(&path, Arc::clone(&standard)).unwrap();
        let append = |line: &[u8]| {
            audit.queue.push(line, true);
            audit.queue.wait_until_drained(Duration::from_mins(1));
        };
        append(b"one\n");
        fs::rename(&path, &old).unwrap();
        append(b"two\n");
        audit.reopen().unwrap();
        append(b"three\n");
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        // The file cannot be opened in a removed directory, so the old one stays in use.
        drop(directory);
        assert!(audit.reopen().is_err());
        append(b"four\n");
        assert_eq!(standard.dropped(), 0);
    }
}
