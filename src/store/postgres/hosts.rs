//! Hosts that the URL names, and the connections to the active one.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use super::{
    super::{StoreError, StoreOptions, with_timeout},
    connect_tls::{DatabaseTls, handshake_problem},
    pooled_connection::PooledConnection,
    pooling::Pooling,
    session,
    session_settings::SessionSettings,
    url::{self, ParsedUrl},
};
use otpd_base::log_targets::STATE_CHANGE;

/// Maximum number of retries if the server refuses a new connection while the pool has others.
const MAX_ACQUIRE_RETRIES: u32 = 20;

/// Time until such a retry. Statements take milliseconds, so one of the others may be free then.
const ACQUIRE_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Hosts of one database, of which one at a time accepts writes.
#[derive(Debug)]
pub(super) struct HostPool {
    hosts: Vec<PgConnectOptions>,
    tls: DatabaseTls,
    pool_options: PgPoolOptions,
    settings: SessionSettings,
    timeout: Duration,
    active: RwLock<ActiveHost>,
}

#[derive(Debug)]
struct ActiveHost {
    /// Position of the host in the URL.
    index: usize,
    /// True if TLS with it failed, and `sslmode=prefer` permits to go on without.
    is_plain: bool,
    pooling: Pooling,
    /// Separate pool, so that no connection to an earlier host can return to it.
    pool: PgPool,
}

