//! A database that is dropped and restored.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, migrate::Migrator};
use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    COOL_DOWN, DEADLINE, SHORT_STORE_TIMEOUT, ask_many, assert_all_are_served,
    assert_all_unavailable, remarks, server::assert_few_lines, wait_for_health,
};
use crate::support::{Database, Replica};

/// The database is dropped and restored, from one of an older or a newer version of otpd, or empty.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_and_restored_database_is_used_again() {
    let database = Database::postgres().await;
    let (server, name) = database.url().rsplit_once('/').expect("it has a name");
    let server = format!("{server}/postgres");
    let replica = Replica::start_with(&database, &[SHORT_STORE_TIMEOUT]).await;
    replica.wait_for_lines("Store available", 1).await;
    let mut owner = PgConnection::connect(&server).await.expect("it runs");
    let newest = migrations(&database).await;
    for (outages, restored) in (1..).zip([0, 1, newest, newest + 1]) {
        let (_, start) = remarks(&replica, 0);
        let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
        owner.execute(drop).await.expect("a superuser may");
        wait_for_health(&replica, ServingStatus::NotServing).await;
        if !database.is_pooled() {
            // A pooler has causes of its own, and the log names five at most.
            replica.wait_for_line("does not exist").await;
        }
        assert_all_unavailable(ask_many(&replica, DEADLINE)).await;

        // Under another name until it is whole, as a careful person would.
        let new = format!("{name}_restored");
        let create = AssertSqlSafe(format!("CREATE DATABASE {new}"));
        owner.execute(create).await.expect("a superuser may");
        restore(&database.url().replacen(name, &new, 1), restored).await;
        let rename = AssertSqlSafe(format!("ALTER DATABASE {new} RENAME TO {name}"));
        owner.execute(rename).await.expect("it is unused");
        wait_for_health(&replica, ServingStatus::Serving).await;
        replica.wait_for_lines("Store available", 1 + outages).await;
        assert_few_lines(&replica, start);
        assert_eq!(migrations(&database).await, newest.max(restored));
        // Earlier codes are lost, and every send issues a new one.
        assert_all_are_served(&replica, &database, COOL_DOWN).await;
    }
}

async fn migrations(database: &Database) -> i64 {
    database
        .number("SELECT max(version) FROM otp_migrations")
        .await
}

/// Creates the schema after `level` migrations. A level above the newest one stands for a later
/// migration that keeps to the policy and only adds.
async fn restore(url: &str, level: i64) {
    let all = Migrator::new(std::path::Path::new("migrations/postgres"))
        .await
        .expect("they are there");
    let older = all.iter().filter(|migration| migration.version <= level);
    let mut migrator = Migrator::with_migrations(older.cloned().collect());
    migrator.dangerous_set_table_name("otp_migrations");
    let mut connection = PgConnection::connect(url).await.expect("it was made");
    if level == 0 {
        return;
    }
    migrator.run(&mut connection).await.expect("they are good");
    if all.iter().all(|migration| migration.version < level) {
        let newer = format!(
            "ALTER TABLE otp_record ADD COLUMN new text;
             INSERT INTO otp_migrations (version, description, success, checksum, execution_time)
             VALUES ({level}, 'of a newer version', TRUE, '', 0)"
        );
        let newer = AssertSqlSafe(newer);
        connection.execute(newer).await.expect("a superuser may");
    }
}
