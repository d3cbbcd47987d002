//! What a server is made of, besides its connections, and what of that is replaced when
//! its configuration is read again.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ServerError, gauges, sweeper::sweep};
use crate::{
    config::{ConfigSnapshot, ServeConfig},
    connection::{self, ConnectionConfig, MemoryBudget, ServerTls},
    engine::{BatchClient, BatchOptions, Engine},
    grpc::{AppState, MAX_MESSAGE_BYTES, OtpGrpc, v1::otp_service_server::OtpServiceServer},
    keys::KeyRing,
    metrics::{Metrics, RpcLatency, RpcOutcomeCounters},
    outbox::{Outbox, OutboxContext},
    service::{ConversionTracker, OtpService},
    store::{
        RecordStoreHandle, StatementMetrics, StoreError,
        health::{HealthMonitor, StoreHealth},
    },
};
use otpd_rules::{Region, TestRecipient};

type BoxFuture<Output> = Pin<Box<dyn Future<Output = Output>>>;

/// A configuration with all that it names, read and found good.
pub struct LoadedConfig {
    /// The configuration.
    pub config: ServeConfig,
    /// Its key ring.
    pub keys: KeyRing,
    /// Its certificates; none where connections are plain.
    pub tls: Option<ServerTls>,
}

impl std::fmt::Debug for LoadedConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, keys, .. } = self;
        let mut shown = formatter.debug_struct("Loaded");
        shown.field("config", config).field("keys", keys);
        shown.finish_non_exhaustive()
    }
}

/// What a server is made of.
pub(super) struct App {
    pub store: Arc<RecordStoreHandle>,
    pub availability: StoreHealth,
    pub batcher: BatchClient,
    pub outbox: Outbox,
    pub calls: RpcLatency,
    pub answers: RpcOutcomeCounters,
    /// Memory of all connections.
    pub budget: MemoryBudget,
    /// How much there is in the store.
    pub census: gauges::LatestStats,
    /// What requests are answered with.
    pub current: watch::Receiver<Arc<AppState>>,
    pub contract: OtpServiceServer<OtpGrpc>,
    /// The requests that run, and what is still decided for callers that have gone.
    pub running: TaskTracker,
    /// Cancelled when those that still run are out of time.
    pub ending: CancellationToken,
    /// Under which terms connections are taken.
    pub terms: watch::Receiver<Arc<ConnectionConfig>>,
    /// What goes on until the server ends.
    pub background: BoxFuture<Result<(), StoreError>>,
}

/// What is replaced while the server runs. A request and a message keep to their end
/// what they began with, and a connection too.
#[derive(Debug)]
pub(super) struct ReloadHandle {
    /// What the configuration in force says.
    pub written: ConfigSnapshot,
    /// What is to know the names that the configuration has.
    pub metrics: Option<Arc<Metrics>>,
    use_cases: ServiceDeps,
    current: watch::Sender<Arc<AppState>>,
    terms: watch::Sender<Arc<ConnectionConfig>>,
}

/// What the use cases work with.
#[derive(Debug)]
struct ServiceDeps {
    tools: OutboxContext,
    outbox: Outbox,
    running: TaskTracker,
    conversions: ConversionTracker,
}

