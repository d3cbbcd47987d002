//! Faults of the database: it is killed repeatedly, and between the kills it fails in every
//! other way that callers may meet.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::fleet::Fleet;
use crate::dice::Dice;

/// Fault of the database between two kills.
#[derive(Clone, Copy, Debug)]
enum Outage {
    Restart,
    Crash,
    ReadOnly,
    FailWrites,
    Conflicts,
    HoldWrites,
    EndSessions,
    CancelStatements,
    /// Restart of the pooler between replicas and the database, if there is one.
    RestartPooler,
}

/// All outages, in the order in which they happen.
const OUTAGES: [Outage; 9] = [
    Outage::Restart,
    Outage::Crash,
    Outage::ReadOnly,
    Outage::FailWrites,
    Outage::Conflicts,
    Outage::HoldWrites,
    Outage::EndSessions,
    Outage::CancelStatements,
    Outage::RestartPooler,
];

/// SQLSTATEs of failing writes: disk full, out of memory, limit of the configuration,
/// cancelled, shut down, not permitted, input or output error.
const SQLSTATES: [&str; 7] = [
    "53100", "53200", "53400", "57014", "57P01", "42501", "58030",
];
const KILLS: &str = "times PostgreSQL was killed and restarted";
/// Number of times that one outage ends all sessions or cancels all statements.
const REPETITIONS: usize = 20;

impl Outage {
    const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restarts of PostgreSQL",
            Self::Crash => "crashes of PostgreSQL",
            Self::ReadOnly => "times the database was read-only for a while",
            Self::FailWrites => "times every write failed for a while (disk full, …)",
            Self::Conflicts => "times most writes were serialization failures for a while",
            Self::HoldWrites => "times every write was held up for a while",
            Self::EndSessions => "times twenty all sessions were ended",
            Self::CancelStatements => "times twenty all statements were cancelled",
            Self::RestartPooler => "restarts of the pooler",
        }
    }
}

/// Number of outages by kind.
pub type OutageCounts = BTreeMap<&'static str, u64>;

/// Kills the database `kills` times, with another outage after each kill, once in `every`
/// calls.
pub async fn inject_outages(
    fleet: &Arc<Fleet>,
    mut dice: Dice,
    kills: usize,
    every: u64,
) -> OutageCounts {
    let mut counted = OutageCounts::new();
    for turn in 0..kills.max(OUTAGES.len()) {
        fleet.after_calls(every).await;
        if turn < kills {
            fleet.kill_postgres().await;
            *counted.entry(KILLS).or_default() += 1;
            eprintln!("killed {} of {kills} times", turn + 1);
            fleet.after_calls(every).await;
        }
        let outage = OUTAGES[turn % OUTAGES.len()];
        if matches!(outage, Outage::RestartPooler) && !fleet.is_pooled() {
            continue;
        }
        eprintln!("next of {}", outage.name());
        inject(fleet, outage, &mut dice).await;
        fleet.all_serve().await;
        *counted.entry(outage.name()).or_default() += 1;
    }
    // The effects of the last outage show in later calls.
    fleet.after_calls(every).await;
    counted
}

/// Returns the approximate number of calls that this takes.
pub fn calls(kills: usize, every: u64) -> u64 {
    let turns = u64::try_from(kills + kills.max(OUTAGES.len())).expect("few");
    (turns + 1) * every
}

async fn inject(fleet: &Arc<Fleet>, outage: Outage, dice: &mut Dice) {
    let duration = 20 + u64::try_from(dice.below(40)).expect("few");
    match outage {
        Outage::Restart => fleet.restart_postgres().await,
        Outage::Crash => fleet.crash_postgres().await,
        Outage::ReadOnly => {
            execute(
                fleet,
                "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()",
            )
            .await;
            fleet.after_calls(duration).await;
            execute(
                fleet,
                "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()",
            )
            .await;
        }
        Outage::FailWrites => {
            let sqlstate = SQLSTATES[dice.below(SQLSTATES.len())];
            let fail = format!("RAISE 'seeded' USING ERRCODE = '{sqlstate}'");
            install_trigger(fleet, &fail).await;
            fleet.after_calls(duration).await;
            execute(fleet, "DROP TRIGGER fail ON otp_record").await;
        }
        Outage::Conflicts => {
            execute(fleet, "CREATE SEQUENCE IF NOT EXISTS turns").await;
            let fail = "IF nextval('turns') % 3 <> 0 THEN
                            RAISE 'seeded' USING ERRCODE = '40001';
                        END IF";
            install_trigger(fleet, fail).await;
            fleet.after_calls(duration).await;
            execute(fleet, "DROP TRIGGER fail ON otp_record").await;
        }
        Outage::HoldWrites => {
            let mut holder = connect(fleet).await;
            let hold = "BEGIN; LOCK TABLE otp_record IN SHARE MODE";
            holder.execute(hold).await.expect("PostgreSQL runs");
            fleet.after_calls(duration).await;
            drop(holder);
        }
        Outage::EndSessions => repeat(fleet, "pg_terminate_backend").await,
        Outage::CancelStatements => repeat(fleet, "pg_cancel_backend").await,
        Outage::RestartPooler => fleet.restart_pooler(),
    }
}

async fn repeat(fleet: &Fleet, function: &str) {
    let sessions = "FROM pg_stat_activity WHERE application_name = 'otpd'";
    for _ in 0..REPETITIONS {
        execute(fleet, &format!("SELECT count({function}(pid)) {sessions}")).await;
        fleet.after_calls(2).await;
    }
}

/// Installs a trigger that runs before each statement that writes records.
async fn install_trigger(fleet: &Fleet, body: &str) {
    let trigger = format!(
        "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN {body}; RETURN NULL; END $$;
         CREATE TRIGGER fail BEFORE INSERT ON otp_record
         FOR EACH STATEMENT EXECUTE FUNCTION fail()"
    );
    execute(fleet, &trigger).await;
}

async fn connect(fleet: &Fleet) -> PgConnection {
    let mut connection = PgConnection::connect(fleet.database_url())
        .await
        .expect("PostgreSQL runs");
    // A session that is read-only by default could not undo that.
    connection
        .execute("SET default_transaction_read_only = off")
        .await
        .expect("any session may set it");
    connection
}

async fn execute(fleet: &Fleet, statements: &str) {
    let mut connection = connect(fleet).await;
    // Statements in one message are one transaction, in which ALTER SYSTEM is not allowed.
    let each: Vec<&str> = if statements.contains("$$") {
        vec![statements]
    } else {
        statements.split(';').collect()
    };
    for statement in each {
        let done = connection
            .execute(AssertSqlSafe(statement.to_owned()))
            .await;
        done.expect("a superuser may run it");
    }
}
