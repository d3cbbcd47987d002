//! Poolers between otpd and the database, and the preparation of sessions and transactions.
//!
//! A connection is a session of its own without a pooler, and with one that pools by session. A
//! pooler that pools by transaction gives each transaction any session, so that settings must be
//! set in the transaction, and prepared statements may be those of another client.

use rand::RngExt as _;
use sqlx::{
    AssertSqlSafe, Decode, Executor as _, PgConnection, Postgres, Row as _, SqlSafeStr, Type,
    postgres::PgConnectOptions,
};

use super::{super::StoreError, session_settings::SessionSettings};
use crate::system_random::os_rng;

/// Number of times that two connections are asked for their session, in a random order. If a pooler
/// gives each transaction any session, which depends on other clients, all answers are those of two
/// sessions once in 2^18 times.
const SESSION_PROBES: usize = 20;

/// Statement that deallocates the prepared statements that a session has from earlier clients with
/// sqlx, whose names are those of the next ones. Statements that a pooler renames are left alone.
const DEALLOCATE_FOREIGN: &str = "DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT s.name FROM pg_prepared_statements AS s WHERE s.name LIKE 'sqlx\\_s\\_%' LOOP
        EXECUTE format('DEALLOCATE %I', name);
    END LOOP;
END $$;";

/// Query that finds its own name. PgBouncer from 1.21 on, and others that support prepared
/// statements, rename them.
const OWN_NAME: &str = "SELECT name FROM pg_prepared_statements
    WHERE statement LIKE '%names of prepared statements%' ORDER BY prepare_time DESC LIMIT 1";

/// Way in which a pooler, if there is one, assigns sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pooling {
    /// Each connection is one session.
    #[default]
    Session,
    /// Each transaction may be another session.
    Transaction {
        /// True if prepared statements work in any session.
        named_statements: bool,
        /// True if every session has the settings already, from the role or the database.
        configured: bool,
    },
}

impl Pooling {
    /// Detects a pooler by two new connections.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it pools by statement, or does not answer.
    pub async fn detect(
        first: &mut PgConnection,
        second: &mut PgConnection,
    ) -> Result<Self, StoreError> {
        if are_two_sessions(first, second).await? {
            return Ok(Self::Session);
        }
        let begin = format!("BEGIN; {DEALLOCATE_FOREIGN}");
        if let Err(error) = first.execute(AssertSqlSafe(begin)).await {
            return Err(StoreError::Unavailable(format!(
                "a pooler before the database begins no transaction; set it to pool by \
                 transaction or by session (PgBouncer: pool_mode = transaction): {error}"
            )));
        }
        let configured: bool = fetch_scalar(first, SessionSettings::query_whether_set()).await?;
        let name: Option<String> = sqlx::query_scalar(OWN_NAME)
            .fetch_optional(&mut *first)
            .await?;
        let end = format!("{DEALLOCATE_FOREIGN} COMMIT");
        first.execute(AssertSqlSafe(end)).await?;
        Ok(Self::Transaction {
            named_statements: name.is_some_and(|name| !name.starts_with("sqlx_s_")),
            configured,
        })
    }

    /// Returns the options of a connection through the pooler.
    pub fn connect_options(self, options: PgConnectOptions) -> PgConnectOptions {
        match self {
            // A statement that sqlx remembers would be missing in the next session.
            Self::Transaction {
                named_statements: false,
                ..
            } => options.statement_cache_capacity(0),
            _ => options,
        }
    }

    /// Prepares a new connection.
    pub async fn prepare(
        self,
        connection: &mut PgConnection,
        settings: &SessionSettings,
    ) -> Result<(), sqlx::Error> {
        if self == Self::Session {
            let set = settings.session.clone();
            connection.execute(AssertSqlSafe(set)).await?;
        }
        Ok(())
    }

    /// Returns whether statements need a transaction around them.
    pub fn needs_transaction(self) -> bool {
        !matches!(
            self,
            Self::Session
                | Self::Transaction {
                    named_statements: true,
                    configured: true
                }
        )
    }

    /// Begins the transaction that statements need, if any, by one message.
    pub async fn begin(
        self,
        connection: &mut PgConnection,
        settings: &SessionSettings,
    ) -> Result<(), sqlx::Error> {
        if self.needs_transaction() {
            self.begin_transaction(connection, settings).await?;
        }
        Ok(())
    }

    /// Begins a transaction.
    pub async fn begin_transaction(
        self,
        connection: &mut PgConnection,
        settings: &SessionSettings,
    ) -> Result<(), sqlx::Error> {
        let mut begin = "BEGIN ISOLATION LEVEL READ COMMITTED;".to_owned();
        if let Self::Transaction {
            named_statements,
            configured,
        } = self
        {
            if !named_statements {
                begin.push_str(DEALLOCATE_FOREIGN);
            }
            if !configured {
                begin.push_str(&settings.transaction);
            }
        }
        connection.execute(AssertSqlSafe(begin)).await?;
        Ok(())
    }

    /// Commits the transaction of [`begin`](Self::begin).
    pub async fn commit(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.needs_transaction() {
            connection.execute("COMMIT").await?;
        }
        Ok(())
    }

    /// Logs a pooler that has been found.
    pub fn log(self, settings: &SessionSettings) {
        match self {
            Self::Session => tracing::info!("[OTP] Each connection is a database session"),
            Self::Transaction {
                named_statements: true,
                configured: false,
            } => tracing::info!(
                prepared_statements = true,
                settings = %"transaction",
                remedy = settings.role,
                "[OTP] Transaction pooler found; settings of the role would save two round trips"
            ),
            Self::Transaction {
                named_statements,
                configured,
            } => tracing::info!(
                prepared_statements = named_statements,
                settings = %if configured { "role" } else { "transaction" },
                "[OTP] Transaction pooler found"
            ),
        }
    }
}

/// Returns whether two connections are two sessions.
async fn are_two_sessions(
    first: &mut PgConnection,
    second: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    let mut random = os_rng();
    let mut sessions = [None; 2];
    for probe in 0..SESSION_PROBES {
        // Each is asked at least once.
        let number = if probe < 2 {
            probe
        } else {
            random.random_range(..2)
        };
        let connection = if number == 0 {
            &mut *first
        } else {
            &mut *second
        };
        let session: i32 = fetch_scalar(connection, "SELECT pg_backend_pid()").await?;
        let before = sessions[number].replace(session);
        if before.is_some_and(|before| before != session) || sessions[0] == sessions[1] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the single value of a statement. The statement is not prepared, because that may fail if
/// a pooler shares sessions, which is not known yet.
pub(super) async fn fetch_scalar<T>(
    connection: &mut PgConnection,
    statement: impl SqlSafeStr,
) -> Result<T, sqlx::Error>
where
    T: for<'a> Decode<'a, Postgres> + Type<Postgres>,
{
    sqlx::raw_sql(statement)
        .fetch_one(connection)
        .await?
        .try_get(0)
}
