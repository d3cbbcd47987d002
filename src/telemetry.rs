//! The log: text for people or JSON for machines, on standard output.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, LogLevel};

/// Starts the log. Only otpd's own lines follow `level`: what libraries say below a
/// warning may show what they carry. sqlx says nothing at all: the store tells what
/// ails the database, once and not for each connection, and sqlx's warnings show
/// parts of the database's URL.
pub fn start(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let filter = EnvFilter::new(format!("warn,sqlx=off,otpd={level}"));
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
