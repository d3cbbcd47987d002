//! gRPC server with one method that returns its input, and calls of it: the performance
//! of tonic alone on this machine.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use prost::Message;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http, http::uri::PathAndQuery},
    server::{NamedService, UnaryService},
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;

use super::{Outcome, latency::Latencies};

const PATH: &str = "/compare.Echo/Echo";

#[derive(Debug, clap::Args)]
pub struct ServeOptions {
    #[arg(long)]
    address: SocketAddr,
}

#[derive(Debug, clap::Args)]
pub struct LoadOptions {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    connections: u32,
    /// Number of concurrent calls, over all connections.
    #[arg(long)]
    in_flight: u32,
    #[arg(long)]
    seconds: f64,
}

/// Message of the size of a SendOtp request: a recipient, a purpose, a client address, an
/// id.
#[derive(Clone, PartialEq, Eq, Message)]
struct Ping {
    #[prost(string, tag = "1")]
    recipient: String,
    #[prost(string, tag = "2")]
    purpose: String,
    #[prost(string, tag = "6")]
    client_ip: String,
    #[prost(string, tag = "7")]
    request_id: String,
}

#[derive(Clone, Debug)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "compare.Echo";
}

impl UnaryService<Ping> for Echo {
    type Response = Ping;
    type Future = Ready<Result<Response<Ping>, Status>>;

    fn call(&mut self, request: Request<Ping>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<Ping, Ping>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Echo, request).await)
        })
    }
}

pub async fn serve(options: &ServeOptions) -> Outcome {
    Server::builder()
        .add_service(Echo)
        .serve(options.address)
        .await?;
    Ok(())
}

pub async fn load(options: &LoadOptions) -> Outcome {
    let mut channels = Vec::new();
    for _ in 0..options.connections {
        let endpoint = Endpoint::from_shared(format!("http://{}", options.address))?;
        channels.push(endpoint.connect().await?);
    }
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(options.seconds);
    let mut callers = JoinSet::new();
    for (_, channel) in (0..options.in_flight).zip(channels.iter().cycle()) {
        callers.spawn(call(channel.clone(), end));
    }
    let (mut calls, mut latencies) = (0_u64, Latencies::default());
    while let Some(done) = callers.join_next().await {
        let (of_one, its_latencies) = done??;
        calls += of_one;
        latencies.merge(its_latencies);
    }
    let report = json!({
        "seconds": started.elapsed().as_secs_f64(),
        // A pair is two calls.
        "pairs": calls / 2,
        "call": latencies.summary(),
    });
    println!("{report}");
    Ok(())
}

/// Makes one call after the other until the end.
async fn call(channel: Channel, end: Instant) -> Result<(u64, Latencies), Status> {
    let ping = Ping {
        recipient: "+79991234567".to_owned(),
        purpose: "login".to_owned(),
        client_ip: "203.0.113.123".to_owned(),
        request_id: "b0a6c8f2-5f0e-4a44-9f0a-1f5a0c5e7d11".to_owned(),
    };
    let mut client = tonic::client::Grpc::new(channel);
    let (mut calls, mut latencies) = (0, Latencies::default());
    while Instant::now() < end {
        let asked_at = Instant::now();
        client
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(PATH);
        let request = Request::new(ping.clone());
        let codec = ProstCodec::<Ping, Ping>::default();
        let reply: Response<Ping> = client.unary(request, path, codec).await?;
        if reply.into_inner() != ping {
            return Err(Status::data_loss("the response differs from the request"));
        }
        latencies.add(asked_at.elapsed());
        calls += 1;
    }
    Ok((calls, latencies))
}