impl HostPool {
    /// Returns the hosts that `url` names. The first one is active until another one is found to
    /// accept writes.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let variable = |name: &str| std::env::var(name).ok();
        let ParsedUrl { hosts, tls } = url::parse(url, variable)?;
        let hosts = hosts
            .into_iter()
            // otpd stores no fractions, and poolers refuse parameters that they do not know.
            .map(|options| options.extra_float_digits(None))
            .collect::<Vec<_>>();
        let pool_options = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.timeout)
            // A ping before each use would double the round trips of a load. A dead connection
            // is noticed by its statement, and a load is tried again.
            .test_before_acquire(false);
        let settings = SessionSettings::new(options.timeout);
        let pooling = Pooling::default();
        let first = open_pool(&pool_options, hosts[0].clone(), pooling, &settings);
        Ok(Self {
            hosts,
            tls,
            pool_options,
            settings,
            timeout: options.timeout,
            active: RwLock::new(ActiveHost {
                index: 0,
                is_plain: false,
                pooling,
                pool: first,
            }),
        })
    }

    /// Returns the connections to the active host.
    pub fn pool(&self) -> PgPool {
        self.active().1
    }

    fn active(&self) -> (Pooling, PgPool) {
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        (active.pooling, active.pool.clone())
    }

    /// Returns the way in which sessions are assigned, and their settings.
    pub fn sessions(&self) -> (Pooling, &SessionSettings) {
        (self.active().0, &self.settings)
    }

    /// Acquires a connection from the pool. If the server refuses a new one, such as after a change
    /// of the password, waits for one that the pool has.
    pub async fn acquire(&self) -> Result<PooledConnection, sqlx::Error> {
        let (pooling, pool) = self.active();
        let mut retries = 0;
        let connection = loop {
            match pool.acquire().await {
                Ok(connection) => break connection,
                Err(sqlx::Error::Database(_))
                    if pool.size() > 0 && retries < MAX_ACQUIRE_RETRIES =>
                {
                    retries += 1;
                    tokio::time::sleep(ACQUIRE_RETRY_DELAY).await;
                }
                Err(error) => return Err(error),
            }
        };
        PooledConnection::begin(connection, pooling, &self.settings, self.timeout).await
    }

    /// Opens a connection like [`connect`](Self::connect) does, prepared as those of the pool are.
    /// A check on it therefore fails if the statements of requests fail.
    pub async fn connect_prepared(&self) -> Result<PgConnection, StoreError> {
        let mut connection = self.connect().await?;
        let (pooling, settings) = self.sessions();
        let prepared = pooling.prepare(&mut connection, settings);
        with_timeout(self.timeout, async { Ok(prepared.await?) }).await?;
        Ok(connection)
    }

    /// Detects a pooler by two connections of [`connect`](Self::connect), and uses the sessions as
    /// it permits.
    pub async fn detect_pooling(
        &self,
        first: &mut PgConnection,
        second: &mut PgConnection,
    ) -> Result<(), StoreError> {
        let detected = Pooling::detect(first, second);
        // It takes many round trips, to a server that has just answered.
        let pooling = with_timeout(self.timeout * 4, detected).await?;
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        if active.pooling != pooling {
            pooling.log(&self.settings);
            self.replace_pool(&mut active, pooling);
        }
        Ok(())
    }

    /// Opens a connection outside of the pool to the host that accepts writes, and makes that host
    /// the active one. All hosts are tried at once, so that one that hangs costs no more than the
    /// timeout. Several may accept writes if a host comes back that had been replaced; then all
    /// replicas that reach them choose the same one.
    pub async fn connect(&self) -> Result<PgConnection, StoreError> {
        let attempts = self.hosts.iter().map(|options| {
            // Boxed here, because the future of a connection is large.
            with_timeout(self.timeout, Box::pin(self.connect_primary(options)))
        });
        let mut chosen: Option<(usize, PrimaryConnection)> = None;
        let mut causes = Vec::new();
        for (index, result) in join_all(attempts).await.into_iter().enumerate() {
            match result {
                Ok(primary) => {
                    let best = chosen.as_ref().map(|(_, best)| best.timeline);
                    if best.is_none_or(|best| best < primary.timeline) {
                        chosen = Some((index, primary));
                    }
                }
                Err(error) => causes.push((index, error)),
            }
        }
        let Some((index, primary)) = chosen else {
            return Err(self.no_primary_error(causes));
        };
        self.switch_to(index, primary.tls_problem);
        Ok(primary.connection)
    }

    async fn connect_primary(
        &self,
        options: &PgConnectOptions,
    ) -> Result<PrimaryConnection, StoreError> {
        let options = self.sessions().0.connect_options(options.clone());
        let (mut connection, tls_problem) = self.open_connection(options).await?;
        session::ensure_writable(&mut connection).await?;
        let timeline = match self.hosts[..] {
            // A single host needs no comparison.
            [_] => 0,
            _ => session::timeline(&mut connection).await,
        };
        Ok(PrimaryConnection {
            connection,
            timeline,
            tls_problem,
        })
    }

    /// Opens a connection. If TLS fails, `sslmode=prefer` goes on without, as in libpq; the cause is
    /// returned as well.
    async fn open_connection(
        &self,
        options: PgConnectOptions,
    ) -> Result<(PgConnection, Option<String>), StoreError> {
        let error = match PgConnection::connect_with(&options).await {
            Ok(connection) => return Ok((connection, None)),
            Err(error) => error,
        };
        match handshake_problem(&error) {
            Some(problem) if matches!(options.get_ssl_mode(), PgSslMode::Prefer) => {
                let options = options.ssl_mode(PgSslMode::Disable);
                let connection = PgConnection::connect_with(&options).await?;
                Ok((connection, Some(problem)))
            }
            Some(problem) => Err(StoreError::Unavailable(problem)),
            None => Err(self.explain(error)),
        }
    }

    /// Returns the cause of a failed connection. sqlx does not name a file that it cannot read.
    fn explain(&self, error: sqlx::Error) -> StoreError {
        match self.tls.unreadable() {
            Some(cause) if matches!(error, sqlx::Error::Io(_)) => StoreError::Unavailable(cause),
            _ => error.into(),
        }
    }

    fn switch_to(&self, index: usize, tls_problem: Option<String>) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        let is_plain = tls_problem.is_some();
        if active.index == index && active.is_plain == is_plain {
            return;
        }
        if active.index != index {
            tracing::info!(
                server = self.name(index),
                "[OTP] Switched to another database host"
            );
        }
        if let Some(cause) = tls_problem {
            tracing::warn!(
                target: STATE_CHANGE,
                %cause,
                "[OTP] Connections to the database are not encrypted"
            );
        }
        active.index = index;
        active.is_plain = is_plain;
        let pooling = active.pooling;
        self.replace_pool(&mut active, pooling);
    }

    fn replace_pool(&self, active: &mut ActiveHost, pooling: Pooling) {
        let mut host = self.hosts[active.index].clone();
        if active.is_plain {
            host = host.ssl_mode(PgSslMode::Disable);
        }
        active.pooling = pooling;
        let new = open_pool(&self.pool_options, host, pooling, &self.settings);
        let old = std::mem::replace(&mut active.pool, new);
        // Closing waits for the statements that still run there, so it is not awaited.
        tokio::spawn(async move { old.close().await });
    }

    /// Returns the name of a host in the log.
    fn name(&self, index: usize) -> String {
        let options = &self.hosts[index];
        format!("{}:{}", options.get_host(), options.get_port())
    }

    /// Returns the error of a database without a host that accepts writes.
    fn no_primary_error(&self, mut causes: Vec<(usize, StoreError)>) -> StoreError {
        if let [_] = self.hosts[..]
            && let Some((_, cause)) = causes.pop()
        {
            return cause;
        }
        let causes: Vec<String> = causes
            .into_iter()
            .map(|(index, cause)| format!("{}: {cause}", self.name(index)))
            .collect();
        StoreError::Unavailable(format!("no server accepts writes ({})", causes.join("; ")))
    }
}

/// Returns a pool of connections to `host`. They are opened on demand.
fn open_pool(
    options: &PgPoolOptions,
    host: PgConnectOptions,
    pooling: Pooling,
    settings: &SessionSettings,
) -> PgPool {
    let settings = settings.clone();
    options
        .clone()
        .after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(async move { pooling.prepare(connection, &settings).await })
        })
        .connect_lazy_with(pooling.connect_options(host))
}

/// Connection to a host that accepts writes.
struct PrimaryConnection {
    connection: PgConnection,
    timeline: i64,
    /// Reason why it is not encrypted, if TLS was tried.
    tls_problem: Option<String>,
}
