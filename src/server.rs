//! The server: everything put together, from the first line of the log to the last.

mod app;
mod gauges;
mod reload;
mod sweeper;

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
    admin, connection,
    grpc::{
        AdmissionLayer, BodyTimeoutLayer, OtpGrpc, RpcMetricsLayer, SizeLimitErrorLayer,
        v1::{self, otp_service_server::OtpServiceServer},
    },
    metrics::Metrics,
    store::{StoreError, health::StoreHealth},
    traces,
};
use app::App;

pub use app::LoadedConfig;
pub use reload::{ConfigLoader, ConfigReload, LoadResult};

/// The full name of the service, as health checks know it.
const OTP_SERVICE: &str = "otp.v1.OtpService";
/// What health checks ask for who only want to know that the process lives.
const LIVENESS: &str = "liveness";
/// How long the last spans may take to the collector, even after the grace.
const SPAN_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// How long those who are told to go elsewhere at the very end have to hear it.
const SHUTDOWN_REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a server ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store must not be used with this configuration.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The reflection services could not be made.
    #[error("reflection failed: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves on `listener` until `shutdown` completes, then finishes what runs. Meanwhile
/// the configuration may be replaced. What is measured is told on `operations`, from the
/// first moment to the last.
///
/// # Errors
/// What makes serving impossible. A store that does not answer does not: requests
/// are refused until it does.
pub async fn run(
    listener: TcpListener,
    operations: Option<TcpListener>,
    loaded: LoadedConfig,
    reload: ConfigReload,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServerError> {
    let settings = loaded.config.settings.clone();
    let mut metrics = Metrics::new(&gauges::label_values(&loaded.config));
    let (parts, mut reloadable) = App::assemble(loaded, &mut metrics, operations.is_some())?;
    let _operations = operations.map(|listener| {
        gauges::watch(&mut metrics, &parts);
        let metrics = Arc::new(metrics);
        reloadable.metrics = Some(Arc::clone(&metrics));
        let serving = admin::serve(listener, metrics);
        AbortOnDropHandle::new(tokio::spawn(serving))
    });
    let (health, health_service) = new_health().await;
    let routes = routes(parts.contract, health_service, settings.reflection)?;
    let end_serving = CancellationToken::new();
    let calls = parts.calls;
    let admission = AdmissionLayer {
        current: parts.current,
        answers: parts.answers,
        budget: parts.budget.clone(),
        reflection: settings.reflection,
    };
    let server = connection::serve(
        listener,
        parts.terms,
        parts.budget,
        move |terms| {
            ServiceBuilder::new()
                .layer(RpcMetricsLayer(calls.clone()))
                .layer(admission.clone())
                .layer(SizeLimitErrorLayer)
                .layer(BodyTimeoutLayer(terms.bounds.request_body_timeout))
                .service(routes.clone())
        },
        end_serving.clone(),
    );
    // It may be waited for again after its end.
    let mut server = Box::pin(maybe_done(server));

    // The server alone outlives this: a probe or a sweep that the background is in the
    // middle of would keep its connection, and the store wait for that when it closes.
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
    // A watch of health has no end of its own, and its connection would stay open
    // until the grace is over.
    for service in ["", OTP_SERVICE, LIVENESS] {
        health.clone().clear_service_status(service).await;
    }
    parts.running.close();
    let drained = async {
        (&mut server).await;
        parts.running.wait().await;
        // Nothing is written any more that could have a message.
        parts.outbox.close().await;
    };
    let ends = Instant::now() + settings.shutdown_timeout;
    if tokio::time::timeout_at(ends, drained).await.is_err() {
        tracing::warn!(
            requests = parts.running.len(),
            messages = parts.outbox.in_flight(),
            "[OTP] Shutdown grace period exceeded with work in flight"
        );
        // Who still waits hears so, rather than that the connection broke.
        parts.ending.cancel();
        let _ = tokio::time::timeout(SHUTDOWN_REPLY_TIMEOUT, server).await;
    }
    parts.store.close().await;
    let left = ends.saturating_duration_since(Instant::now());
    traces::stop(left.max(SPAN_FLUSH_TIMEOUT)).await;
    tracing::info!("[OTP] Stopped");
    Ok(())
}

/// All services.
fn routes(
    contract: OtpServiceServer<OtpGrpc>,
    health: HealthServer<impl Health>,
    described: bool,
) -> Result<Routes, ServerError> {
    let mut routes = Routes::new(health).add_service(contract);
    if described {
        routes = routes
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
    }
    Ok(routes.prepare())
}

/// Reflection of the contract, of the health service, and of the details that
/// errors carry, so that grpcurl shows those in words.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Health as it is at birth: the process lives, and serves nothing yet.
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

/// Lets health follow the store, for ever.
async fn report_health(health: &HealthReporter, mut availability: StoreHealth) {
    set_health(health, availability.is_available()).await;
    loop {
        let answers = availability.changed().await;
        set_health(health, answers).await;
    }
}
