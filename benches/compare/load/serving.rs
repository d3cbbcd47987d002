//! Start-up time of a server.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::Outcome;

/// Interval between health checks, and so the maximum error of the result.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Address of the server's listener.
    #[arg(long)]
    address: SocketAddr,
    /// Seconds after which the measurement fails.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Command of the server.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Starts the command, polls until its health is SERVING, and kills it.
pub async fn run(options: &Options) -> Outcome {
    let (program, arguments) = options.command.split_first().ok_or("no command")?;
    let started = Instant::now();
    let mut server = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let end = started + Duration::from_secs_f64(options.seconds);
    let mut ready = false;
    while !ready && Instant::now() < end && server.try_wait()?.is_none() {
        ready = is_serving(options.address).await;
        if !ready {
            sleep(POLL_INTERVAL).await;
        }
    }
    let elapsed = started.elapsed();
    server.kill()?;
    server.wait()?;
    if !ready {
        return Err("the server did not become healthy in time".into());
    }
    println!("{}", json!({ "seconds": elapsed.as_secs_f64() }));
    Ok(())
}

async fn is_serving(address: SocketAddr) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return false;
    };
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    let reply = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await;
    reply.is_ok_and(|reply| reply.into_inner().status() == ServingStatus::Serving)
}
