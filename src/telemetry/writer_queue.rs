//! Bounded queue of log lines, with a thread that writes them, so that no request waits for the file,
//! pipe or terminal at the other end. At a high rate the thread pauses after each write, so that
//! one write, and one wake-up of the thread, serves many lines.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

use otpd_base::log_targets::STATE_CHANGE;

/// Maximum size of queued lines: about a second of a busy server.
const CAPACITY: usize = 4 * 1024 * 1024;
/// Part of the capacity that ordinary lines may fill. The rest is for important ones.
const ORDINARY_CAPACITY: usize = CAPACITY / 4 * 3;
/// Size of the lines that are written at once: the capacity of a Linux pipe.
const CHUNK: usize = 64 * 1024;
/// Pause before another write to a full non-blocking descriptor.
const RETRY_DELAY: Duration = Duration::from_millis(10);
/// Pause after a write if lines arrive at a high rate. Longest delay of a line by it.
const COLLECTION_TIME: Duration = Duration::from_millis(1);
/// Average interval between lines below which the rate is high: 8,000 lines per second. A client
/// with one call in progress causes fewer.
const HIGH_RATE_INTERVAL: Duration = Duration::from_micros(125);
/// Number of lines by which the rate is estimated.
const RATE_SAMPLE: u32 = 8;

/// Lines that wait for one file.
#[derive(Debug)]
pub(super) struct LineQueue {
    /// Name of the file in metrics and reports.
    sink: &'static str,
    /// Maximum size of the lines that are written at once, unless a single line is longer.
    chunk: usize,
    state: Mutex<QueueState>,
    /// Signals that the idle writer has work.
    filled: Condvar,
    /// Signals that everything has been written.
    drained: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct QueueState {
    entries: VecDeque<QueueEntry>,
    /// Size of the lines among `entries`.
    bytes: usize,
    /// True if the writer has written everything and waits.
    is_idle: bool,
    /// Number of dropped lines since the last report.
    unreported: u64,
}

#[derive(Debug)]
enum QueueEntry {
    /// Complete lines that are written at once, with their number.
    Lines(Vec<u8>, u32),
    /// File of all later lines.
    File(File),
}

/// Estimate of the rate of lines.
#[derive(Debug)]
struct LineRate {
    since: Instant,
    lines: u32,
}

impl LineRate {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            lines: 0,
        }
    }

    /// Counts written lines, and returns whether their rate is high.
    fn is_high(&mut self, lines: u32, now: Instant) -> bool {
        self.lines = self.lines.saturating_add(lines);
        if self.lines < RATE_SAMPLE {
            return false;
        }
        let sampled = std::mem::replace(self, Self::new(now));
        now.saturating_duration_since(sampled.since) < HIGH_RATE_INTERVAL * sampled.lines
    }
}

