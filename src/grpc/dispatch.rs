//! Passes each admitted request to the implementation of its protocol.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    codegen::http::{Request, Response},
    service::Routes,
};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, Service};

use super::{
    connect, otp_service::OtpGrpc, protocol::Protocol, v1::otp_service_server::OtpServiceServer,
};
use crate::metrics::RpcName;

type BoxFuture<Output> = Pin<Box<dyn Future<Output = Output> + Send>>;

/// Services of all protocols. gRPC-Web and Connect arrive only if the HTTP API is on, because
/// admission refuses them otherwise.
#[derive(Clone, Debug)]
pub struct ProtocolDispatch {
    /// The contract, called without the router, which takes a twelfth of the allocations of a
    /// call.
    contract: OtpServiceServer<OtpGrpc>,
    /// All services, found by the path.
    grpc: Routes,
    http_api: Arc<HttpApiServices>,
}

/// Services of the HTTP API. Shared, so that a request of gRPC does not pay for their clone.
#[derive(Debug)]
struct HttpApiServices {
    grpc_web: GrpcWebService<Routes>,
    contract: OtpGrpc,
}

impl ProtocolDispatch {
    /// Creates the services of all protocols from those of gRPC. `contract` is one of them, and
    /// `handler` is its implementation.
    pub fn new(grpc: Routes, contract: OtpServiceServer<OtpGrpc>, handler: OtpGrpc) -> Self {
        let grpc_web = GrpcWebLayer::new().layer(grpc.clone());
        Self {
            contract,
            grpc,
            http_api: Arc::new(HttpApiServices {
                grpc_web,
                contract: handler,
            }),
        }
    }
}

impl Service<Request<Body>> for ProtocolDispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.grpc, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let protocol = request.extensions().get::<Protocol>().copied();
        match (protocol, RpcName::at(request.uri().path())) {
            (Some(Protocol::Connect(format)), Some((rpc, _))) => {
                let contract = self.http_api.contract.clone();
                Box::pin(
                    async move { Ok(connect::call::call(contract, rpc, format, request).await) },
                )
            }
            (Some(Protocol::GrpcWeb(_)), _) => {
                let mut grpc_web = self.http_api.grpc_web.clone();
                Box::pin(grpc_web.call(request))
            }
            (Some(Protocol::Grpc(_)), Some(_)) => self.contract.call(request),
            _ => Box::pin(self.grpc.call(request)),
        }
    }
}
