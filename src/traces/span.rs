//! Spans: what takes time, and belongs to a trace.

use std::borrow::Cow;

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Link, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::Span as Recording;

use super::{TraceContext, current, export::active};

/// On which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanSide {
    /// It answers somebody.
    Server,
    /// It asks somebody.
    Client,
    /// Neither.
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

/// Something that takes time; ends when it is dropped. Where it is not sampled it is
/// nothing but a place in a trace, or not even that.
#[derive(Debug, Default)]
pub struct TraceSpan {
    recording: Option<Box<Recording>>,
    context: Option<TraceContext>,
}

impl TraceSpan {
    /// The work on a request, which may come with its caller's place in a trace. Whether
    /// it is sampled is decided here.
    pub fn server_span(caller: Option<TraceContext>, name: &'static str) -> Self {
        let Some(tracing) = active() else {
            return Self::at(caller);
        };
        let sampled = match caller {
            Some(caller) => caller.is_sampled(),
            None => tracing.sample.next(),
        };
        if !sampled {
            return Self::at(caller);
        }
        Self::start(name, SpanSide::Server, caller, true, Vec::new())
    }

    /// Work that nobody asked for, in a trace of its own.
    pub fn root_span(name: &'static str) -> Self {
        match active() {
            Some(tracing) if tracing.sample.next() => {
                Self::start(name, SpanSide::Internal, None, false, Vec::new())
            }
            _ => Self::default(),
        }
    }

    /// A part of what is being done now.
    pub fn child_span(name: &'static str, kind: SpanSide) -> Self {
        match current() {
            Some(context) if context.is_sampled() && active().is_some() => {
                Self::start(name, kind, Some(context), false, Vec::new())
            }
            context => Self::at(context),
        }
    }

    /// Work that several places of traces have asked for together: in the first sampled
    /// one's trace, and with a link to each.
    pub fn linked_span(name: &'static str, all: impl Iterator<Item = TraceContext>) -> Self {
        if active().is_none() {
            return Self::default();
        }
        let mut sampled = all.filter(TraceContext::is_sampled).peekable();
        let Some(first) = sampled.peek().copied() else {
            return Self::default();
        };
        let links = sampled
            .map(|context| Link::new(context.span_context(false), Vec::new(), 0))
            .collect();
        Self::start(name, SpanSide::Internal, Some(first), false, links)
    }

    fn at(context: Option<TraceContext>) -> Self {
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
            return Self::at(parent);
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
            context: Some(TraceContext::of(recording.span_context())),
            recording: Some(Box::new(recording)),
        }
    }

    /// Where in a trace it is.
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// Whether anybody will see it.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Notes something about it: never a code, a recipient or a token.
    pub fn set_attribute(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &mut self.recording {
            recording.set_attribute(KeyValue::new(key, value));
        }
    }

    /// It has failed.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(recording) = &mut self.recording {
            recording.set_status(Status::error(why));
        }
    }
}