impl App {
    /// Makes everything, and what goes on in the background until the server ends. Where
    /// nobody can see the metrics, what takes work to measure is left out.
    pub fn assemble(
        loaded: LoadedConfig,
        metrics: &mut Metrics,
        observed: bool,
    ) -> Result<(Self, ReloadHandle), ServerError> {
        let LoadedConfig { config, keys, tls } = loaded;
        let settings = config.settings;
        let store = RecordStoreHandle::open(&settings.database_url, &settings.store)?;
        let store = Arc::new(store.with_metrics(StatementMetrics::register(metrics)));
        let (monitor, availability) = HealthMonitor::new(
            Arc::clone(&store),
            settings.store.clone(),
            keys.fingerprint(),
        );
        let batcher = BatchClient::new(
            Arc::clone(&store),
            availability.clone(),
            BatchOptions::from(&settings.store),
            metrics.batches.clone(),
        );
        let tools = OutboxContext {
            store: Arc::clone(&store),
            store_timeout: settings.store.timeout,
            batcher: batcher.clone(),
            availability: availability.clone(),
            keys: Arc::new(keys),
            callers: Arc::new(config.callers),
            delivery: Arc::new(config.delivery),
            metrics: metrics.delivery.clone(),
        };
        let outbox = Outbox::new(tools.clone(), settings.delivery.clone());
        let (running, ending) = (TaskTracker::new(), CancellationToken::new());
        let (conversions, verified) = if observed {
            let (conversions, verified) = ConversionTracker::new(metrics.delivery.clone());
            (conversions, Some(verified))
        } else {
            (ConversionTracker::disabled(), None)
        };
        let use_cases = ServiceDeps {
            tools,
            outbox: outbox.clone(),
            running: running.clone(),
            conversions,
        };
        let current = use_cases.current(settings.default_region, config.test_recipients);
        let (current, currently) = watch::channel(Arc::new(current));
        let (terms, in_force) = watch::channel(Arc::new(ConnectionConfig {
            tls,
            bounds: settings.connections.clone(),
        }));
        let contract = OtpServiceServer::new(OtpGrpc::new(
            running.clone(),
            ending.clone(),
            metrics.answers.clone(),
        ))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let interval = settings.store.sweep_interval;
        let sweeper = sweep(Arc::clone(&store), availability.clone(), interval);
        let census = gauges::LatestStats::default();
        let (delivery, looked_at) = (metrics.delivery.clone(), Arc::clone(&store));
        let (asked, newest) = (availability.clone(), Arc::clone(&census));
        let looking = async move {
            match verified {
                Some(verified) => gauges::run(delivery, looked_at, asked, verified, newest).await,
                None => std::future::pending().await,
            }
        };
        let lists = connection::report_outdated(in_force.clone());
        let background = Box::pin(async move {
            tokio::select! {
                result = monitor.run() => result,
                () = sweeper => Ok(()),
                () = looking => Ok(()),
                () = lists => Ok(()),
            }
        });
        let parts = Self {
            store,
            availability,
            batcher,
            outbox,
            calls: metrics.calls.clone(),
            answers: metrics.answers.clone(),
            budget: MemoryBudget::new(settings.connections.memory_bytes()),
            census,
            current: currently,
            contract,
            running,
            ending,
            terms: in_force,
            background,
        };
        let reloadable = ReloadHandle {
            written: config.snapshot,
            metrics: None,
            use_cases,
            current,
            terms,
        };
        Ok((parts, reloadable))
    }
}

impl ReloadHandle {
    /// Puts another configuration in force, all of it at once.
    ///
    /// # Errors
    /// Why it cannot be while otpd runs; then nothing changes.
    pub fn replace(&mut self, loaded: LoadedConfig) -> Result<(), String> {
        let LoadedConfig { config, keys, tls } = loaded;
        let before = &self.use_cases.tools;
        let allowed = before.keys.check_rotation(&keys);
        allowed.map_err(|error| format!("keys: {error}"))?;
        if let Some(metrics) = &self.metrics {
            metrics.set_label_values(&gauges::label_values(&config));
        }
        let tools = OutboxContext {
            keys: Arc::new(keys),
            callers: Arc::new(config.callers),
            delivery: Arc::new(config.delivery.reuse_unchanged(&before.delivery)),
            ..before.clone()
        };
        let use_cases = &mut self.use_cases;
        use_cases.outbox = use_cases.outbox.with_context(tools.clone());
        use_cases.tools = tools;
        let settings = &config.settings;
        let current = use_cases.current(settings.default_region, config.test_recipients);
        self.current.send_replace(Arc::new(current));
        self.terms.send_replace(Arc::new(ConnectionConfig {
            tls,
            bounds: settings.connections.clone(),
        }));
        self.written = config.snapshot;
        Ok(())
    }
}

impl ServiceDeps {
    /// What requests are answered with from now on.
    fn current(
        &self,
        default_region: Option<Region>,
        test_recipients: Vec<TestRecipient>,
    ) -> AppState {
        let tools = &self.tools;
        AppState {
            service: OtpService {
                engine: Engine {
                    batcher: tools.batcher.clone(),
                    availability: tools.availability.clone(),
                    keys: Arc::clone(&tools.keys),
                    running: self.running.clone(),
                },
                test_recipients,
                outbox: self.outbox.clone(),
                conversions: self.conversions.clone(),
            },
            callers: Arc::clone(&tools.callers),
            default_region,
        }
    }
}
