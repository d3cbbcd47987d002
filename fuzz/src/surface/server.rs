//! Server under test. It runs in this process, so that its coverage is measured.

use std::{cell::Cell, future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use otpd::{
    config::{EnvVars, ServeConfig},
    keys::KeyRing,
    server::{self, ConfigReload, Listeners, LoadedConfig},
    shutdown::ReloadSignals,
    telemetry::LogLevel,
};
use otpd_base::files::FileSnapshot;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    task::LocalSet,
};
use tonic::transport::{Channel, Endpoint};

use super::client::{CODE, RECIPIENT, wait};
use crate::{random::Draws, scratch::scratch};

/// Maximum time for one input. No request here waits for anything.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Server with a store of its own.
pub struct Server {
    pub address: SocketAddr,
    /// Connection that lasts for all inputs.
    pub channel: Channel,
    runtime: Runtime,
    tasks: LocalSet,
    inputs: Cell<u64>,
}

impl Server {
    /// Starts a server; it accepts requests when this returns.
    pub fn start() -> Self {
        let loaded = loaded(&scratch());
        // One thread for the server and its clients, so that equal inputs have equal
        // effects.
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be created");
        let tasks = LocalSet::new();
        let (address, channel) = tasks.block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("there is a free port");
            let address = listener.local_addr().expect("the listener is bound");
            let reload = ConfigReload {
                files: FileSnapshot::default(),
                interval: Duration::ZERO,
                log_level: LogLevel::default(),
                hangups: ReloadSignals::catch().expect("signals can be caught"),
                loader: Arc::new(|_| unreachable!("the configuration is never reloaded")),
            };
            tokio::task::spawn_local(async move {
                let listeners = Listeners {
                    calls: listener,
                    operations: None,
                    receipts: None,
                };
                let ended = server::run(listeners, loaded, reload, std::future::pending());
                panic!("the server ended: {:?}", ended.await);
            });
            let endpoint = Endpoint::from_shared(format!("http://{address}"));
            (address, endpoint.expect("the URL is valid").connect_lazy())
        });
        let server = Self {
            address,
            channel,
            runtime,
            tasks,
            inputs: Cell::new(0),
        };
        server.run(wait(server.channel.clone()));
        server
    }

    /// Runs `work` together with the server.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let done = self.tasks.block_on(&self.runtime, async {
            tokio::time::timeout(TIMEOUT, work).await
        });
        done.expect("the server responds, and closes finished connections")
    }

    /// Returns the number of earlier inputs.
    pub fn count(&self) -> u64 {
        self.inputs.replace(self.inputs.get() + 1)
    }
}

fn loaded(directory: &Path) -> LoadedConfig {
    let keys = KeyRing::generate(&mut Draws(1));
    let store = directory.join("otpd.db");
    let file = directory.join("otpd.toml");
    let text = format!(
        r#"
        default_region = "RU"
        test_recipients = [{{ recipient = "{RECIPIENT}", code = "{CODE}", expires = "2099-01-31" }}]

        [policy]
        resend_after = "0s"
        sends_per_hour = 0
        sends_per_day = 0
        ip_sends_per_hour = 0
        ip_failures_per_hour = 0
        ip_site_sends_per_hour = 0
        ip_site_failures_per_hour = 0
        "#
    );
    std::fs::write(&file, text).expect("temporary files can be written");
    let variables = [
        ("DATABASE_URL", format!("sqlite://{}", store.display())),
        ("OTPD_KEYS", keys.to_string()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let config = ServeConfig::load(Some(&file), &EnvVars::new(variables));
    LoadedConfig {
        config: config.expect("the configuration is valid"),
        keys: KeyRing::parse(&keys).expect("a new key ring is valid"),
        tls: None,
    }
}
