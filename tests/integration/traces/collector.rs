//! An OTLP collector for one test that stores the received spans.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

pub struct Collector {
    address: SocketAddr,
    spans: mpsc::UnboundedReceiver<Span>,
    resource: Arc<Mutex<BTreeMap<String, String>>>,
}

struct Taker {
    spans: mpsc::UnboundedSender<Span>,
    resource: Arc<Mutex<BTreeMap<String, String>>>,
}

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.expect("spans have a resource");
            *self.resource.lock().expect("lock is not poisoned") = texts(&resource.attributes);
            let scopes = of_resource.scope_spans.into_iter();
            for span in scopes.flat_map(|scope| scope.spans) {
                // The test may have seen enough.
                let _ = self.spans.send(span);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Attributes as texts.
pub fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| {
        let value = attribute.value.as_ref()?.value.as_ref()?;
        let text = match value {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        Some((attribute.key.clone(), text))
    };
    attributes.iter().filter_map(text).collect()
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (sender, spans) = mpsc::unbounded_channel();
        let resource = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let taker = Taker {
            spans: sender,
            resource: Arc::clone(&resource),
        };
        let server = Server::builder().add_service(TraceServiceServer::new(taker));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            address,
            spans,
            resource,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Resource of the latest spans.
    pub fn resource(&self) -> BTreeMap<String, String> {
        self.resource.lock().expect("lock is not poisoned").clone()
    }

    /// All spans, once they are `enough`.
    pub async fn spans_until(&mut self, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        self.spans_from(Vec::new(), enough).await
    }

    /// Like `spans`, and includes those that were seen before.
    pub async fn spans_from(
        &mut self,
        mut spans: Vec<Span>,
        enough: impl Fn(&[Span]) -> bool,
    ) -> Vec<Span> {
        while !enough(&spans) {
            spans.push(self.spans.recv().await.expect("the collector runs"));
        }
        spans
    }
}
