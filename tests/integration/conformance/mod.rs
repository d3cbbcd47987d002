//! One suite that every store must pass, the stores that pass it, and one that must
//! not.

mod messages;
mod suite;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use otpd::{
    domain::{LimitKey, MessageId, RecordKey, Timestamp},
    store::{
        Change, MessageChange, RecordChange, RecordStore, Snapshot, Store, StoreError,
        StoreOptions, VersionedMessage, Written,
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

/// A store that forgets a check: it writes whatever is there.
struct Forgetful {
    store: Store,
    forgets: Forgets,
    /// Messages that it wrote without their records.
    alone: Mutex<Vec<VersionedMessage>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgets {
    /// Whether a record is as expected.
    Records,
    /// Whether a message is as expected.
    Messages,
    /// Whether the record of a new message was written.
    RecordsOfMessages,
}

impl Forgetful {
    /// Keeps the messages whose records were not written.
    fn write_alone(&self, changes: &[Change], written: &Written) {
        let messages = changes.iter().filter_map(|change| change.message.clone());
        let alone = messages.filter(|message| !written.records.contains(&message.key));
        let mut all = self.alone.lock().expect("nobody panics");
        all.extend(alone.map(|change| VersionedMessage {
            key: change.key,
            version: change.version,
            message: change.message,
        }));
    }
}

impl RecordStore for Forgetful {
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<Snapshot, StoreError> {
        self.store.load(records, limits).await
    }

    async fn write(&self, changes: &[Change]) -> Result<Written, StoreError> {
        if self.forgets != Forgets::Records {
            let written = self.store.write(changes).await?;
            if self.forgets == Forgets::RecordsOfMessages {
                self.write_alone(changes, &written);
            }
            return Ok(written);
        }
        let records = || changes.iter().filter_map(|change| change.record.as_ref());
        let keys: Vec<RecordKey> = records().map(|record| record.key).collect();
        let stored = self.store.load(&keys, &[]).await?.records;
        let unchecked: Vec<Change> = changes
            .iter()
            .map(|change| Change {
                record: change.record.clone().map(|record| RecordChange {
                    expected: stored.get(&record.key).map(|stored| stored.version),
                    ..record
                }),
                message: change.message.clone(),
                limits: change.limits.clone(),
            })
            .collect();
        self.store.write(&unchecked).await
    }

    async fn load_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<VersionedMessage>, StoreError> {
        let mut messages = self.store.load_messages(records).await?;
        let alone = self.alone.lock().expect("nobody panics");
        let of_them = alone
            .iter()
            .filter(|message| records.contains(&message.key));
        messages.extend(of_them.cloned());
        Ok(messages)
    }

    async fn due_messages(&self, limit: u32) -> Result<Vec<VersionedMessage>, StoreError> {
        self.store.due_messages(limit).await
    }

    async fn write_messages(
        &self,
        changes: &[MessageChange],
    ) -> Result<HashSet<MessageId>, StoreError> {
        if self.forgets != Forgets::Messages {
            return self.store.write_messages(changes).await;
        }
        let keys: Vec<RecordKey> = changes.iter().map(|change| change.key).collect();
        let stored = self.store.load_messages(&keys).await?;
        let version = |id| stored.iter().find(|stored| stored.message.id == id);
        let unchecked: Vec<MessageChange> = changes
            .iter()
            .map(|change| MessageChange {
                expected: version(change.message.id).map(|stored| stored.version),
                ..change.clone()
            })
            .collect();
        self.store.write_messages(&unchecked).await
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.store.sweep(now, limit).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_one_of_the_checks_fails() {
    const VERSION: &str = "no version check";
    for (kind, forgets, told) in [
        (Kind::Postgres, Forgets::Records, VERSION),
        (Kind::Postgres, Forgets::Messages, VERSION),
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
            message.contains(told),
            "{kind:?} that forgets {forgets:?} failed for another reason: {message}"
        );
    }
}
