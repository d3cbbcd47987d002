//! Faults of the database: it is killed repeatedly, and between the kills it fails in
//! every other way that callers may meet.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::{dice::Dice, fleet::Fleet};

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
}

/// Each in turn.
const OUTAGES: [Outage; 8] = [
    Outage::Restart,
    Outage::Crash,
    Outage::ReadOnly,
    Outage::FailWrites,
    Outage::Conflicts,
    Outage::HoldWrites,
    Outage::EndSessions,
    Outage::CancelStatements,
];

/// What a write that fails may fail with: disk full, out of memory, a limit of the
/// configuration, cancelled, shut down, not permitted, an input or output error.
const SQLSTATES: [&str; 7] = [
    "53100", "53200", "53400", "57014", "57P01", "42501", "58030",
];
const KILLS: &str = "times PostgreSQL was killed and restarted";
/// How often sessions are ended, and statements cancelled, at a time.
const BLOWS: usize = 20;

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
        }
    }
}

/// How often each happened.
pub type Counted = BTreeMap<&'static str, u64>;

/// Kills the database so many times, and has something else happen to it each time;
/// every so many calls.
pub async fn befall(fleet: &Arc<Fleet>, mut dice: Dice, kills: usize, every: u64) -> Counted {
    let mut counted = Counted::new();
    for turn in 0..kills.max(OUTAGES.len()) {
        fleet.after_calls(every).await;
        if turn < kills {
            fleet.kill_postgres().await;
            *counted.entry(KILLS).or_default() += 1;
            eprintln!("killed {} of {kills} times", turn + 1);
            fleet.after_calls(every).await;
        }
        let outage = OUTAGES[turn % OUTAGES.len()];
        eprintln!("next of {}", outage.name());
        befall_once(fleet, outage, &mut dice).await;
        fleet.all_serve().await;
        *counted.entry(outage.name()).or_default() += 1;
    }
    // What it left behind is to be seen.
    fleet.after_calls(every).await;
    counted
}

/// About how many calls that takes.
pub fn calls(kills: usize, every: u64) -> u64 {
    let turns = u64::try_from(kills + kills.max(OUTAGES.len())).expect("few");
    (turns + 1) * every
}

async fn befall_once(fleet: &Arc<Fleet>, outage: Outage, dice: &mut Dice) {
    let a_while = 20 + u64::try_from(dice.below(40)).expect("few");
    match outage {
        Outage::Restart => fleet.restart_postgres().await,
        Outage::Crash => fleet.crash_postgres().await,
        Outage::ReadOnly => {
            execute(
                fleet,
                "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()",
            )
            .await;
            fleet.after_calls(a_while).await;
            execute(
                fleet,
                "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()",
            )
            .await;
        }
        Outage::FailWrites => {
            let sqlstate = SQLSTATES[dice.below(SQLSTATES.len())];
            let fail = format!("RAISE 'seeded' USING ERRCODE = '{sqlstate}'");
            plant(fleet, &fail).await;
            fleet.after_calls(a_while).await;
            execute(fleet, "DROP TRIGGER fail ON otp_record").await;
        }
        Outage::Conflicts => {
            execute(fleet, "CREATE SEQUENCE IF NOT EXISTS turns").await;
            let fail = "IF nextval('turns') % 3 <> 0 THEN
                            RAISE 'seeded' USING ERRCODE = '40001';
                        END IF";
            plant(fleet, fail).await;
            fleet.after_calls(a_while).await;
            execute(fleet, "DROP TRIGGER fail ON otp_record").await;
        }
        Outage::HoldWrites => {
            let mut holder = connect(fleet).await;
            let hold = "BEGIN; LOCK TABLE otp_record IN SHARE MODE";
            holder.execute(hold).await.expect("it waits for its turn");
            fleet.after_calls(a_while).await;
            drop(holder);
        }
        Outage::EndSessions => strike(fleet, "pg_terminate_backend").await,
        Outage::CancelStatements => strike(fleet, "pg_cancel_backend").await,
    }
}

async fn strike(fleet: &Fleet, blow: &str) {
    let sessions = "FROM pg_stat_activity WHERE application_name = 'otpd'";
    for _ in 0..BLOWS {
        execute(fleet, &format!("SELECT count({blow}(pid)) {sessions}")).await;
        fleet.after_calls(2).await;
    }
}

/// Has each statement that writes records do something first.
async fn plant(fleet: &Fleet, what: &str) {
    let plant = format!(
        "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN {what}; RETURN NULL; END $$;
         CREATE TRIGGER fail BEFORE INSERT ON otp_record
         FOR EACH STATEMENT EXECUTE FUNCTION fail()"
    );
    execute(fleet, &plant).await;
}

async fn connect(fleet: &Fleet) -> PgConnection {
    let mut connection = PgConnection::connect(fleet.database_url())
        .await
        .expect("it is up");
    // Else it could not be undone what was done.
    connection
        .execute("SET default_transaction_read_only = off")
        .await
        .expect("everybody may");
    connection
}

async fn execute(fleet: &Fleet, statements: &str) {
    let mut connection = connect(fleet).await;
    // The statements of one message are one transaction, in which some may not run.
    let each: Vec<&str> = if statements.contains("$$") {
        vec![statements]
    } else {
        statements.split(';').collect()
    };
    for statement in each {
        let done = connection
            .execute(AssertSqlSafe(statement.to_owned()))
            .await;
        done.expect("a superuser may");
    }
}
