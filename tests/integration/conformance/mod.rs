//! One suite that every store must pass, the stores that pass it, and one that must
//! not.

mod suite;

use std::sync::Arc;

use otpd::{
    domain::{LimitKey, RecordKey, Timestamp},
    store::{
        Change, RecordChange, RecordStore, Snapshot, Store, StoreError, StoreOptions, Written,
    },
};
use secrecy::SecretString;

use crate::support::{Database, Kind};

async fn store(database: &Database) -> Store {
    let url = SecretString::from(database.url());
    let store = Store::open(&url, &StoreOptions::default()).expect("the URL names a store");
    store
        .migrate()
        .await
        .expect("an empty database takes the schema");
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_passes() {
    let database = Database::new(Kind::Postgres).await;
    suite::run(Arc::new(store(&database).await), &database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_passes() {
    let database = Database::new(Kind::Sqlite).await;
    suite::run(Arc::new(store(&database).await), &database).await;
}

/// A store that forgets the version check: it writes whatever is there.
struct Forgetful(Store);

impl RecordStore for Forgetful {
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<Snapshot, StoreError> {
        self.0.load(records, limits).await
    }

    async fn write(&self, changes: &[Change]) -> Result<Written, StoreError> {
        let records = || changes.iter().filter_map(|change| change.record.as_ref());
        let keys: Vec<RecordKey> = records().map(|record| record.key).collect();
        let stored = self.0.load(&keys, &[]).await?.records;
        let unchecked: Vec<Change> = changes
            .iter()
            .map(|change| Change {
                record: change.record.clone().map(|record| RecordChange {
                    expected: stored.get(&record.key).map(|stored| stored.version),
                    ..record
                }),
                limits: change.limits.clone(),
            })
            .collect();
        self.0.write(&unchecked).await
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.0.sweep(now, limit).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_the_version_check_fails() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let database = Database::new(kind).await;
        let forgetful = Arc::new(Forgetful(store(&database).await));
        let run = tokio::spawn(async move { suite::run(forgetful, &database).await });
        let panic = run.await.expect_err("the suite must not pass").into_panic();
        let literal = panic.downcast_ref::<&str>().map(ToString::to_string);
        let message = literal
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        assert!(
            message.contains("no version check"),
            "{kind:?} failed for another reason: {message}"
        );
    }
}
