//! One conformance suite that every store must pass, and a faulty store that must fail
//! it.

mod limits;
mod messages;
mod suite;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use otpd::store::{
    self, DeliveredMessage, FoundMessage, InstrumentedStore, LaneCursor, LoadedState, LockedRows,
    MessageWrite, Place, PurgeStats, RecordStore, StatementMetrics, StoreError, StoreOptions,
    StoreStats, VersionedMessage, WriteBatch, WriteResult,
};
use otpd_rules::{CallerName, LimitKey, RecordKey, Timestamp};
use secrecy::SecretString;

use crate::support::{Database, Kind, on_each_store};

async fn store(database: &Database) -> InstrumentedStore {
    let url = SecretString::from(database.replica_url());
    let store = store::open(&url, &StoreOptions::default()).expect("the URL names a store");
    let store = InstrumentedStore::new(store, StatementMetrics::default());
    store
        .migrate()
        .await
        .expect("an empty database takes the schema");
    store
}

async fn store_passes_the_conformance_suite(kind: Kind) {
    let database = Database::new(kind).await;
    suite::run(Arc::new(store(&database).await), &database).await;
}

on_each_store! {
    store_passes_the_conformance_suite
}

/// Store that omits a check, and writes unconditionally.
#[derive(Debug)]
struct Forgetful {
    store: InstrumentedStore,
    forgets: Forgets,
    /// Messages that it wrote without their records.
    alone: Mutex<Vec<FoundMessage>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgets {
    /// Check that a record has the expected version.
    Records,
    /// Check that a limit has room.
    Limits,
    /// Check that a message has the expected version.
    Messages,
    /// Check that the record of a new message was written.
    RecordsOfMessages,
}

impl Forgetful {
    /// Stores the messages whose records were not written.
    fn write_alone(&self, changes: &WriteBatch, written: &WriteResult) {
        let new = |change: &&MessageWrite| {
            change.expected.is_none() && !written.records.contains(&change.key)
        };
        let alone = changes.messages.iter().filter(new).cloned();
        let mut all = self.alone.lock().expect("lock is not poisoned");
        all.extend(alone.map(|change| FoundMessage {
            key: change.key,
            lane: CallerName::new(""),
            place: Place {
                created_at: change.message.created_at,
                id: change.message.id,
            },
            message: Ok(VersionedMessage {
                key: change.key,
                version: change.version,
                message: change.message,
            }),
        }));
    }

    /// Sets the expected version of every record to the stored one.
    async fn expect_any_record(&self, changes: &mut WriteBatch) -> Result<(), StoreError> {
        let keys: Vec<RecordKey> = changes.records.iter().map(|change| change.key).collect();
        let stored = self.store.load(&keys, &[]).await?.records;
        for change in &mut changes.records {
            change.expected = stored.get(&change.key).map(|stored| stored.version);
        }
        Ok(())
    }

    /// Sets the expected version of every old message to the stored one.
    async fn expect_any_message(&self, changes: &mut WriteBatch) -> Result<(), StoreError> {
        let keys: Vec<RecordKey> = changes.messages.iter().map(|change| change.key).collect();
        let stored = self.store.load_messages(&keys).await?;
        for change in &mut changes.messages {
            let of_it = stored
                .iter()
                .find(|stored| stored.place.id == change.message.id);
            let stored = of_it.and_then(|stored| stored.message.as_ref().ok());
            change.expected = change.expected.and(stored.map(|stored| stored.version));
        }
        Ok(())
    }
}

#[async_trait]
impl RecordStore for Forgetful {
    fn system(&self) -> &'static str {
        self.store.system()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn store_fingerprint(&self, own: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        self.store.store_fingerprint(own).await
    }

    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError> {
        self.store.load(records, limits).await
    }

    async fn write(&self, changes: &WriteBatch) -> Result<WriteResult, StoreError> {
        let mut unchecked = changes.clone();
        match self.forgets {
            Forgets::Records => self.expect_any_record(&mut unchecked).await?,
            Forgets::Limits => {
                for change in &mut unchecked.limits {
                    change.delta.latest = Timestamp::from_milliseconds(i64::MAX);
                }
            }
            Forgets::Messages => self.expect_any_message(&mut unchecked).await?,
            Forgets::RecordsOfMessages => {}
        }
        let written = self.store.write(&unchecked).await?;
        if self.forgets == Forgets::RecordsOfMessages {
            self.write_alone(changes, &written);
        }
        Ok(written)
    }

    async fn locked_rows(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LockedRows, StoreError> {
        self.store.locked_rows(records, limits).await
    }

    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        let mut messages = self.store.load_messages(records).await?;
        let alone = self.alone.lock().expect("lock is not poisoned");
        let of_them = alone
            .iter()
            .filter(|message| records.contains(&message.key));
        messages.extend(of_them.cloned());
        Ok(messages)
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        self.store.waiting_lanes().await
    }

    async fn due_messages(&self, turns: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        self.store.due_messages(turns).await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError> {
        self.store.purge(now, limit).await
    }

    async fn delivered_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        self.store.delivered_messages(records).await
    }

    async fn stats(&self, now: Timestamp) -> Result<StoreStats, StoreError> {
        self.store.stats(now).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe().await
    }

    fn connections(&self) -> (u32, u32) {
        self.store.connections()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_without_a_check_fails_the_suite() {
    const VERSION: &str = "no version check";
    for (kind, forgets, status) in [
        (Kind::Postgres, Forgets::Records, VERSION),
        (Kind::Postgres, Forgets::Messages, VERSION),
        (Kind::Postgres, Forgets::Limits, "no rule of limits"),
        (Kind::Sqlite, Forgets::Records, VERSION),
        (Kind::Sqlite, Forgets::Messages, VERSION),
        (
            Kind::Sqlite,
            Forgets::RecordsOfMessages,
            "a message without its record",
        ),
    ] {
        let database = Database::new(kind).await;
        let store = store(&database).await;
        let forgetful = Arc::new(Forgetful {
            store,
            forgets,
            alone: Mutex::default(),
        });
        let run = tokio::spawn(async move { suite::run(forgetful, &database).await });
        let panic = run.await.expect_err("the suite must not pass").into_panic();
        let literal = panic.downcast_ref::<&str>().map(ToString::to_string);
        let message = literal
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        assert!(
            message.contains(status),
            "{kind:?} that forgets {forgets:?} failed for another reason: {message}"
        );
    }
}
