//! What a server is made of, besides its connections, and what of that is replaced when
//! its configuration is read again.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ServerError, sweeping::sweep};
use crate::{
    config::{Config, Settings, Written},
    connection::Terms,
    domain::TestRecipient,
    grpc::{Current, MAX_MESSAGE_BYTES, OtpGrpc, v1::otp_service_server::OtpServiceServer},
    keys::KeyRing,
    outbox::{Outbox, Tools},
    service::OtpService,
    store::{
        Store, StoreError,
        availability::{Availability, Monitor},
        batcher::Batcher,
    },
};

type BoxFuture<Output> = Pin<Box<dyn Future<Output = Output>>>;

/// A configuration with all that it names, read and found good.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Its key ring.
    pub keys: KeyRing,
    /// Its certificates; none where connections are plain.
    pub acceptor: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, keys, .. } = self;
        let mut shown = formatter.debug_struct("Loaded");
        shown.field("config", config).field("keys", keys);
        shown.finish_non_exhaustive()
    }
}

/// What a server is made of.
pub(super) struct Parts {
    pub store: Arc<Store>,
    pub availability: Availability,
    pub outbox: Outbox,
    pub contract: OtpServiceServer<OtpGrpc>,
    /// The requests that run, and what is still decided for callers that have gone.
    pub running: TaskTracker,
    /// Cancelled when those that still run are out of time.
    pub ending: CancellationToken,
    /// Under which terms connections are taken.
    pub terms: watch::Receiver<Arc<Terms>>,
    /// What goes on until the server ends.
    pub background: BoxFuture<Result<(), StoreError>>,
}

/// What is replaced while the server runs. A request and a message keep to their end
/// what they began with, and a connection too.
#[derive(Debug)]
pub(super) struct Reloadable {
    /// What the configuration in force says.
    pub written: Written,
    tools: Tools,
    outbox: Outbox,
    running: TaskTracker,
    current: watch::Sender<Arc<Current>>,
    terms: watch::Sender<Arc<Terms>>,
}

impl Parts {
    pub fn assemble(loaded: Loaded) -> Result<(Self, Reloadable), ServerError> {
        let Loaded {
            config,
            keys,
            acceptor,
        } = loaded;
        let settings = config.settings;
        let store = Arc::new(Store::open(&settings.database_url, &settings.store)?);
        let (monitor, availability) = Monitor::new(
            Arc::clone(&store),
            settings.store.clone(),
            keys.fingerprint(),
        );
        let batcher = Batcher::new(
            Arc::clone(&store),
            availability.clone(),
            settings.store.batches(),
        );
        let tools = Tools {
            store: Arc::clone(&store),
            store_timeout: settings.store.timeout,
            batcher,
            availability: availability.clone(),
            keys: Arc::new(keys),
            callers: Arc::new(config.callers),
            delivery: Arc::new(config.delivery),
        };
        let outbox = Outbox::new(tools.clone(), settings.delivery.clone());
        let (running, ending) = (TaskTracker::new(), CancellationToken::new());
        let current = current(&tools, &outbox, &running, &settings, config.test_recipients);
        let (current, currently) = watch::channel(Arc::new(current));
        let (terms, in_force) = watch::channel(Arc::new(Terms {
            acceptor,
            bounds: settings.connections.clone(),
        }));
        let contract =
            OtpServiceServer::new(OtpGrpc::new(currently, running.clone(), ending.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let interval = settings.store.sweep_interval;
        let sweeper = sweep(Arc::clone(&store), availability.clone(), interval);
        let background = Box::pin(async move {
            tokio::select! {
                result = monitor.run() => result,
                () = sweeper => Ok(()),
            }
        });
        let parts = Self {
            store,
            availability,
            outbox: outbox.clone(),
            contract,
            running: running.clone(),
            ending,
            terms: in_force,
            background,
        };
        let reloadable = Reloadable {
            written: config.written,
            tools,
            outbox,
            running,
            current,
            terms,
        };
        Ok((parts, reloadable))
    }
}

impl Reloadable {
    /// Puts another configuration in force, all of it at once.
    ///
    /// # Errors
    /// Why it cannot be while otpd runs; then nothing changes.
    pub fn replace(&mut self, loaded: Loaded) -> Result<(), String> {
        let Loaded {
            config,
            keys,
            acceptor,
        } = loaded;
        let allowed = self.tools.keys.allows(&keys);
        allowed.map_err(|error| format!("keys: {error}"))?;
        let delivery = config.delivery.keeping(&self.tools.delivery);
        self.tools = Tools {
            keys: Arc::new(keys),
            callers: Arc::new(config.callers),
            delivery: Arc::new(delivery),
            ..self.tools.clone()
        };
        self.outbox = self.outbox.with(self.tools.clone());
        let settings = &config.settings;
        let current = current(
            &self.tools,
            &self.outbox,
            &self.running,
            settings,
            config.test_recipients,
        );
        self.current.send_replace(Arc::new(current));
        self.terms.send_replace(Arc::new(Terms {
            acceptor,
            bounds: settings.connections.clone(),
        }));
        self.written = config.written;
        Ok(())
    }
}

/// What requests are answered with from now on.
fn current(
    tools: &Tools,
    outbox: &Outbox,
    running: &TaskTracker,
    settings: &Settings,
    test_recipients: Vec<TestRecipient>,
) -> Current {
    Current {
        service: OtpService {
            store: Arc::clone(&tools.store),
            batcher: tools.batcher.clone(),
            availability: tools.availability.clone(),
            keys: Arc::clone(&tools.keys),
            test_recipients,
            outbox: outbox.clone(),
            store_timeout: tools.store_timeout,
            running: running.clone(),
        },
        callers: Arc::clone(&tools.callers),
        default_region: settings.default_region,
    }
}
