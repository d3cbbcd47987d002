//! A database that responds with errors until an operator repairs it.

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    COOL_DOWN, DEADLINE, REQUESTS, SHORT_STORE_TIMEOUT, ask_many, assert_all_are_served,
    assert_all_unavailable, assert_one_line_each, assert_store_unavailable, reason, remarks, send,
    wait_for_health,
};
use crate::support::{Database, Refusal, Replica};

/// So that an outage is over soon after it was mended.
const OFTEN: (&str, &str) = ("OTPD_STORE__PROBE_INTERVAL", "100ms");

/// Makes every write fail with this error.
fn failing_writes(sqlstate: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE 'seeded {sqlstate}' USING ERRCODE = '{sqlstate}'; END $$;
         CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON otp_record
         FOR EACH ROW EXECUTE FUNCTION fail()"
    )
}

async fn execute(database: &Database, statements: &str) {
    let mut connection = PgConnection::connect(database.url())
        .await
        .expect("the database was made");
    let statements = AssertSqlSafe(statements.to_owned());
    connection
        .execute(statements)
        .await
        .expect("a superuser may");
}

/// Some requests write, and are refused; the others are answered until it is known that
/// the store does not take writes, and are refused then.
async fn assert_none_is_acknowledged(replica: &Replica) {
    let client = replica.client();
    for number in (0..REQUESTS).step_by(10) {
        let refused = send(client.clone(), number, DEADLINE).await;
        assert_store_unavailable(&refused.expect_err("it cannot be written"));
    }
    wait_for_health(replica, ServingStatus::NotServing).await;
    assert_all_unavailable(ask_many(replica, DEADLINE)).await;
}

/// It is reported once, with its cause, and ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn unwritable_database_counts_as_unavailable() {
    const REASONS: [(&str, &str); 10] = [
        ("53100", "disk full"),
        ("53200", "out of memory"),
        ("53400", "configured limit exceeded"),
        ("57014", "statement cancelled"),
        ("57P01", "admin shutdown"),
        ("55P03", "lock not available"),
        ("25006", "read-only"),
        ("42501", "no permission"),
        ("58030", "disk fails"),
        ("XX000", "internal error"),
    ];
    let database = Database::postgres().await;
    let replica = Replica::start_with(&database, &[OFTEN]).await;
    replica.wait_for_line("Store available").await;
    for (outages, (sqlstate, what)) in (1..).zip(REASONS) {
        let (_, start) = remarks(&replica, 0);
        execute(&database, &failing_writes(sqlstate)).await;
        assert_none_is_acknowledged(&replica).await;
        let line = replica.wait_for_line(&format!("seeded {sqlstate}")).await;
        assert!(line.contains("Store unavailable"), "{what}: {line}");

        execute(&database, "DROP TRIGGER fail ON otp_record").await;
        wait_for_health(&replica, ServingStatus::Serving).await;
        replica.wait_for_lines("Store available", 1 + outages).await;
        assert_one_line_each(&remarks(&replica, start).0);
        send(replica.client(), 1_000 + outages, DEADLINE)
            .await
            .expect("it is sent");
    }
    // No write is incomplete.
    assert_all_are_served(&replica, &database, COOL_DOWN).await;
}

/// Writes wait for a lock of another session without end.
#[tokio::test(flavor = "multi_thread")]
async fn database_with_hanging_writes_counts_as_unavailable() {
    let database = Database::postgres().await;
    let replica = Replica::start_with(&database, &[OFTEN, SHORT_STORE_TIMEOUT]).await;
    replica.wait_for_line("Store available").await;
    let (_, start) = remarks(&replica, 0);
    let lock = database.lock_writes().await;
    assert_none_is_acknowledged(&replica).await;
    let line = replica.wait_for_line("Store unavailable").await;
    assert!(line.contains("lock timeout"), "{line}");
    lock.close().await.expect("it is ours");
    wait_for_health(&replica, ServingStatus::Serving).await;
    replica.wait_for_lines("Store available", 2).await;
    assert_one_line_each(&remarks(&replica, start).0);
    assert_all_are_served(&replica, &database, COOL_DOWN).await;
}

