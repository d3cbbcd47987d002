//! Reading of logs as they grow.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use memchr::{memchr, memmem::Finder, memrchr};

use super::{
    code_inbox::CodeInbox,
    log_line::{self, MARK},
};

/// Interval between polls. A notification for each write of the servers would cost this
/// process more than all its other work.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Maximum interval if one poll finds several codes: then other pairs are in flight while
/// one waits.
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(4);

/// Number of polls without result after which the file is compared with the one at its
/// path.
const POLLS_BEFORE_FILE_CHECK: u32 = 100;

/// Size of the read buffer.
const BUFFER_SIZE: usize = 256 * 1024;

/// Log file, and the position up to which it has been read.
#[derive(Debug)]
pub struct LogFollower {
    path: PathBuf,
    file: File,
    position: u64,
    /// Beginning of a line that is not complete yet.
    partial: Vec<u8>,
    idle: u32,
}

impl LogFollower {
    /// Opens the log at `path`, at its present end.
    ///
    /// # Errors
    /// [`io::Error`] if it cannot be read.
    pub fn from_end(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        Ok(Self {
            position: file.seek(SeekFrom::End(0))?,
            path: path.to_owned(),
            file,
            partial: Vec::new(),
            idle: 0,
        })
    }

    /// Reads the new lines that may contain a code. `buffer` is the read buffer.
    fn read_on(&mut self, buffer: &mut [u8], on_line: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let length = self.file.read(buffer)?;
            self.position += length as u64;
            self.take_lines(&buffer[..length], on_line);
            self.idle = if length > 0 { 0 } else { self.idle + 1 };
            // After a full buffer there may be more to read.
            if length < buffer.len() {
                break;
            }
        }
        if self.idle >= POLLS_BEFORE_FILE_CHECK {
            self.idle = 0;
            self.follow_another_file()?;
        }
        Ok(())
    }

    fn take_lines(&mut self, read: &[u8], on_line: &mut impl FnMut(&[u8])) {
        let Some(end) = memrchr(b'\n', read) else {
            self.partial.extend_from_slice(read);
            return;
        };
        let (lines, partial) = read.split_at(end + 1);
        if self.partial.is_empty() {
            marked_lines(lines, on_line);
        } else {
            self.partial.extend_from_slice(lines);
            marked_lines(&self.partial, on_line);
            self.partial.clear();
        }
        self.partial.extend_from_slice(partial);
    }

    /// Reopens a log that was truncated, or replaced by another file of its name.
    fn follow_another_file(&mut self) -> io::Result<()> {
        let Ok(there) = fs::metadata(&self.path) else {
            // Between two files there is a moment without one.
            return Ok(());
        };
        let open = self.file.metadata()?;
        let replaced = (there.dev(), there.ino()) != (open.dev(), open.ino());
        if replaced {
            self.file = File::open(&self.path)?;
        }
        if replaced || open.len() < self.position {
            self.position = self.file.seek(SeekFrom::Start(0))?;
            self.partial.clear();
        }
        Ok(())
    }
}

/// Calls `on_line` with each line that may contain a code.
fn marked_lines(lines: &[u8], on_line: &mut impl FnMut(&[u8])) {
    let finder = Finder::new(MARK);
    let mut rest = lines;
    while let Some(mark) = finder.find(rest) {
        let begin = memrchr(b'\n', &rest[..mark]).map_or(0, |before| before + 1);
        let end = memchr(b'\n', &rest[mark..]).map_or(rest.len(), |after| mark + after);
        on_line(&rest[begin..end]);
        rest = &rest[end..];
    }
}

/// Delivers the codes of the logs to the inbox, in a thread of its own, as long as the
/// inbox is in use.
///
/// # Errors
/// [`io::Error`] if no thread can be started.
pub fn follow(logs: Vec<LogFollower>, inbox: &Arc<CodeInbox>) -> io::Result<()> {
    let inbox = Arc::downgrade(inbox);
    thread::Builder::new()
        .name("bench-logs".to_owned())
        .spawn(move || follow_all(logs, &inbox))
        .map(drop)
}

