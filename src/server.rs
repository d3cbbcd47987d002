//! The server: everything put together, from the first line of the log to the last.

mod observe;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::transport::Server;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};

use crate::{
    config::Config,
    connection::{self, TlsError, TlsSettings},
    grpc::{
        MAX_MESSAGE_BYTES, MeasureLayer, OtpGrpc, OversizeLayer,
        v1::{self, otp_service_server::OtpServiceServer},
    },
    keys::KeyRing,
    metrics::{Calls, Metrics},
    operations,
    outbox::{Outbox, Tools},
    service::{Conversions, OtpService},
    store::{
        RecordStore as _, Store, StoreError,
        availability::{Availability, Monitor},
        batcher::Batcher,
    },
    traces,
};

/// The full name of the service, as health checks know it.
const OTP_SERVICE: &str = "otp.v1.OtpService";
/// What health checks ask for who only want to know that the process lives.
const LIVENESS: &str = "liveness";
/// How many records one sweep removes at most, before it looks at the clock again.
const SWEEP_BATCH: u32 = 1_000;
/// How long the last spans may take to the collector, even after the grace.
const LAST_SPANS: Duration = Duration::from_millis(500);
/// How often idle connections are asked whether anybody is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

type BoxFuture<Output> = Pin<Box<dyn Future<Output = Output>>>;

/// Why a server ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store must not be used with this configuration.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS cannot be had as configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The listener or a connection failed for good.
    #[error("serving failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The reflection services could not be made.
    #[error("reflection failed: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves on `listener` until `shutdown` completes, then finishes what runs; and tells
/// what is measured on `operations`, from the first moment to the last.
///
/// # Errors
/// What makes serving impossible. A store that does not answer does not: requests
/// are refused until it does.
pub async fn run(
    listener: TcpListener,
    operations: Option<TcpListener>,
    config: Config,
    keys: KeyRing,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServerError> {
    let settings = config.settings.clone();
    let acceptor = settings
        .tls
        .as_ref()
        .map(TlsSettings::acceptor)
        .transpose()?;
    let incoming = connection::incoming(listener, acceptor);
    let mut metrics = Metrics::new(&observe::known(&config));
    let (parts, background) = Parts::assemble(config, keys, &metrics, operations.is_some())?;
    let _operations = operations.map(|listener| {
        observe::watch(&mut metrics, &parts);
        let serving = operations::serve(listener, Arc::new(metrics));
        AbortOnDropHandle::new(tokio::spawn(serving))
    });
    let (health, health_service) = new_health().await;

    let described = settings.reflection;
    let (end_serving, mut serving_ends) = watch::channel(false);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(MeasureLayer(parts.calls.clone()))
        .layer(OversizeLayer)
        .add_service(health_service)
        .add_optional_service(described.then(|| reflection().build_v1()).transpose()?)
        .add_optional_service(
            described
                .then(|| reflection().build_v1alpha())
                .transpose()?,
        )
        .add_service(parts.contract)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that this function ended, and the server with it.
            let _ = serving_ends.wait_for(|&ends| ends).await;
        });
    let mut server = Box::pin(server);

    // The server alone outlives this: a probe or a sweep that the background is in the
    // middle of would keep its connection, and the store wait for that when it closes.
    tokio::select! {
        result = &mut server => return Ok(result?),
        result = background => return Ok(result?),
        () = report_health(&health, parts.availability) => {}
        () = shutdown => {}
    }

    tracing::info!("[OTP] Shutting down");
    set_health(&health, false).await;
    // Load balancers notice before connections are refused.
    tokio::select! {
        result = &mut server => return Ok(result?),
        () = tokio::time::sleep(settings.shutdown_wait) => {}
    }
    end_serving.send_replace(true);
    // A watch of health has no end of its own, and its connection would stay open
    // until the grace is over.
    for service in ["", OTP_SERVICE, LIVENESS] {
        health.clone().clear_service_status(service).await;
    }
    parts.running.close();
    let drained = async {
        server.await?;
        parts.running.wait().await;
        // Nothing is written any more that could have a message.
        parts.outbox.close().await;
        Ok::<(), ServerError>(())
    };
    let ends = Instant::now() + settings.shutdown_grace;
    if let Ok(result) = tokio::time::timeout_at(ends, drained).await {
        result?;
    } else {
        tracing::warn!(
            requests = parts.running.len(),
            messages = parts.outbox.in_hand(),
            "[OTP] Some requests, connections or messages did not end in time"
        );
    }
    parts.store.close().await;
    let left = ends.saturating_duration_since(Instant::now());
    traces::stop(left.max(LAST_SPANS)).await;
    tracing::info!("[OTP] Stopped");
    Ok(())
}

