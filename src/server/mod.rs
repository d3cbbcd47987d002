//! Server: creates all parts, serves until the shutdown, and drains.

mod app;
mod gauges;
mod jwks;
mod labels;
mod purge;
mod reload;
mod store_stats;

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::maybe_done;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};
use tower::ServiceBuilder;

use crate::{
    admin,
    grpc::{
        AdmissionLayer, BodyTimeoutLayer, MAX_MESSAGE_BYTES, OtpGrpc, ProtocolDispatch,
        RpcMetricsLayer, SizeLimitErrorLayer,
        v1::{self, otp_service_server::OtpServiceServer},
    },
    listener,
    metrics::Metrics,
    store::{StoreError, health::StoreHealth},
    traces,
};
use app::App;

pub use app::LoadedConfig;
pub use reload::{ConfigLoader, ConfigReload, LoadResult};

/// Full name of the service in health checks.
const OTP_SERVICE: &str = "otp.v1.OtpService";
/// Service name of the liveness check, which depends only on the process.
const LIVENESS: &str = "liveness";
/// Maximum time for the export of the last spans, even after the shutdown timeout.
const SPAN_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum time for sending `SHUTTING_DOWN` to the last requests.
const SHUTDOWN_REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Failure that ends a server before its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store must not be used with this configuration.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The reflection services could not be created.
    #[error("reflection failed: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Listeners of a server.
#[derive(Debug)]
pub struct Listeners {
    /// Serves callers.
    pub calls: TcpListener,
    /// Serves operators; `None` if there is no such listener.
    pub operations: Option<TcpListener>,
    /// Serves the public keys of receipts; `None` if there is no such listener.
    pub receipts: Option<TcpListener>,
}

/// Serves callers until `shutdown` completes, then drains the requests in progress. Meanwhile a
/// reload may replace the configuration. Metrics and public keys are served from the start to the
/// end of the process.
///
/// # Errors
/// The cause that makes serving impossible. An unavailable store is no such cause: requests
/// are refused until it is available.
pub async fn run(
    listeners: Listeners,
    loaded: LoadedConfig,
    reload: ConfigReload,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServerError> {
    let Listeners {
        calls: listener,
        operations,
        receipts,
    } = listeners;
    let settings = loaded.config.settings.clone();
    let mut metrics = Metrics::new(&labels::label_values(&loaded.config));
    let (parts, mut reloadable) = App::assemble(loaded, &mut metrics, operations.is_some())?;
    let _operations = operations.map(|listener| {
        gauges::register(&mut metrics, &parts);
        let metrics = Arc::new(metrics);
        reloadable.metrics = Some(Arc::clone(&metrics));
        let serving = admin::serve(listener, metrics);
        AbortOnDropHandle::new(tokio::spawn(serving))
    });
    let _receipts = receipts.map(|listener| {
        let serving = jwks::serve(listener, parts.current.clone());
        AbortOnDropHandle::new(tokio::spawn(serving))
    });
    let (health, health_service) = new_health().await;
    let routes = routes(parts.contract, health_service, settings.reflection)?;
    let end_serving = CancellationToken::new();
    let calls = parts.calls;
    let admission = AdmissionLayer {
        current: parts.current,
        outcomes: parts.outcomes,
        budget: parts.budget.clone(),
        reflection: settings.reflection,
        http_api: None,
    };
    let server = listener::serve(
        listener,
        parts.connection_config,
        parts.budget,
        move |config| {
            ServiceBuilder::new()
                .layer(RpcMetricsLayer(calls.clone()))
                .layer(AdmissionLayer {
                    http_api: config.http_api.clone(),
                    ..admission.clone()
                })
                .layer(SizeLimitErrorLayer)
                .layer(BodyTimeoutLayer(config.bounds.request_body_timeout))
                .service(routes.clone())
        },
        end_serving.clone(),
    );
    // Awaited in several places, also after its end.
    let mut server = Box::pin(maybe_done(server));

    // Only the server outlives this select. A health check or a purge in progress in the
    // background would keep its connection, and closing the store would wait for it.
    tokio::select! {
        () = &mut server => return Ok(()),
        result = parts.background => return Ok(result?),
        () = report_health(&health, parts.availability) => {}
        () = reload.run(reloadable) => {}
        () = shutdown => {}
    }

    tracing::info!("[OTP] Shutting down");
    set_health(&health, false).await;
    // Load balancers notice before connections are refused.
    tokio::select! {
        () = &mut server => return Ok(()),
        () = tokio::time::sleep(settings.shutdown_delay) => {}
    }
    end_serving.cancel();
    // A health watch never ends by itself, and would keep its connection open until the
    // shutdown timeout.
    for service in ["", OTP_SERVICE, LIVENESS] {
        health.clone().clear_service_status(service).await;
    }
    parts.running.close();
    let drained = async {
        (&mut server).await;
        parts.running.wait().await;
        // From here on no write can enqueue a message.
        parts.outbox.close().await;
    };
    let ends = Instant::now() + settings.shutdown_timeout;
    if tokio::time::timeout_at(ends, drained).await.is_err() {
        tracing::warn!(
            requests = parts.running.len(),
            messages = parts.outbox.in_flight(),
            "[OTP] Shutdown grace period exceeded with work in flight"
        );
        // Requests that still wait get SHUTTING_DOWN rather than a broken connection.
        parts.ending.cancel();
        let _ = tokio::time::timeout(SHUTDOWN_REPLY_TIMEOUT, server).await;
    }
    parts.store.close().await;
    let left = ends.saturating_duration_since(Instant::now());
    traces::stop(left.max(SPAN_FLUSH_TIMEOUT)).await;
    tracing::info!("[OTP] Stopped");
    Ok(())
}

/// Returns the routes of all services.
fn routes(
    contract: OtpGrpc,
    health: HealthServer<impl Health>,
    reflection_enabled: bool,
) -> Result<ProtocolDispatch, ServerError> {
    let server =
        OtpServiceServer::new(contract.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut routes = Routes::new(health).add_service(server.clone());
    if reflection_enabled {
        routes = routes
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
    }
    Ok(ProtocolDispatch::new(routes.prepare(), server, contract))
}

/// Returns the reflection of the contract, the health service and the error details, so that
/// grpcurl can decode the details.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Creates the health service: alive, and not serving yet.
async fn new_health() -> (HealthReporter, HealthServer<impl Health>) {
    let (health, service) = tonic_health::server::health_reporter();
    set_health(&health, false).await;
    health
        .set_service_status(LIVENESS, ServingStatus::Serving)
        .await;
    (health, service)
}

async fn set_health(health: &HealthReporter, serving: bool) {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for service in ["", OTP_SERVICE] {
        health.set_service_status(service, status).await;
    }
}

/// Sets the health to the availability of the store; never completes.
async fn report_health(health: &HealthReporter, mut availability: StoreHealth) {
    set_health(health, availability.is_available()).await;
    loop {
        let is_available = availability.changed().await;
        set_health(health, is_available).await;
    }
}
