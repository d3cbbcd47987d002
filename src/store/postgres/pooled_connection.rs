//! Connections that find their way back to the pool, or are given up.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{PgConnection, Postgres, pool::PoolConnection};

/// A connection on its way through one request.
///
/// sqlx takes a connection back only when it gave a sign of life, and waits for
/// that without end. One that hangs would so cost its place in the pool for ever;
/// this one is waited for only as long as for a statement, and then closed.
pub(super) struct PooledConnection {
    connection: PoolConnection<Postgres>,
    timeout: Duration,
    given_up: bool,
}

impl PooledConnection {
    /// `timeout` is how long its way back may take.
    pub fn new(connection: PoolConnection<Postgres>, timeout: Duration) -> Self {
        Self {
            connection,
            timeout,
            given_up: false,
        }
    }

    /// Has it closed instead of given back.
    pub fn discard(&mut self) {
        self.given_up = true;
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
        if self.given_up {
            // The pool does so, within a time of its own.
            self.connection.close_on_drop();
            return;
        }
        // What the pool itself spawns when a connection is dropped, only not bounded.
        let back = self.connection.return_to_pool();
        tokio::spawn(tokio::time::timeout(self.timeout, back));
    }
}