/// What a server is made of, besides its connections.
struct Parts {
    store: Arc<Store>,
    availability: Availability,
    batcher: Batcher,
    outbox: Outbox,
    calls: Calls,
    census: observe::Newest,
    contract: OtpServiceServer<OtpGrpc>,
    /// The requests that run.
    running: TaskTracker,
}

impl Parts {
    /// Makes everything, and what goes on in the background until the server ends. Where
    /// nobody can see the metrics, what takes work to measure is left out.
    fn assemble(
        config: Config,
        keys: KeyRing,
        metrics: &Metrics,
        observed: bool,
    ) -> Result<(Self, BoxFuture<Result<(), StoreError>>), ServerError> {
        let Config {
            settings,
            callers,
            test_recipients,
            delivery,
        } = config;
        let store = Store::open(&settings.database_url, &settings.store)?;
        let store = Arc::new(store.counted(metrics.statements.clone()));
        let callers = Arc::new(callers);
        let (monitor, availability) = Monitor::new(
            Arc::clone(&store),
            settings.store.clone(),
            keys.fingerprint(),
        );
        let keys = Arc::new(keys);
        let batcher = Batcher::new(
            Arc::clone(&store),
            availability.clone(),
            settings.store.batches(),
            metrics.batches.clone(),
        );
        let tools = Tools {
            store: Arc::clone(&store),
            store_timeout: settings.store.timeout,
            batcher: batcher.clone(),
            availability: availability.clone(),
            keys: Arc::clone(&keys),
            callers: Arc::clone(&callers),
            delivery: Arc::new(delivery),
            metrics: metrics.delivery.clone(),
        };
        let outbox = Outbox::new(tools, settings.delivery);
        let running = TaskTracker::new();
        let (conversions, verified) = if observed {
            let (conversions, verified) = Conversions::new(metrics.delivery.clone());
            (conversions, Some(verified))
        } else {
            (Conversions::unobserved(), None)
        };
        let service = OtpService {
            store: Arc::clone(&store),
            batcher: batcher.clone(),
            availability: availability.clone(),
            keys,
            test_recipients,
            outbox: outbox.clone(),
            store_timeout: settings.store.timeout,
            conversions,
        };
        let contract = OtpServiceServer::new(OtpGrpc::new(
            service,
            callers,
            settings.default_region,
            running.clone(),
            metrics.answers.clone(),
        ))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let sweeper = sweep(
            Arc::clone(&store),
            availability.clone(),
            settings.store.sweep_interval,
        );
        let census = observe::Newest::default();
        let (delivery, looked_at) = (metrics.delivery.clone(), Arc::clone(&store));
        let (asked, newest) = (availability.clone(), Arc::clone(&census));
        let looking = async move {
            match verified {
                Some(verified) => observe::run(delivery, looked_at, asked, verified, newest).await,
                None => std::future::pending().await,
            }
        };
        let background = Box::pin(async move {
            tokio::select! {
                result = monitor.run() => result,
                () = sweeper => Ok(()),
                () = looking => Ok(()),
            }
        });
        let parts = Self {
            store,
            availability,
            batcher,
            outbox,
            calls: metrics.calls.clone(),
            census,
            contract,
            running,
        };
        Ok((parts, background))
    }
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
async fn report_health(health: &HealthReporter, mut availability: Availability) {
    set_health(health, availability.answers()).await;
    loop {
        let answers = availability.changed().await;
        set_health(health, answers).await;
    }
}

/// Removes what no answer depends on, for ever.
async fn sweep(store: Arc<Store>, availability: Availability, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if !availability.answers() {
            continue;
        }
        match sweep_once(&store).await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "[OTP] Swept"),
            Err(error) => tracing::debug!(%error, "[OTP] Sweep gave up until its next turn"),
        }
    }
}

/// Removes all records that no answer depends on, and returns how many.
async fn sweep_once(store: &Store) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        let now = store.load(&[], &[]).await?.clock.now();
        let batch = store.sweep(now, SWEEP_BATCH).await?.all();
        removed += batch;
        if batch < u64::from(SWEEP_BATCH) {
            return Ok(removed);
        }
    }
}