impl LineQueue {
    /// Starts a queue that writes its lines to `file`, or to `fallback` if that fails.
    ///
    /// # Errors
    /// The error of the system if no thread can be started.
    pub fn start(
        sink: &'static str,
        mut file: File,
        fallback: Option<Arc<Self>>,
    ) -> io::Result<Arc<Self>> {
        // One line at a time if some of them may have to go to the fallback.
        let chunk = if fallback.is_some() { 1 } else { CHUNK };
        let queue = Arc::new(Self::new(sink, chunk));
        let writer = Arc::clone(&queue);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                let mut rate = LineRate::new(Instant::now());
                loop {
                    let (lines, count) = match writer.next() {
                        QueueEntry::File(other) => {
                            file = other;
                            continue;
                        }
                        QueueEntry::Lines(lines, count) => (lines, count),
                    };
                    match (write(&mut file, &lines), &fallback) {
                        (Ok(()), _) => writer.report_dropped(),
                        (Err(_), Some(fallback)) => fallback.push(&lines, true),
                        (Err(_), None) => writer.note_dropped(&mut writer.lock(), count),
                    }
                    if fallback.is_none() && rate.is_high(count, Instant::now()) {
                        thread::sleep(COLLECTION_TIME);
                    }
                }
            })?;
        Ok(queue)
    }

    fn new(sink: &'static str, chunk: usize) -> Self {
        Self {
            sink,
            chunk,
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Appends a line; drops it if there is no room.
    pub fn push(&self, line: &[u8], is_important: bool) {
        let capacity = if is_important {
            CAPACITY
        } else {
            ORDINARY_CAPACITY
        };
        let mut state = self.lock();
        if state.bytes + line.len() > capacity {
            self.note_dropped(&mut state, 1);
            return;
        }
        state.bytes += line.len();
        if let Some(QueueEntry::Lines(lines, count)) = state.entries.back_mut()
            && lines.len() + line.len() <= self.chunk
        {
            // The writer is busy, or has been woken for these lines.
            lines.extend_from_slice(line);
            *count += 1;
        } else {
            self.append(state, QueueEntry::Lines(line.to_vec(), 1));
        }
    }

    /// Directs all later lines to `file`.
    pub fn replace_file(&self, file: File) {
        self.append(self.lock(), QueueEntry::File(file));
    }

    /// Returns the number of lines that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line is written, for at most `limit`.
    pub fn wait_until_drained(&self, limit: Duration) {
        let is_busy = |state: &mut QueueState| !(state.is_idle && state.entries.is_empty());
        // Lines that are not written by then are lost, because the process ends anyway.
        drop(self.drained.wait_timeout_while(self.lock(), limit, is_busy));
    }

    fn append(&self, mut state: MutexGuard<'_, QueueState>, entry: QueueEntry) {
        state.entries.push_back(entry);
        if std::mem::take(&mut state.is_idle) {
            self.filled.notify_one();
        }
    }

    fn note_dropped(&self, state: &mut QueueState, count: u32) {
        state.unreported += u64::from(count);
        self.dropped.fetch_add(u64::from(count), Ordering::Relaxed);
    }

    /// Waits for the next work of the writer.
    fn next(&self) -> QueueEntry {
        let mut state = self.lock();
        loop {
            if let Some(entry) = state.entries.pop_front() {
                state.is_idle = false;
                if let QueueEntry::Lines(lines, _) = &entry {
                    state.bytes -= lines.len();
                }
                return entry;
            }
            state.is_idle = true;
            self.drained.notify_all();
            let woken = self.filled.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Logs the number of dropped lines once there is room again.
    fn report_dropped(&self) {
        let mut state = self.lock();
        if state.unreported == 0 || state.bytes > CAPACITY / 2 {
            return;
        }
        let dropped = std::mem::take(&mut state.unreported);
        // The line is pushed to this queue, so the lock must be free.
        drop(state);
        tracing::warn!(target: STATE_CHANGE, sink = self.sink, dropped, "[OTP] Log lines dropped");
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // A poisoned lock holds a consistent state, because no step of a change panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all lines.
fn write(file: &mut File, mut lines: &[u8]) -> io::Result<()> {
    while !lines.is_empty() {
        match file.write(lines) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => lines = &lines[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that shares the descriptor may have made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_DELAY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead as _, BufReader, Read as _},
        os::fd::OwnedFd,
    };

    use super::*;

    const LINE: &[u8] = &[b'x'; 1_024];
    const NO_LIMIT: Duration = Duration::from_mins(1);

    fn pipe() -> (io::PipeReader, File) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn unread_pipe_bounds_memory_and_drops_ordinary_lines_first() {
        let (mut reader, writer) = pipe();
        let queue = LineQueue::start("test", writer, None).unwrap();
        let count = 2 * CAPACITY / LINE.len();
        for _ in 0..count {
            queue.push(LINE, false);
        }
        assert!(queue.lock().bytes <= ORDINARY_CAPACITY);
        let dropped = queue.dropped();
        assert!(dropped > 0);
        // There is room for important lines, but not without bound.
        queue.push(LINE, true);
        assert_eq!(queue.dropped(), dropped);
        for _ in 0..count {
            queue.push(LINE, true);
        }
        assert!(queue.lock().bytes <= CAPACITY);
        let dropped = queue.dropped();
        queue.wait_until_drained(Duration::ZERO);

        // A later reader gets every line that was kept.
        let kept = (2 * count + 1) * LINE.len() - usize::try_from(dropped).unwrap() * LINE.len();
        reader.read_exact(&mut vec![0; kept]).unwrap();
        queue.wait_until_drained(NO_LIMIT);
        let state = queue.lock();
        assert_eq!((state.bytes, state.unreported), (0, 0));
    }

    #[test]
    fn lines_before_a_replacement_go_to_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let create = |name: &str| File::create(directory.path().join(name)).unwrap();
        let (old, new) = (create("old"), create("new"));
        let queue = LineQueue::start("test", old, None).unwrap();
        queue.push(b"one\n", false);
        queue.push(b"two\n", false);
        queue.replace_file(new);
        queue.push(b"three\n", false);
        queue.wait_until_drained(NO_LIMIT);
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((&*read("old"), &*read("new")), ("one\ntwo\n", "three\n"));
    }

    #[test]
    fn waiting_lines_are_one_write_of_limited_size() {
        let queue = LineQueue::new("test", 8);
        let long = b"longer than a chunk\n";
        for line in [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"] {
            queue.push(line, false);
        }
        queue.push(long, true);
        queue.push(b"6\n", false);
        let mut written = Vec::new();
        while !queue.lock().entries.is_empty() {
            match queue.next() {
                QueueEntry::Lines(lines, count) => written.push((lines, count)),
                QueueEntry::File(_) => unreachable!("no file was replaced"),
            }
        }
        let lines = |lines: &[u8], count| (lines.to_vec(), count);
        let expected = [
            lines(b"1\n2\n3\n4\n", 4),
            lines(b"5\n", 1),
            lines(long, 1),
            lines(b"6\n", 1),
        ];
        assert_eq!(written, expected);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn concurrent_lines_stay_whole_and_in_order() {
        const LINES: usize = 5_000;
        let (reader, writer) = pipe();
        let queue = LineQueue::start("test", writer, None).unwrap();
        let mut lines = BufReader::new(reader).lines();
        thread::scope(|scope| {
            for thread in 0..4 {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..LINES {
                        queue.push(format!("{thread} {number}\n").as_bytes(), true);
                    }
                });
            }
            let mut next = [0; 4];
            for line in lines.by_ref().take(4 * LINES) {
                let line = line.unwrap();
                let (thread, number) = line.split_once(' ').unwrap();
                let next = &mut next[thread.parse::<usize>().unwrap()];
                assert_eq!(number.parse(), Ok(*next), "{line}");
                *next += 1;
            }
            assert_eq!(next, [LINES; 4]);
        });
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn rate_is_high_from_eight_thousand_lines_per_second() {
        let start = Instant::now();
        let at = |microseconds| start + Duration::from_micros(microseconds);
        let mut rate = LineRate::new(start);
        // Too few lines for an estimate.
        assert!(!rate.is_high(7, at(1)));
        assert!(rate.is_high(1, at(999)));
        // The idle time since the last estimate counts.
        assert!(!rate.is_high(8, at(2_000)));
        assert!(!rate.is_high(1, at(60_000_000)));
        assert!(!rate.is_high(7, at(60_000_001)));
        assert!(rate.is_high(40, at(60_001_002)));
    }

    #[test]
    fn lines_that_fail_to_write_go_to_the_fallback() {
        let (reader, writer) = pipe();
        let fallback = LineQueue::start("test", writer, None).unwrap();
        // Opened only for reading.
        let refusing = File::open("/dev/null").unwrap();
        let queue = LineQueue::start("test", refusing, Some(Arc::clone(&fallback))).unwrap();
        queue.push(b"one\n", true);
        queue.push(b"two\n", true);
        let mut lines = BufReader::new(reader).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        assert_eq!(lines.next().unwrap().unwrap(), "two");
        assert_eq!((queue.dropped(), fallback.dropped()), (0, 0));
    }

    #[test]
    fn lines_that_cannot_be_written_anywhere_are_counted_without_blocking() {
        let (reader, writer) = pipe();
        drop(reader);
        let queue = LineQueue::start("test", writer, None).unwrap();
        queue.push(b"one\n", true);
        queue.push(b"two\n", true);
        queue.wait_until_drained(NO_LIMIT);
        assert_eq!(queue.dropped(), 2);
    }
}
