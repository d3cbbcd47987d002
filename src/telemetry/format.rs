//! How a line looks: as its format has it, and at its end where in a trace it was
//! written, and how many like it were left out.

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

use super::{
    LEFT_OUT, audit::is_audit, dedup::LogDeduplicator, unauthenticated_log::UnauthenticatedLog,
};
use crate::{config::LogFormat, log_targets::STRANGER, traces};

/// Writes lines.
#[derive(Debug)]
pub(super) struct LogFormatter {
    format: LogFormat,
    text: Format<Full>,
    json: Format<Json>,
    /// Whether the audit log is a file of its own; then its lines are JSON.
    audit_apart: bool,
    repeats: LogDeduplicator,
    strangers: Arc<UnauthenticatedLog>,
}

impl LogFormatter {
    pub fn new(
        format: LogFormat,
        colours: bool,
        audit_apart: bool,
        repeats: LogDeduplicator,
        strangers: Arc<UnauthenticatedLog>,
    ) -> Self {
        let plain = Format::default().with_target(false);
        Self {
            format,
            text: plain.clone().with_ansi(colours),
            json: plain.json().flatten_event(true),
            audit_apart,
            repeats,
            strangers,
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
        if target == STRANGER && !self.strangers.admit(event) {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let Some(left_out) = self.repeats.admit(event) else {
            return Ok(());
        };
        let place = traces::current();
        let apart = self.audit_apart && is_audit(target);
        let json = apart || self.format == LogFormat::Json;
        let mut line = String::new();
        let bare = left_out == 0 && place.is_none();
        let inner = if bare {
            writer.by_ref()
        } else {
            Writer::new(&mut line)
        };
        if json {
            self.json.format_event(context, inner, event)?;
        } else {
            self.text.format_event(context, inner, event)?;
        }
        if bare {
            return Ok(());
        }
        let end = if json { "}\n" } else { "\n" };
        // What every line of that format ends with.
        line.truncate(line.len().saturating_sub(end.len()));
        if let Some(place) = place {
            let trace = place.trace_id();
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
