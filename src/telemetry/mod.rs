//! Log on standard output, as text or JSON, and an optional audit log in a separate file.

mod audit;
mod dedup;
mod format;
mod settings;
mod unauthenticated_log;
mod writer_queue;

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

pub use settings::{AuditLog, LogFormat, LogLevel, LogSettings};

use audit::{AuditFile, LogWriter};
use dedup::LogDeduplicator;
use format::LogFormatter;
use otpd_base::log_targets::{AUDIT, UNAUTHENTICATED};
use unauthenticated_log::UnauthenticatedLog;
use writer_queue::LineQueue;

/// Maximum time for writing the last lines at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Parts of the log that can be changed while it runs.
#[derive(Debug)]
struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    level: AtomicU64,
    writer: LogWriter,
    unauthenticated: Arc<UnauthenticatedLog>,
}

/// Handle of the log of the process.
static HANDLE: OnceLock<LogHandle> = OnceLock::new();
/// Number of lines that were left out as repetitions.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Starts the log. Only otpd's own lines follow the level, because lines of libraries
/// below a warning may show what they carry. sqlx is silent: the store reports the state of
/// the database once and not for each connection, and sqlx's warnings show parts of the
/// database's URL.
///
/// # Errors
/// The error of an audit log that cannot be opened, or of a system without threads.
pub fn start(settings: &LogSettings) -> io::Result<()> {
    // A descriptor without the lock of `stdout`, because a blocked write would hold that lock until
    // the end of the process.
    let standard = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let standard = LineQueue::start("stdout", standard, None)?;
    let audit = match &settings.audit {
        AuditLog::Standard => None,
        AuditLog::File(path) => Some(Arc::new(AuditFile::open(path, Arc::clone(&standard))?)),
    };
    let writer = LogWriter { standard, audit };
    let unauthenticated = Arc::new(UnauthenticatedLog::default());
    let summaries = Arc::clone(&unauthenticated);
    thread::Builder::new()
        .name("log-summaries".to_owned())
        .spawn(move || summaries.run())?;
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    let colours = settings.format == LogFormat::Text && io::stdout().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(colours)
        // Internal errors would go to standard error, which may block.
        .log_internal_errors(false)
        .event_format(LogFormatter::new(
            settings.format,
            colours,
            writer.audit.is_some(),
            LogDeduplicator::new(settings.repeat_after),
            Arc::clone(&unauthenticated),
        ))
        .with_writer(writer.clone());
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    // A second start would have panicked above.
    let _ = HANDLE.set(LogHandle {
        filter: handle,
        level: AtomicU64::new(settings.level as u64),
        writer,
        unauthenticated,
    });
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        // The message is left out, because it may contain a secret.
        tracing::error!(place, "[OTP] Panic");
    }));
    Ok(())
}

/// Writes the lines that still wait, for at most a second. Called at the end of the process.
pub fn flush() {
    let Some(handle) = HANDLE.get() else {
        return;
    };
    handle.unauthenticated.flush();
    let deadline = Instant::now() + LAST_LINES;
    // The audit log first, because its lines may still go to standard output.
    let audit = handle.writer.audit.as_ref().map(|audit| audit.queue());
    for queue in audit.into_iter().chain([&*handle.writer.standard]) {
        queue.wait_until_drained(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Prints a line on standard error, for at most a second, because an unread pipe must not keep the
/// process alive.
pub fn print_error(line: String) {
    let (sender, printed) = mpsc::channel();
    thread::spawn(move || {
        // If standard error is closed, there is no other place for the line.
        let _ = writeln!(io::stderr(), "{line}");
        let _ = sender.send(());
    });
    let _ = printed.recv_timeout(LAST_LINES);
}

fn filter(level: LogLevel) -> EnvFilter {
    let level = level.name();
    EnvFilter::new(format!(
        "warn,sqlx=off,otpd={level},{AUDIT}=info,{UNAUTHENTICATED}=info"
    ))
}

/// Sets the level. Without effect before the log has started.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = HANDLE.get()
        && handle.filter.reload(filter(level)).is_ok()
    {
        handle.level.store(level as u64, Ordering::Relaxed);
    }
}

/// Returns the level, or `None` before the log has started.
pub fn level() -> Option<LogLevel> {
    let number = HANDLE.get()?.level.load(Ordering::Relaxed);
    LogLevel::ALL
        .into_iter()
        .find(|level| *level as u64 == number)
}

/// Reopens the audit log by its path, so that a file which was moved away gets no more lines.
///
/// # Errors
/// The error if it cannot be opened; lines then still go to the old file.
pub fn reopen() -> io::Result<()> {
    match HANDLE.get().and_then(|handle| handle.writer.audit.as_ref()) {
        Some(audit) => audit.reopen(),
        None => Ok(()),
    }
}

/// Returns the number of lines that were left out as repetitions.
pub fn suppressed_lines() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Returns the numbers of lines that were dropped because they could not be written: those for
/// standard output, and those for the audit log.
pub fn lines_dropped() -> (u64, u64) {
    let Some(LogHandle { writer, .. }) = HANDLE.get() else {
        return (0, 0);
    };
    let audit = writer.audit.as_ref().map(|audit| audit.queue().dropped());
    (writer.standard.dropped(), audit.unwrap_or_default())
}
