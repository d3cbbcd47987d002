//! The log: text for people or JSON for machines, on standard output; and beside it, if
//! so configured, a file of its own for what auditors look for.

mod audit;
mod dedup;
mod format;
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

use crate::{
    config::{AuditLog, LogFormat, LogLevel},
    log_targets::{AUDIT, STRANGER},
};
use audit::{AuditFile, LogWriter};
use dedup::LogDeduplicator;
use format::LogFormatter;
use unauthenticated_log::UnauthenticatedLog;
use writer_queue::LineQueue;

/// Time that the last lines have at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines there are.
    pub level: LogLevel,
    /// Where the lines for auditors are.
    pub audit: AuditLog,
    /// How long a warning that repeats the one before it is left out; nothing: never.
    pub repeat_after: Duration,
}

/// What of the log can be changed while it is written.
#[derive(Debug)]
struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    level: AtomicU64,
    outlet: LogWriter,
    strangers: Arc<UnauthenticatedLog>,
}

/// One for the process, like the log.
static CONTROLS: OnceLock<LogHandle> = OnceLock::new();
/// How many lines were left out.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Starts the log. Only otpd's own lines follow the level, because lines of libraries
/// below a warning may show what they carry. sqlx is silent: the store reports the state of
/// the database once and not for each connection, and sqlx's warnings show parts of the
/// database's URL.
///
/// # Errors
/// The error of an audit log that cannot be opened, or of a system without threads.
pub fn start(settings: &LogSettings) -> io::Result<()> {
    // A descriptor without a lock, which a blocked write would keep from the end of the
    // process.
    let standard = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let standard = LineQueue::start("stdout", standard, None)?;
    let audit = match &settings.audit {
        AuditLog::Standard => None,
        AuditLog::File(path) => Some(Arc::new(AuditFile::open(path, Arc::clone(&standard))?)),
    };
    let outlet = LogWriter { standard, audit };
    let strangers = Arc::new(UnauthenticatedLog::default());
    let summaries = Arc::clone(&strangers);
    thread::Builder::new()
        .name("log-strangers".to_owned())
        .spawn(move || summaries.run())?;
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    let colours = settings.format == LogFormat::Text && io::stdout().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(colours)
        // They would go to standard error, which may block.
        .log_internal_errors(false)
        .event_format(LogFormatter::new(
            settings.format,
            colours,
            outlet.audit.is_some(),
            LogDeduplicator::new(settings.repeat_after),
            Arc::clone(&strangers),
        ))
        .with_writer(outlet.clone());
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    // The log cannot be started twice: that would have panicked.
    let _ = CONTROLS.set(LogHandle {
        filter: handle,
        level: AtomicU64::new(settings.level as u64),
        outlet,
        strangers,
    });
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        // The message stays out: it may hold what panicked.
        tracing::error!(place, "[OTP] Panic");
    }));
    Ok(())
}

/// Writes the lines that still wait, for a second at most; to be called at the end of the
/// process.
pub fn flush() {
    let Some(controls) = CONTROLS.get() else {
        return;
    };
    controls.strangers.flush();
    let deadline = Instant::now() + LAST_LINES;
    // The audit log first, because its lines may still go to standard output.
    let audit = controls.outlet.audit.as_ref().map(|audit| audit.queue());
    for queue in audit.into_iter().chain([&*controls.outlet.standard]) {
        queue.wait_until_drained(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Prints a line on standard error, and waits for that for a second at most, because an
/// unread pipe must not keep the process alive.
pub fn complain(line: String) {
    let (sender, printed) = mpsc::channel();
    thread::spawn(move || {
        // A closed standard error takes no line, and there is no other place for it.
        let _ = writeln!(io::stderr(), "{line}");
        let _ = sender.send(());
    });
    let _ = printed.recv_timeout(LAST_LINES);
}

fn filter(level: LogLevel) -> EnvFilter {
    let level = level.name();
    EnvFilter::new(format!(
        "warn,sqlx=off,otpd={level},{AUDIT}=info,{STRANGER}=info"
    ))
}

/// Which lines there are from now on. Before the log has started nothing happens.
pub fn set_level(level: LogLevel) {
    if let Some(controls) = CONTROLS.get()
        && controls.filter.reload(filter(level)).is_ok()
    {
        controls.level.store(level as u64, Ordering::Relaxed);
    }
}

/// Which lines there are; `None` before the log has started.
pub fn level() -> Option<LogLevel> {
    let number = CONTROLS.get()?.level.load(Ordering::Relaxed);
    LogLevel::ALL
        .into_iter()
        .find(|level| *level as u64 == number)
}

/// Opens the audit log anew, so that one that was moved away is left alone from now on.
///
/// # Errors
/// Why it cannot be opened; then the old one is written on.
pub fn reopen() -> io::Result<()> {
    match CONTROLS
        .get()
        .and_then(|controls| controls.outlet.audit.as_ref())
    {
        Some(audit) => audit.reopen(),
        None => Ok(()),
    }
}

/// How many lines were left out, since they repeated others.
pub fn suppressed_lines() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Number of lines that were dropped because nobody took them: those for standard output,
/// and those for the audit log.
pub fn lines_dropped() -> (u64, u64) {
    let Some(LogHandle { outlet, .. }) = CONTROLS.get() else {
        return (0, 0);
    };
    let audit = outlet.audit.as_ref().map(|audit| audit.queue().dropped());
    (outlet.standard.dropped(), audit.unwrap_or_default())
}
