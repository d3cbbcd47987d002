//! Traces of requests, exported to an OpenTelemetry collector.
//!
//! The decision if a request is *sampled* is made once, on arrival: by its caller, or at random by
//! the sample ratio if the caller has not decided. A request that is not sampled makes no span. Its
//! context in the caller's trace is still kept, for the log and for the next server.

mod context;
mod export;
mod span;

use std::{future::Future, time::Duration};

use serde::Deserialize;

pub use context::TraceContext;
pub use export::{TraceError, start, stop};
pub use span::{SpanSide, TraceSpan};

/// Header that carries a [`TraceContext`] (W3C Trace Context).
pub const HEADER: &str = "traceparent";

/// Export of spans: the `[traces]` table of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// Address of the collector, which accepts OTLP over gRPC. Unset: no export.
    pub endpoint: Option<String>,
    /// Ratio of requests that are sampled if the caller has not decided, 0 to 1.
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
    /// The key at fault, within its table, and the problem of its value.
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

/// Interval at which collected spans are sent.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Trace context of the current task.
    static CURRENT: Option<TraceContext>;
}

/// Returns the trace context of the current task, if it has one.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok().flatten()
}

/// Runs `work` in a trace context.
pub fn with_context<F: Future>(
    context: Option<TraceContext>,
    work: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, work)
}

/// Runs synchronous `work` in a trace context.
pub fn enter<T>(context: Option<TraceContext>, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(context, work)
}
