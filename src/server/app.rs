//! Parts of a server except its connections, and their replacement by a reload of the
//! configuration.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use rustls::pki_types::UnixTime;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ServerError, labels, purge::purge_at_intervals, store_stats};
use crate::{
    config::{ConfigSnapshot, ServeConfig},
    engine::{BatchClient, BatchOptions, Engine},
    grpc::{AppState, OtpGrpc},
    keys::KeyRing,
    listener::{self, ConnectionConfig, MemoryBudget, ServerTls},
    metrics::{Metrics, RpcLatency, RpcOutcomeCounters},
    outbox::{Outbox, OutboxContext, RecentDeliveries},
    service::{ConversionTracker, OtpService, ReceiptIssuer},
    store::{
        self, InstrumentedStore, RecordStore, StatementMetrics, StoreError,
        health::{HealthMonitor, StoreHealth},
    },
};
use otpd_rules::{Region, TestRecipient, Timestamp};

type BoxFuture<Output> = Pin<Box<dyn Future<Output = Output>>>;

/// Valid configuration, with the keys and certificates that it names.
pub struct LoadedConfig {
    /// Configuration.
    pub config: ServeConfig,
    /// Key ring.
    pub keys: KeyRing,
    /// Certificates; none if connections are plain text.
    pub tls: Option<ServerTls>,
}

impl std::fmt::Debug for LoadedConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, keys, .. } = self;
        let mut shown = formatter.debug_struct("LoadedConfig");
        shown.field("config", config).field("keys", keys);
        shown.finish_non_exhaustive()
    }
}

/// Parts of a server.
pub(super) struct App {
    pub store: Arc<dyn RecordStore>,
    pub availability: StoreHealth,
    pub batcher: BatchClient,
    pub outbox: Outbox,
    pub calls: RpcLatency,
    pub outcomes: RpcOutcomeCounters,
    /// Memory of all connections.
    pub budget: MemoryBudget,
    /// Latest statistics of the store.
    pub store_stats: store_stats::LatestStats,
    /// State for new requests.
    pub current: watch::Receiver<Arc<AppState>>,
    pub contract: OtpGrpc,
    /// Requests in progress, and decisions in progress for clients that have disconnected.
    pub running: TaskTracker,
    /// Cancelled when the shutdown timeout of the requests in progress has passed.
    pub ending: CancellationToken,
    /// Configuration of new connections.
    pub connection_config: watch::Receiver<Arc<ConnectionConfig>>,
    /// Background tasks, which run until the server ends.
    pub background: BoxFuture<Result<(), StoreError>>,
}

/// Parts that a reload replaces. A request, a message or a connection keeps the parts that it
/// began with.
#[derive(Debug)]
pub(super) struct ReloadHandle {
    /// Snapshot of the configuration in force.
    pub written: ConfigSnapshot,
    /// Metrics, whose label values follow the configuration.
    pub metrics: Option<Arc<Metrics>>,
    deps: ServiceDeps,
    current: watch::Sender<Arc<AppState>>,
    connection_config: watch::Sender<Arc<ConnectionConfig>>,
}

/// Dependencies of the service.
#[derive(Debug)]
struct ServiceDeps {
    context: OutboxContext,
    outbox: Outbox,
    running: TaskTracker,
    conversions: ConversionTracker,
    receipts: Option<ReceiptIssuer>,
}

