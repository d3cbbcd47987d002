//! Pooled connections that return to the pool within a time limit, or are closed.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{PgConnection, Postgres, pool::PoolConnection};

use super::{pooling::Pooling, session_settings::SessionSettings};

/// Connection of the pool, used for one request.
///
/// sqlx pings a connection before it takes it back, and waits without limit for the reply. A
/// connection that hangs would therefore occupy its place in the pool for ever. This one is closed
/// after the timeout of a statement.
pub(super) struct PooledConnection {
    connection: PoolConnection<Postgres>,
    timeout: Duration,
    pooling: Pooling,
    discarded: bool,
}

impl PooledConnection {
    /// Begins the use of a connection that must return to the pool within `timeout`. It is closed
    /// instead if a transaction that the pooler requires is not [finished](Self::finish): otherwise
    /// later statements would be part of it, and acknowledged without a commit.
    pub async fn begin(
        connection: PoolConnection<Postgres>,
        pooling: Pooling,
        settings: &SessionSettings,
        timeout: Duration,
    ) -> Result<Self, sqlx::Error> {
        let mut this = Self {
            connection,
            timeout,
            pooling,
            discarded: pooling.needs_transaction(),
        };
        pooling.begin(&mut this.connection, settings).await?;
        Ok(this)
    }

    /// Commits the statements, if a pooler required a transaction. Without one they are committed
    /// already.
    pub async fn finish(mut self) -> Result<(), sqlx::Error> {
        self.pooling.commit(&mut self.connection).await?;
        self.discarded = false;
        Ok(())
    }

    /// Marks the connection to be closed instead of returned to the pool.
    pub fn discard(&mut self) {
        self.discarded = true;
    }
}

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if self.discarded {
            // The pool closes it within its own time limit.
            self.connection.close_on_drop();
            return;
        }
        // The pool spawns the same when a connection is dropped, but without a time limit.
        let returned = self.connection.return_to_pool();
        tokio::spawn(tokio::time::timeout(self.timeout, returned));
    }
}
