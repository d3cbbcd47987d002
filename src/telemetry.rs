//! The log: text for people or JSON for machines, on standard output.

use std::{io::IsTerminal as _, sync::OnceLock};

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, LogLevel};

/// Which lines there are; there once the log has been started.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Lets the log tell more or less from now on.
pub fn set_level(level: LogLevel) {
    // Fails only where there is no log, or none any more.
    if let Some(filter_of_log) = FILTER.get() {
        let _ = filter_of_log.reload(filter(level));
    }
}

/// Only otpd's own lines follow `level`: what libraries say below a
/// warning may show what they carry. sqlx says nothing at all: the store tells what
/// ails the database, once and not for each connection, and sqlx's warnings show
/// parts of the database's URL.
fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    EnvFilter::new(format!("warn,sqlx=off,otpd={level}"))
}

/// Starts the log.
pub fn start(format: LogFormat, level: LogLevel) {
    let (filter, handle) = reload::Layer::new(filter(level));
    // One that was started before goes on.
    let _ = FILTER.set(handle);
    let lines = tracing_subscriber::fmt::layer().with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stdout().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        // The message stays out: it may hold what panicked.
        tracing::error!(place, "[OTP] Panic");
    }));
}
