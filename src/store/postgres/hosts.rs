//! The servers that the URL names, and the connections to the one that is in use.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    super::{StoreError, StoreOptions, with_timeout},
    connect_tls::DatabaseTls,
    session,
    url::{self, ParsedUrl},
};

/// The servers of one database, of which one at a time takes writes.
#[derive(Debug)]
pub(super) struct HostPool {
    all: Vec<PgConnectOptions>,
    tls: DatabaseTls,
    pool_options: PgPoolOptions,
    timeout: Duration,
    in_use: RwLock<ActiveHost>,
}

#[derive(Debug)]
struct ActiveHost {
    /// Its place in the URL.
    server: usize,
    /// A pool of its own: no connection to a server that was in use before can get
    /// back into it.
    pool: PgPool,
}

impl HostPool {
    /// Those that `url` names; the first is in use until another one is found to be the
    /// one that takes writes.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let variable = |name: &str| std::env::var(name).ok();
        let ParsedUrl { servers, tls } = url::parse(url, variable)?;
        let all = servers
            .into_iter()
            // Nothing here is a fraction, and poolers refuse what they do not know.
            .map(|options| options.extra_float_digits(None))
            .collect::<Vec<_>>();
        let pool_options = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.timeout)
            // A ping before each use would double the round trips of a load; a dead
            // connection is noticed by its statement, and a load is tried again.
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(session::prepare(connection)));
        let first = pool_options.clone().connect_lazy_with(all[0].clone());
        Ok(Self {
            all,
            tls,
            pool_options,
            timeout: options.timeout,
            in_use: RwLock::new(ActiveHost {
                server: 0,
                pool: first,
            }),
        })
    }

    /// Connections to the server in use.
    pub fn pool(&self) -> PgPool {
        let in_use = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        in_use.pool.clone()
    }

    /// A connection outside of the pool to the server that takes writes, which is in use
    /// from now on. All are asked at once, so that one that hangs costs no more than its
    /// own time; so where several take writes, because a server came back that had been
    /// replaced, all replicas that reach them choose the same one.
    pub async fn connect(&self) -> Result<PgConnection, StoreError> {
        let asked = self.all.iter().map(|options| {
            // In a box at once: what connects is large.
            with_timeout(self.timeout, Box::pin(self.ask(options)))
        });
        let mut chosen: Option<(usize, PrimaryConnection)> = None;
        let mut causes = Vec::new();
        for (server, answer) in join_all(asked).await.into_iter().enumerate() {
            match answer {
                Ok(writable) => {
                    let best = chosen.as_ref().map(|(_, best)| best.timeline);
                    if best.is_none_or(|best| best < writable.timeline) {
                        chosen = Some((server, writable));
                    }
                }
                Err(error) => causes.push((server, error)),
            }
        }
        let Some((server, writable)) = chosen else {
            return Err(self.no_primary_error(causes));
        };
        self.switch_to(server);
        Ok(writable.connection)
    }

    async fn ask(&self, options: &PgConnectOptions) -> Result<PrimaryConnection, StoreError> {
        let mut connection = PgConnection::connect_with(options)
            .await
            .map_err(|error| self.explain(error))?;
        session::ensure_writable(&mut connection).await?;
        let timeline = match self.all[..] {
            // There is no choice.
            [_] => 0,
            _ => session::timeline(&mut connection).await,
        };
        Ok(PrimaryConnection {
            connection,
            timeline,
        })
    }

    /// The cause of a connection that failed. sqlx does not name a file that it cannot
    /// read.
    fn explain(&self, error: sqlx::Error) -> StoreError {
        match self.tls.unreadable() {
            Some(cause) if matches!(error, sqlx::Error::Io(_)) => StoreError::Unavailable(cause),
            _ => error.into(),
        }
    }

    fn switch_to(&self, server: usize) {
        let mut in_use = self.in_use.write().unwrap_or_else(PoisonError::into_inner);
        if in_use.server == server {
            return;
        }
        tracing::info!(
            server = self.name(server),
            "[OTP] Switched to another database host"
        );
        let options = self.all[server].clone();
        let new = ActiveHost {
            server,
            pool: self.pool_options.clone().connect_lazy_with(options),
        };
        let old = std::mem::replace(&mut *in_use, new);
        // It waits for what runs there, which is nobody's concern any more.
        tokio::spawn(async move { old.pool.close().await });
    }

    /// The server as the log names it.
    fn name(&self, server: usize) -> String {
        let options = &self.all[server];
        format!("{}:{}", options.get_host(), options.get_port())
    }

    /// Why there is no server that takes writes.
    fn no_primary_error(&self, mut causes: Vec<(usize, StoreError)>) -> StoreError {
        if let [_] = self.all[..]
            && let Some((_, cause)) = causes.pop()
        {
            return cause;
        }
        let causes: Vec<String> = causes
            .into_iter()
            .map(|(server, cause)| format!("{}: {cause}", self.name(server)))
            .collect();
        StoreError::Unavailable(format!("no server takes writes ({})", causes.join("; ")))
    }
}

/// A server that takes writes.
struct PrimaryConnection {
    connection: PgConnection,
    timeline: i64,
}
