//! Reads logs as they grow.

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

/// How long to wait before looking for more. To be woken at each write of the servers
/// would cost this process more than all else that it does.
const PAUSE: Duration = Duration::from_millis(1);

/// How long it may become where one look finds several codes: then nobody waits alone,
/// and has other pairs in flight meanwhile.
const LONG_PAUSE: Duration = Duration::from_millis(4);

/// After how many looks in vain it is seen whether the file is still the same one.
const LOOKS_BEFORE_A_CHECK: u32 = 100;

/// How much is read at once.
const PIECE: usize = 256 * 1024;

/// A log and how far it has been read.
#[derive(Debug)]
pub struct LogFollower {
    path: PathBuf,
    file: File,
    position: u64,
    /// What was read of a line that goes on.
    begun: Vec<u8>,
    idle: u32,
}

impl LogFollower {
    /// The log at `path`, from its present end on.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn from_end(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        Ok(Self {
            position: file.seek(SeekFrom::End(0))?,
            path: path.to_owned(),
            file,
            begun: Vec::new(),
            idle: 0,
        })
    }

    /// Takes the lines that may tell a code out of what is new. `piece` is for its use.
    fn read_on(&mut self, piece: &mut [u8], told: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let length = self.file.read(piece)?;
            self.position += length as u64;
            self.take_lines(&piece[..length], told);
            self.idle = if length > 0 { 0 } else { self.idle + 1 };
            // A full piece may have more behind it.
            if length < piece.len() {
                break;
            }
        }
        if self.idle >= LOOKS_BEFORE_A_CHECK {
            self.idle = 0;
            self.follow_another_file()?;
        }
        Ok(())
    }

    fn take_lines(&mut self, read: &[u8], told: &mut impl FnMut(&[u8])) {
        let Some(end) = memrchr(b'\n', read) else {
            self.begun.extend_from_slice(read);
            return;
        };
        let (lines, begun) = read.split_at(end + 1);
        if self.begun.is_empty() {
            marked_lines(lines, told);
        } else {
            self.begun.extend_from_slice(lines);
            marked_lines(&self.begun, told);
            self.begun.clear();
        }
        self.begun.extend_from_slice(begun);
    }

    /// A log may be cut short, or be another file under its name.
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
            self.begun.clear();
        }
        Ok(())
    }
}

/// Calls `told` with each line that may tell a code.
fn marked_lines(lines: &[u8], told: &mut impl FnMut(&[u8])) {
    let finder = Finder::new(MARK);
    let mut rest = lines;
    while let Some(mark) = finder.find(rest) {
        let begin = memrchr(b'\n', &rest[..mark]).map_or(0, |before| before + 1);
        let end = memchr(b'\n', &rest[mark..]).map_or(rest.len(), |after| mark + after);
        told(&rest[begin..end]);
        rest = &rest[end..];
    }
}

/// Posts what the logs tell to the board, in a thread of its own, for as long as
/// somebody has the board.
///
/// # Errors
/// Where no thread can be started.
pub fn follow(logs: Vec<LogFollower>, board: &Arc<CodeInbox>) -> io::Result<()> {
    let board = Arc::downgrade(board);
    thread::Builder::new()
        .name("bench-logs".to_owned())
        .spawn(move || follow_all(logs, &board))
        .map(drop)
}

fn follow_all(mut logs: Vec<LogFollower>, board: &Weak<CodeInbox>) {
    let mut piece = vec![0; PIECE];
    let mut pause = PAUSE;
    while let Some(board) = board.upgrade() {
        let mut codes = 0;
        let mut told = |line: &[u8]| {
            if let Some(told) = log_line::read(line) {
                codes += 1;
                board.deliver(told);
            }
        };
        logs.retain_mut(|log| {
            log.read_on(&mut piece, &mut told)
                .inspect_err(|error| eprintln!("otpd: --codes: {}: {error}", log.path.display()))
                .is_ok()
        });
        drop(board);
        pause = if codes > 1 {
            LONG_PAUSE.min(2 * pause)
        } else {
            PAUSE.max(pause / 2)
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

    /// Reads until there is nothing more, and returns the codes.
    fn codes(log: &mut LogFollower, piece: usize) -> Vec<String> {
        let mut codes = Vec::new();
        let mut piece = vec![0; piece];
        let mut told = |line: &[u8]| {
            let told = log_line::read(line).expect("the line tells a code");
            codes.push(told.code.to_owned());
        };
        log.read_on(&mut piece, &mut told).unwrap();
        codes
    }

    #[test]
    fn log_is_followed_from_its_end_across_partial_lines() {
        for piece in [1, 7, 64, PIECE] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let mut file = File::create(&path).unwrap();
            write!(file, "{}", line(1)).unwrap();
            let mut log = LogFollower::from_end(&path).unwrap();
            assert_eq!(codes(&mut log, piece), [""; 0]);

            write!(file, "other\n{}{}", line(2), line(3)).unwrap();
            assert_eq!(codes(&mut log, piece), ["000002", "000003"]);
            let fourth = line(4);
            let (begin, end) = fourth.split_at(20);
            write!(file, "{begin}").unwrap();
            assert_eq!(codes(&mut log, piece), [""; 0]);
            write!(file, "{end}{}", line(5).trim_end()).unwrap();
            assert_eq!(codes(&mut log, piece), ["000004"]);
            write!(file, "\nother\n").unwrap();
            assert_eq!(codes(&mut log, piece), ["000005"]);
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
            for _ in 0..2 * LOOKS_BEFORE_A_CHECK {
                all.extend(codes(&mut log, PIECE));
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
        let board = Arc::new(CodeInbox::default());
        let logs = paths
            .iter()
            .map(|path| LogFollower::from_end(path).unwrap());
        follow(logs.collect(), &board).unwrap();
        for (number, path) in (1..).zip(&paths) {
            fs::write(path, line(number)).unwrap();
            let challenge_id = format!("c{number}");
            let code = board.take(&challenge_id, Duration::from_mins(1));
            assert_eq!(code.await, Some(format!("{number:06}")));
        }
    }
}
