//! Settings of the log.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Format of lines.
    pub format: LogFormat,
    /// Level of lines that are written.
    pub level: LogLevel,
    /// Destination of audit lines.
    pub audit: AuditLog,
    /// Time in which repetitions of a warning are left out. Zero: none are.
    pub repeat_after: Duration,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Plain text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Minimum severity of the log lines that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the usual levels")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// All levels, the most severe first.
    pub const ALL: [Self; 5] = [
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// Returns the name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// Returns the level with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// Destination of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum AuditLog {
    /// `stdout`: together with all other log lines.
    #[default]
    Standard,
    /// Separate file, as JSON.
    File(PathBuf),
}

impl From<String> for AuditLog {
    fn from(text: String) -> Self {
        if text.eq_ignore_ascii_case("stdout") {
            Self::Standard
        } else {
            Self::File(text.into())
        }
    }
}
