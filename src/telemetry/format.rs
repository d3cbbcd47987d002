//! Format of log lines: the configured format, followed by the trace id and the number of equal lines
//! that were left out.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, atomic::Ordering},
};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Json, Writer},
    },
    registry::LookupSpan,
};

use super::LogFormat;
use super::{
    LEFT_OUT, audit::is_audit, dedup::LogDeduplicator, unauthenticated_log::UnauthenticatedLog,
};
use crate::traces;
use otpd_base::log_targets::UNAUTHENTICATED;

/// Formatter of log lines.
#[derive(Debug)]
pub(super) struct LogFormatter {
    format: LogFormat,
    text: Format<Full>,
    json: Format<Json>,
    /// True if the audit log is a separate file, which has JSON lines.
    separate_audit: bool,
    deduplicator: LogDeduplicator,
    unauthenticated: Arc<UnauthenticatedLog>,
}

impl LogFormatter {
    pub fn new(
        format: LogFormat,
        colours: bool,
        separate_audit: bool,
        deduplicator: LogDeduplicator,
        unauthenticated: Arc<UnauthenticatedLog>,
    ) -> Self {
        let plain = Format::default().with_target(false);
        Self {
            format,
            text: plain.clone().with_ansi(colours),
            json: plain.json().flatten_event(true),
            separate_audit,
            deduplicator,
            unauthenticated,
        }
    }
}

impl<S, N> FormatEvent<S, N> for LogFormatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let target = event.metadata().target();
        if target == UNAUTHENTICATED && !self.unauthenticated.admit(event) {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let Some(left_out) = self.deduplicator.admit(event) else {
            return Ok(());
        };
        let trace = traces::current();
        let is_separate = self.separate_audit && is_audit(target);
        let json = is_separate || self.format == LogFormat::Json;
        let mut line = String::new();
        let is_plain = left_out == 0 && trace.is_none();
        let inner = if is_plain {
            writer.by_ref()
        } else {
            Writer::new(&mut line)
        };
        if json {
            self.json.format_event(context, inner, event)?;
        } else {
            self.text.format_event(context, inner, event)?;
        }
        if is_plain {
            return Ok(());
        }
        let end = if json { "}\n" } else { "\n" };
        // Every line of the format has this end.
        line.truncate(line.len().saturating_sub(end.len()));
        if let Some(trace) = trace {
            let trace = trace.trace_id();
            if json {
                write!(line, r#","trace_id":"{trace}""#)?;
            } else {
                write!(line, " trace_id={trace}")?;
            }
        }
        if left_out > 0 {
            if json {
                write!(line, r#","left_out":{left_out}"#)?;
            } else {
                write!(line, " left_out={left_out}")?;
            }
        }
        writer.write_str(&line)?;
        writer.write_str(end)
    }
}
