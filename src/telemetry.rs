//! The log: text for people or JSON for machines, on standard output; and beside it, if
//! so configured, a file of its own for what auditors look for.

mod audit;
mod lines;
mod repeats;

use std::{
    io::{self, IsTerminal as _},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::{
    config::{AuditLog, LogFormat, LogLevel},
    log_targets::AUDIT,
};
use audit::{AuditFile, Outlet};
use lines::Lines;
use repeats::Repeats;

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
struct Controls {
    filter: reload::Handle<EnvFilter, Registry>,
    level: AtomicU64,
    audit: Option<Arc<AuditFile>>,
}

/// One for the process, like the log.
static CONTROLS: OnceLock<Controls> = OnceLock::new();
/// How many lines were left out.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Starts the log. Only otpd's own lines follow the level: what libraries say below a
/// warning may show what they carry. sqlx says nothing at all: the store tells what
/// ails the database, once and not for each connection, and sqlx's warnings show
/// parts of the database's URL.
///
/// # Errors
/// An audit log that cannot be opened.
pub fn start(settings: &LogSettings) -> io::Result<()> {
    let audit = match &settings.audit {
        AuditLog::Standard => None,
        AuditLog::File(path) => Some(Arc::new(AuditFile::open(path)?)),
    };
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    let colours = settings.format == LogFormat::Text && io::stdout().is_terminal();
    let repeats = Repeats::new(settings.repeat_after);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(colours)
        .event_format(Lines::new(
            settings.format,
            colours,
            audit.is_some(),
            repeats,
        ))
        .with_writer(Outlet(audit.clone()));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    // The log cannot be started twice: that would have panicked.
    let _ = CONTROLS.set(Controls {
        filter: handle,
        level: AtomicU64::new(settings.level as u64),
        audit,
    });
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        // The message stays out: it may hold what panicked.
        tracing::error!(place, "[OTP] Panic");
    }));
    Ok(())
}

fn filter(level: LogLevel) -> EnvFilter {
    let level = level.name();
    EnvFilter::new(format!("warn,sqlx=off,otpd={level},{AUDIT}=info"))
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
    match CONTROLS.get().and_then(|controls| controls.audit.as_ref()) {
        Some(audit) => audit.reopen(),
        None => Ok(()),
    }
}

/// How many lines were left out, since they repeated others.
pub fn lines_left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}