/// Makes each write fail with a conflict, except every `every`-th one.
fn conflicts(sqlstate: &str, every: u32) -> String {
    format!(
        "CREATE SEQUENCE turns;
         CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('turns') % {every} <> 0 THEN
                 RAISE 'seeded {sqlstate}' USING ERRCODE = '{sqlstate}';
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON otp_record
         FOR EACH STATEMENT EXECUTE FUNCTION fail()"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_and_deadlocks_are_retried_and_not_store_failures() {
    for sqlstate in ["40001", "40P01"] {
        let database = Database::postgres().await;
        let replica = Replica::start(&database).await;
        let (_, start) = remarks(&replica, 0);
        execute(&database, &conflicts(sqlstate, 7)).await;
        for answer in ask_many(&replica, DEADLINE).join_all().await {
            answer.expect("it passes in the end");
        }
        assert_all_are_served(&replica, &database, COOL_DOWN).await;
        // An endless conflict is reported, too, and not as an unavailable store.
        execute(
            &database,
            "DROP TRIGGER fail ON otp_record; DROP SEQUENCE turns",
        )
        .await;
        execute(&database, &conflicts(sqlstate, u32::MAX)).await;
        let refused = send(replica.client(), 1_000, DEADLINE).await;
        let status = refused.expect_err("it is never written");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unavailable, "OVERLOADED")
        );
        let (remarks, _) = remarks(&replica, start);
        let unavailable = |line: &String| line.contains("Store unavailable");
        assert!(!remarks.iter().any(unavailable), "{remarks:#?}");
    }
}

/// Fails each write of a transaction that is not READ COMMITTED, for the tables of
/// requests.
const REQUIRE_READ_COMMITTED: &str = "
    CREATE FUNCTION require_read_committed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE 'transaction is %', current_setting('transaction_isolation');
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER isolation BEFORE INSERT OR UPDATE ON otp_record
    FOR EACH STATEMENT EXECUTE FUNCTION require_read_committed();
    CREATE TRIGGER isolation BEFORE INSERT OR UPDATE ON otp_message
    FOR EACH STATEMENT EXECUTE FUNCTION require_read_committed();
    CREATE TRIGGER isolation BEFORE INSERT OR UPDATE ON otp_limit
    FOR EACH STATEMENT EXECUTE FUNCTION require_read_committed();";

/// The default of the database makes every transaction serializable; the replicas set
/// the level of their own transactions.
#[tokio::test(flavor = "multi_thread")]
async fn serializable_isolation_gives_the_same_responses() {
    let database = Database::postgres().await;
    let (_, name) = database.url().rsplit_once('/').expect("it has a name");
    let isolation =
        format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'");
    execute(&database, &isolation).await;
    let replicas = Replica::start_many(&database, 3).await;
    execute(&database, REQUIRE_READ_COMMITTED).await;
    let mut answers = Vec::new();
    for replica in &replicas {
        answers.push(ask_many(replica, DEADLINE));
    }
    for answers in answers {
        for answer in answers.join_all().await {
            if let Err(status) = answer {
                // Three sends were made to one recipient.
                assert_eq!(reason(&status), "RESEND_TOO_SOON", "{status:?}");
            }
        }
    }
    let log: String = replicas.iter().map(Replica::log).collect();
    assert!(!log.contains("Store unavailable"), "{log}");
}

