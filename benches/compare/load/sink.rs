//! Collector that discards spans.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{NamedService, UnaryService},
    transport::Server,
};
use tonic_prost::ProstCodec;

use super::Outcome;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    address: SocketAddr,
}

#[derive(Clone, Debug)]
struct Sink;

impl NamedService for Sink {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<()> for Sink {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

impl Service<http::Request<Body>> for Sink {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            // A message without fields skips its content.
            let codec = ProstCodec::<(), ()>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Sink, request).await)
        })
    }
}

pub async fn serve(options: &Options) -> Outcome {
    Server::builder()
        .add_service(Sink)
        .serve(options.address)
        .await?;
    Ok(())
}