impl App {
    /// Creates all parts, and the background tasks. If `observed` is false, no metrics are
    /// served, and the statistics that take work to measure are left out.
    pub fn assemble(
        loaded: LoadedConfig,
        metrics: &mut Metrics,
        observed: bool,
    ) -> Result<(Self, ReloadHandle), ServerError> {
        let LoadedConfig { config, keys, tls } = loaded;
        let settings = config.settings;
        let store = store::open(&settings.database_url, &settings.store)?;
        let store = InstrumentedStore::new(store, StatementMetrics::register(metrics));
        let store: Arc<dyn RecordStore> = Arc::new(store);
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
        let recent = observed.then(RecentDeliveries::default);
        let context = OutboxContext {
            store: Arc::clone(&store),
            store_timeout: settings.store.timeout,
            batcher: batcher.clone(),
            availability: availability.clone(),
            keys: Arc::new(keys),
            callers: Arc::new(config.callers),
            delivery: Arc::new(config.delivery),
            metrics: metrics.delivery.clone(),
            recent: recent.clone(),
        };
        let outbox = Outbox::new(context.clone(), settings.delivery.clone());
        let (running, ending) = (TaskTracker::new(), CancellationToken::new());
        let (conversions, verified) = if let Some(recent) = recent {
            let (conversions, verified) = ConversionTracker::new(metrics.delivery.clone(), recent);
            (conversions, Some(verified))
        } else {
            (ConversionTracker::disabled(), None)
        };
        let deps = ServiceDeps {
            context,
            outbox: outbox.clone(),
            running: running.clone(),
            conversions,
            receipts: settings.receipts.as_ref().map(|receipts| ReceiptIssuer {
                name: receipts.issuer.clone(),
            }),
        };
        let current = deps.app_state(settings.default_region, config.test_recipients);
        let (current, current_receiver) = watch::channel(Arc::new(current));
        let (connection_config, config_receiver) = watch::channel(settings.connection_config(tls));
        let contract = OtpGrpc::new(running.clone(), ending.clone(), metrics.outcomes.clone());
        let interval = settings.store.purge_interval;
        let purge = purge_at_intervals(Arc::clone(&store), availability.clone(), interval);
        let latest = store_stats::LatestStats::default();
        let statistics = {
            let (delivery, store) = (metrics.delivery.clone(), Arc::clone(&store));
            let (availability, latest) = (availability.clone(), Arc::clone(&latest));
            async move {
                match verified {
                    Some(verified) => {
                        store_stats::run(delivery, store, availability, verified, latest).await;
                    }
                    None => std::future::pending().await,
                }
            }
        };
        let lists = listener::report_outdated(config_receiver.clone());
        let background = Box::pin(async move {
            tokio::select! {
                result = monitor.run() => result,
                () = purge => Ok(()),
                () = statistics => Ok(()),
                () = lists => Ok(()),
            }
        });
        let parts = Self {
            store,
            availability,
            batcher,
            outbox,
            calls: metrics.calls.clone(),
            outcomes: metrics.outcomes.clone(),
            budget: MemoryBudget::new(settings.connections.memory_bytes()),
            store_stats: latest,
            current: current_receiver,
            contract,
            running,
            ending,
            connection_config: config_receiver,
            background,
        };
        let reloadable = ReloadHandle {
            written: config.snapshot,
            metrics: None,
            deps,
            current,
            connection_config,
        };
        Ok((parts, reloadable))
    }
}

impl ReloadHandle {
    /// Replaces the configuration in force as a whole.
    ///
    /// # Errors
    /// The reason if it cannot be replaced while otpd runs; then nothing changes.
    pub fn replace(&mut self, loaded: LoadedConfig) -> Result<(), String> {
        let LoadedConfig { config, keys, tls } = loaded;
        let before = &self.deps.context;
        // The instants of receipt keys are compared with this machine's clock, because the store
        // may be unavailable. They are checked to warn of a mistake; receipts do not depend on it.
        let now = Duration::from_secs(UnixTime::now().as_secs());
        let now = Timestamp::from_milliseconds(0).saturating_add(now);
        let allowed = before.keys.check_rotation(&keys, now);
        allowed.map_err(|error| format!("keys: {error}"))?;
        if let Some(metrics) = &self.metrics {
            metrics.set_label_values(&labels::label_values(&config));
        }
        let context = OutboxContext {
            keys: Arc::new(keys),
            callers: Arc::new(config.callers),
            delivery: Arc::new(config.delivery.reuse_unchanged(&before.delivery)),
            ..before.clone()
        };
        let deps = &mut self.deps;
        deps.outbox = deps.outbox.with_context(context.clone());
        deps.context = context;
        let settings = &config.settings;
        let current = deps.app_state(settings.default_region, config.test_recipients);
        self.current.send_replace(Arc::new(current));
        self.connection_config
            .send_replace(settings.connection_config(tls));
        self.written = config.snapshot;
        Ok(())
    }
}

impl ServiceDeps {
    /// Returns the state for new requests.
    fn app_state(
        &self,
        default_region: Option<Region>,
        test_recipients: Vec<TestRecipient>,
    ) -> AppState {
        let context = &self.context;
        AppState {
            service: OtpService {
                engine: Engine {
                    batcher: context.batcher.clone(),
                    availability: context.availability.clone(),
                    keys: Arc::clone(&context.keys),
                    running: self.running.clone(),
                },
                test_recipients,
                outbox: self.outbox.clone(),
                conversions: self.conversions.clone(),
                receipts: self.receipts.clone(),
            },
            callers: Arc::clone(&context.callers),
            default_region,
        }
    }
}