fn follow_all(mut logs: Vec<LogFollower>, inbox: &Weak<CodeInbox>) {
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut pause = POLL_INTERVAL;
    while let Some(inbox) = inbox.upgrade() {
        let mut codes = 0;
        let mut on_line = |line: &[u8]| {
            if let Some(logged) = log_line::read(line) {
                codes += 1;
                inbox.deliver(logged);
            }
        };
        logs.retain_mut(|log| {
            log.read_on(&mut buffer, &mut on_line)
                .inspect_err(|error| eprintln!("otpd: --codes: {}: {error}", log.path.display()))
                .is_ok()
        });
        drop(inbox);
        pause = if codes > 1 {
            MAX_POLL_INTERVAL.min(2 * pause)
        } else {
            POLL_INTERVAL.max(pause / 2)
        };
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(number: u32) -> String {
        format!("[OTP] Generated OTP: {number:06} challenge_id=c{number} recipient=+7999\n")
    }

    /// Reads to the end, and returns the codes.
    fn codes(log: &mut LogFollower, buffer: usize) -> Vec<String> {
        let mut codes = Vec::new();
        let mut buffer = vec![0; buffer];
        let mut on_line = |line: &[u8]| {
            let logged = log_line::read(line).expect("the line has a code");
            codes.push(logged.code.to_owned());
        };
        log.read_on(&mut buffer, &mut on_line).unwrap();
        codes
    }

    #[test]
    fn log_is_followed_from_its_end_across_partial_lines() {
        for buffer in [1, 7, 64, BUFFER_SIZE] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let mut file = File::create(&path).unwrap();
            write!(file, "{}", line(1)).unwrap();
            let mut log = LogFollower::from_end(&path).unwrap();
            assert_eq!(codes(&mut log, buffer), [""; 0]);

            write!(file, "other\n{}{}", line(2), line(3)).unwrap();
            assert_eq!(codes(&mut log, buffer), ["000002", "000003"]);
            let fourth = line(4);
            let (begin, end) = fourth.split_at(20);
            write!(file, "{begin}").unwrap();
            assert_eq!(codes(&mut log, buffer), [""; 0]);
            write!(file, "{end}{}", line(5).trim_end()).unwrap();
            assert_eq!(codes(&mut log, buffer), ["000004"]);
            write!(file, "\nother\n").unwrap();
            assert_eq!(codes(&mut log, buffer), ["000005"]);
        }
    }

    #[test]
    fn rotated_or_truncated_log_is_read_from_its_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, line(1)).unwrap();
        let mut log = LogFollower::from_end(&path).unwrap();
        let mut after_a_while = || {
            let mut all = Vec::new();
            for _ in 0..2 * POLLS_BEFORE_FILE_CHECK {
                all.extend(codes(&mut log, BUFFER_SIZE));
            }
            all
        };

        fs::rename(&path, directory.path().join("log.1")).unwrap();
        assert_eq!(after_a_while(), [""; 0]);
        fs::write(&path, line(2) + &line(3)).unwrap();
        assert_eq!(after_a_while(), ["000002", "000003"]);
        fs::write(&path, line(4)).unwrap();
        assert_eq!(after_a_while(), ["000004"]);
    }

    #[tokio::test]
    async fn logged_codes_are_delivered_to_the_inbox() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| directory.path().join(name));
        for path in &paths {
            File::create(path).unwrap();
        }
        let inbox = Arc::new(CodeInbox::default());
        let logs = paths
            .iter()
            .map(|path| LogFollower::from_end(path).unwrap());
        follow(logs.collect(), &inbox).unwrap();
        for (number, path) in (1..).zip(&paths) {
            fs::write(path, line(number)).unwrap();
            let challenge_id = format!("c{number}");
            let code = inbox.take(&challenge_id, Duration::from_mins(1));
            assert_eq!(code.await, Some(format!("{number:06}")));
        }
    }
}