/// The database's clock is put a year ahead, and back.
#[tokio::test(flavor = "multi_thread")]
async fn clock_jump_only_expires_codes() {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    let database = Database::postgres().await;
    let replica = Replica::start_with(&database, &[OFTEN]).await;
    for answer in ask_many(&replica, DEADLINE).join_all().await {
        answer.expect("there is a store");
    }
    database.advance_clock(YEAR).await;
    // The codes have expired, and new ones are sent.
    for answer in ask_many(&replica, DEADLINE).join_all().await {
        answer.expect("there is a store");
    }
    database.set_clock_offset(0).await;
    // A code with a future time is dead; no caller waits for a year.
    for number in 0..REQUESTS {
        if let Err(status) = send(replica.client(), number, DEADLINE).await {
            let refusal = Refusal::of(&status);
            assert_eq!(refusal.reason, "RESEND_TOO_SOON", "{status:?}");
            assert!(
                refusal.wait.expect("it says when") <= COOL_DOWN,
                "{status:?}"
            );
        }
    }
    // The limits on sends are full again after their own length.
    let day = Duration::from_hours(24);
    database.advance_clock(day).await;
    assert_all_are_served(&replica, &database, day + COOL_DOWN).await;
    assert!(!replica.log().contains("Store unavailable"));
}

/// Makes the clock, and so each load, fail where statements are planned for any values, as
/// those about Citus's tables do.
const FAILING_GENERIC_PLANS: &str = "CREATE OR REPLACE VIEW otp_clock AS
    SELECT floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint
        / CASE current_setting('plan_cache_mode') WHEN 'force_generic_plan' THEN 0 ELSE 1 END
        AS now";

/// The probe uses connections with the settings of those that requests use.
#[tokio::test(flavor = "multi_thread")]
async fn statement_that_fails_by_a_session_setting_counts_as_unavailable() {
    let database = Database::postgres().await;
    let replica = Replica::start_with(&database, &[OFTEN]).await;
    replica.wait_for_line("Store available").await;
    execute(&database, FAILING_GENERIC_PLANS).await;
    wait_for_health(&replica, ServingStatus::NotServing).await;
    let line = replica.wait_for_line("Store unavailable").await;
    assert!(line.contains("division by zero"), "{line}");
    assert_all_unavailable(ask_many(&replica, DEADLINE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generic_plans_are_not_forced_on_citus() {
    let database = Database::postgres().await;
    drop(Replica::start(&database).await);
    execute(&database, FAILING_GENERIC_PLANS).await;
    // What is read of an extension.
    execute(
        &database,
        "SET allow_system_table_mods = on;
         INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
         SELECT 1, 'citus', extowner, extnamespace, false, '13.2' FROM pg_extension LIMIT 1",
    )
    .await;
    let replica = Replica::start(&database).await;
    for answer in ask_many(&replica, DEADLINE).join_all().await {
        answer.expect("there is a store");
    }
}

/// Another session keeps one record locked: requests about the others of its batches are
/// answered, and health stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn locked_row_fails_only_the_requests_about_it() {
    let database = Database::postgres().await;
    let replicas = Replica::start_many_with(&database, 2, &[OFTEN]).await;
    send(replicas[0].client(), 0, DEADLINE)
        .await
        .expect("there is a store");
    let mut session = PgConnection::connect(database.url())
        .await
        .expect("the database was made");
    session
        .execute("BEGIN; SELECT FROM otp_record FOR UPDATE")
        .await
        .expect("a superuser may");
    database.advance_clock(COOL_DOWN).await;
    let mut first = 1;
    // In the second round each replica knows the record.
    for _ in 0..2 {
        let locked = replicas
            .iter()
            .map(|replica| send(replica.client(), 0, DEADLINE));
        let mut others = JoinSet::new();
        for number in first..first + REQUESTS {
            let client = replicas[number % 2].client();
            others.spawn(async move { send(client, number, DEADLINE).await });
        }
        for refused in join_all(locked).await {
            assert_store_unavailable(&refused.expect_err("its record is locked"));
        }
        for sent in others.join_all().await {
            sent.expect("its record is not locked");
        }
        first += REQUESTS;
    }
    for replica in &replicas {
        assert!(
            !replica.log().contains("Store unavailable"),
            "{}",
            replica.log()
        );
    }
    // The server ends a session some time after its connection.
    session.execute("ROLLBACK").await.expect("it is ours");
    for replica in &replicas {
        if let Err(status) = send(replica.client(), 0, DEADLINE).await {
            assert_eq!(reason(&status), "RESEND_TOO_SOON", "{status:?}");
        }
    }
}
