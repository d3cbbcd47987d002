//! Traces: what a request does and where, told to an OpenTelemetry collector.
//!
//! Whether a request is *sampled* is decided once, where it comes in: as its caller has
//! decided, or by a share of those whose callers say nothing. What is not sampled makes
//! no span; it is only known where in its caller's trace it is, for the log and for
//! whoever is called next.

mod context;
mod export;
mod span;

use std::{future::Future, time::Duration};

use serde::Deserialize;

pub use context::TraceContext;
pub use export::{TraceError, start, stop};
pub use span::{SpanSide, TraceSpan};

/// The header that carries a [`TraceContext`] (W3C Trace Context).
pub const HEADER: &str = "traceparent";

/// Where spans go: the `[traces]` table of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// The collector, which takes OTLP over gRPC; nowhere, where it is unset.
    pub endpoint: Option<String>,
    /// The share of requests that are sampled where the caller has not decided, 0 to 1.
    pub sample_ratio: f64,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: 0.01,
        }
    }
}

impl TraceSettings {
    /// Checks every value.
    ///
    /// # Errors
    /// The key at fault, within its table, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if let Some(endpoint) = &self.endpoint
            && !["http://", "https://"]
                .iter()
                .any(|scheme| endpoint.starts_with(scheme))
        {
            let problem = "must begin with http:// or https://, such as http://127.0.0.1:4317";
            return Err(("endpoint", problem.to_owned()));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            let problem = format!("{} is out of bounds; allowed: 0 to 1", self.sample_ratio);
            return Err(("sample_ratio", problem));
        }
        Ok(())
    }
}

/// How long spans are gathered before they are sent.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Where in a trace the current task is.
    static CURRENT: Option<TraceContext>;
}

/// Where in a trace this is, if in any.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok().flatten()
}

/// Does `work` at that place of a trace.
pub fn with_context<F: Future>(
    context: Option<TraceContext>,
    work: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, work)
}

/// Does `work`, which does not wait, at that place of a trace.
pub fn enter<T>(context: Option<TraceContext>, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(context, work)
}
