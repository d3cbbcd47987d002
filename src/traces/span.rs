//! Spans of a trace.

use std::borrow::Cow;

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Link, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::Span as Recording;

use super::{TraceContext, current, export::active};

/// Side of a call that a span describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanSide {
    /// Answer to a client.
    Server,
    /// Request to a server.
    Client,
    /// Internal work.
    Internal,
}

impl From<SpanSide> for SpanKind {
    fn from(kind: SpanSide) -> Self {
        match kind {
            SpanSide::Server => Self::Server,
            SpanSide::Client => Self::Client,
            SpanSide::Internal => Self::Internal,
        }
    }
}

/// Span that ends when it is dropped. If it is not sampled, it holds only a trace context, or not
/// even that.
#[derive(Debug, Default)]
pub struct TraceSpan {
    recording: Option<Box<Recording>>,
    context: Option<TraceContext>,
}

impl TraceSpan {
    /// Starts the span of a request, which may carry its caller's trace context. The sampling
    /// decision is made here.
    pub fn server_span(caller: Option<TraceContext>, name: &'static str) -> Self {
        let Some(tracing) = active() else {
            return Self::unsampled(caller);
        };
        let sampled = match caller {
            Some(caller) => caller.is_sampled(),
            None => tracing.sample.next(),
        };
        if !sampled {
            return Self::unsampled(caller);
        }
        Self::start(name, SpanSide::Server, caller, true, Vec::new())
    }

    /// Starts the span of background work, in a new trace.
    pub fn root_span(name: &'static str) -> Self {
        match active() {
            Some(tracing) if tracing.sample.next() => {
                Self::start(name, SpanSide::Internal, None, false, Vec::new())
            }
            _ => Self::default(),
        }
    }

    /// Starts a span within the current one.
    pub fn child_span(name: &'static str, kind: SpanSide) -> Self {
        match current() {
            Some(context) if context.is_sampled() && active().is_some() => {
                Self::start(name, kind, Some(context), false, Vec::new())
            }
            context => Self::unsampled(context),
        }
    }

    /// Starts the span of work for several requests. It belongs to the trace of the first sampled one,
    /// and has a link to each.
    pub fn linked_span(name: &'static str, contexts: impl Iterator<Item = TraceContext>) -> Self {
        if active().is_none() {
            return Self::default();
        }
        let mut sampled = contexts.filter(TraceContext::is_sampled).peekable();
        let Some(first) = sampled.peek().copied() else {
            return Self::default();
        };
        let links = sampled
            .map(|context| Link::new(context.span_context(false), Vec::new(), 0))
            .collect();
        Self::start(name, SpanSide::Internal, Some(first), false, links)
    }

    fn unsampled(context: Option<TraceContext>) -> Self {
        Self {
            recording: None,
            context,
        }
    }

    fn start(
        name: &'static str,
        kind: SpanSide,
        parent: Option<TraceContext>,
        remote: bool,
        links: Vec<Link>,
    ) -> Self {
        let Some(tracing) = active() else {
            return Self::unsampled(parent);
        };
        let context = Context::new();
        let context = match parent {
            Some(parent) => context.with_remote_span_context(parent.span_context(remote)),
            None => context,
        };
        let tracer = &tracing.tracer;
        let builder = tracer.span_builder(name).with_kind(kind.into());
        let recording = tracer.build_with_context(builder.with_links(links), &context);
        Self {
            context: Some(TraceContext::from_span(recording.span_context())),
            recording: Some(Box::new(recording)),
        }
    }

    /// Returns its trace context.
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// Returns whether the span is exported.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Sets an attribute, which must never be a code, a recipient or a token.
    pub fn set_attribute(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &mut self.recording {
            recording.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks the span as failed.
    pub fn fail(&mut self, cause: impl Into<Cow<'static, str>>) {
        if let Some(recording) = &mut self.recording {
            recording.set_status(Status::error(cause));
        }
    }
}
