//! Settings of sessions.

use std::time::Duration;

use sqlx::AssertSqlSafe;

/// Settings of every session. Those of the planner keep a plan right, whatever the tables held when
/// it was made. Requests only find rows by their keys and join them with a batch.
pub const SESSION_OPTIONS: [(&str, &str); 6] = [
    // Every statement is a complete compare-and-set, so a stricter level, which the database may
    // have as its default, adds conflicts and no safety.
    ("default_transaction_isolation", "read committed"),
    // A plan for the present number of keys may scan the whole table if that number is large. A
    // generic plan is made once and kept.
    ("plan_cache_mode", "force_generic_plan"),
    // A plan that was made while the table was empty would scan it, and be kept while the table
    // grows.
    ("enable_seqscan", "off"),
    // A plan that was made while the table had one row would go through the whole batch for each
    // row. A hash table of the batch is right for every size.
    ("enable_nestloop", "off"),
    ("enable_mergejoin", "off"),
    // Compilation takes longer than the compiled statement.
    ("jit", "off"),
];

/// Share of the timeout of a statement that it may wait for a lock. Locks of other replicas are held
/// for one statement. A row that is locked for longer must not delay the requests about other rows,
/// so the wait leaves time to find that row, and to write the others.
const LOCK_TIMEOUT_DIVISOR: u32 = 4;

/// Settings of the sessions of one store: [`SESSION_OPTIONS`] and a bound on the wait for locks, as
/// the statements that set them.
#[derive(Clone, Debug)]
pub(super) struct SessionSettings {
    /// For the session.
    pub session: String,
    /// For the present transaction.
    pub transaction: String,
    /// For the role of otpd.
    pub role: String,
}

impl SessionSettings {
    /// Returns the settings for statements that may take `timeout`.
    pub fn new(timeout: Duration) -> Self {
        // Zero would mean no bound.
        let lock_timeout = (timeout / LOCK_TIMEOUT_DIVISOR).max(Duration::from_millis(1));
        let lock_timeout = format!("{}ms", lock_timeout.as_millis());
        let settings = SESSION_OPTIONS.into_iter();
        let settings: Vec<_> = settings.chain([("lock_timeout", &*lock_timeout)]).collect();
        let set = |is_local: bool| {
            let values = settings.iter().map(|(name, value)| {
                format!(
                    "set_config('{name}', {}, {is_local})",
                    expression(name, value)
                )
            });
            format!("SELECT {};", values.collect::<Vec<_>>().join(", "))
        };
        let role = settings
            .iter()
            .map(|(name, value)| format!("ALTER ROLE CURRENT_USER SET {name} = '{value}'"));
        Self {
            session: set(false),
            transaction: set(true),
            role: role.collect::<Vec<_>>().join("; "),
        }
    }

    /// Returns the query of whether a session has them without being asked.
    pub fn query_whether_set() -> AssertSqlSafe<String> {
        let settings = SESSION_OPTIONS.iter().map(|(name, value)| {
            format!("current_setting('{name}') = {}", expression(name, value))
        });
        let settings: Vec<String> = settings.collect();
        AssertSqlSafe(format!(
            "SELECT {} AND current_setting('lock_timeout') <> '0'",
            settings.join(" AND ")
        ))
    }
}

/// Returns the value of a setting as an expression. Citus plans a statement about its shards by the
/// values of the parameters, and fails with a generic plan.
fn expression(name: &str, value: &str) -> String {
    if name == "plan_cache_mode" {
        format!(
            "CASE WHEN EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') \
             THEN 'auto' ELSE '{value}' END"
        )
    } else {
        format!("'{value}'")
    }
}
