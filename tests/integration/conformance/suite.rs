//! Conformance of a store: records, and the list of all checks.

use std::{collections::HashSet, sync::Arc, time::Duration};

use otpd::{
    keys::os_rng,
    store::{
        RecordStore, RecordWrite, RowVersion, SealedBytes, StoreError, VersionedRecord, WriteBatch,
    },
};
use otpd_rules::{
    CallerName, Challenge, ChallengeNonce, ChallengeState, Channel, FailureCounter, IdempotencyLog,
    Purpose, Record, RecordKey, SendLimits, Timestamp,
};
use rand::Rng as _;
use tokio::{sync::Barrier, task::JoinSet};

use super::{limits, limits::new_limit, messages};
use crate::support::Database;

/// Runs every case; panics in the first that fails. `database` is where `store`
/// keeps its records, for moving its clock.
pub async fn run<S: RecordStore>(store: Arc<S>, database: &Database) {
    what_was_never_written_is_not_loaded(&*store).await;
    what_was_written_is_loaded_unchanged(&*store).await;
    only_the_expected_version_is_replaced(&*store).await;
    a_batch_writes_exactly_what_was_as_expected(&*store).await;
    batches_of_every_size_are_taken(&*store).await;
    of_racing_writers_one_wins(&store).await;
    crossing_batches_lose_nothing(&store).await;
    limits::run(&store).await;
    only_rows_of_other_sessions_are_locked(&*store).await;
    only_removable_records_are_purged(&*store).await;
    the_clock_goes_with_the_records(&*store, database).await;
    messages::run(&store, database).await;
}

/// Nobody holds a lock, so none is found; a test of PostgreSQL holds one.
async fn only_rows_of_other_sessions_are_locked<S: RecordStore>(store: &S) {
    let change = new_record();
    write_one(store, &change).await;
    let keys = [change.key, random_key()];
    let locked = store
        .locked_rows(&keys, &[new_limit(Timestamp::from_milliseconds(0)).key])
        .await;
    let locked = locked.expect("the store answers");
    assert!(locked.records.is_empty() && locked.limits.is_empty());
}

async fn what_was_never_written_is_not_loaded<S: RecordStore>(store: &S) {
    let before = store.load(&[], &[]).await.expect("an empty load works");
    assert!(before.records.is_empty());
    // It lags by as much as the reply took, so it is compared as it was then.
    let earlier = before.clock.now();
    let after = store
        .load(&[random_key()], &[])
        .await
        .expect("a load works");
    assert!(after.records.is_empty());
    assert!(earlier <= after.clock.now());
}

async fn what_was_written_is_loaded_unchanged<S: RecordStore>(store: &S) {
    let states = [
        ChallengeState::Live(SealedBytes((0..=255).collect())),
        ChallengeState::Live(SealedBytes(Vec::new())),
        ChallengeState::Spent,
        ChallengeState::Exhausted,
        ChallengeState::Cancelled,
    ];
    let channels = [
        Channel::Sms,
        Channel::Email,
        Channel::Voice,
        Channel::WhatsApp,
        Channel::Telegram,
    ];
    for (state, channel) in states.into_iter().zip(channels) {
        let mut change = new_record();
        change.record.challenge.state = state;
        change.record.challenge.channel = channel;
        change.record.challenge.attempts = 100;
        change.record.caller = CallerName::new("кассир \"№1\"; --");
        write_one(store, &change).await;
        let loaded = load_one(store, change.key).await.expect("it was written");
        assert_eq!(loaded.version, change.version);
        assert_same(&loaded.record, &change.record);
    }
}

async fn only_the_expected_version_is_replaced<S: RecordStore>(store: &S) {
    let first = new_record();
    write_one(store, &first).await;

    let again = RecordWrite {
        version: random_version(),
        ..first.clone()
    };
    assert!(
        !written(store, &again).await,
        "a record was made twice: no version check"
    );

    let second = successor(&first);
    write_one(store, &second).await;
    let stale = successor(&first);
    assert!(
        !written(store, &stale).await,
        "a stale version was replaced: no version check"
    );
    let loaded = load_one(store, first.key).await.expect("it was written");
    assert_eq!(loaded.version, second.version);
    assert_same(&loaded.record, &second.record);

    // Like a record that was purged between its load and its write.
    let absent = successor(&new_record());
    assert!(
        !written(store, &absent).await,
        "what was absent was replaced: no version check"
    );
    assert!(load_one(store, absent.key).await.is_none());
}

async fn a_batch_writes_exactly_what_was_as_expected<S: RecordStore>(store: &S) {
    let existing: Vec<RecordWrite> = (0..4).map(|_| new_record()).collect();
    assert_eq!(
        write_records(store, &existing)
            .await
            .expect("a batch works")
            .len(),
        4
    );
    let good = [
        successor(&existing[0]),
        new_record(),
        successor(&existing[1]),
        new_record(),
    ];
    let mut stale = successor(&existing[2]);
    stale.expected = Some(random_version());
    let bad = [
        stale,
        RecordWrite {
            expected: None,
            ..successor(&existing[3])
        },
        successor(&new_record()),
    ];

    let batch: Vec<RecordWrite> = good.iter().chain(&bad).rev().cloned().collect();
    let written = write_records(store, &batch).await.expect("a batch works");
    assert_eq!(
        written,
        good.iter().map(|change| change.key).collect::<HashSet<_>>(),
        "version check"
    );
    for change in &good {
        let loaded = load_one(store, change.key).await.expect("it was written");
        assert_eq!(loaded.version, change.version);
    }
    for (change, unchanged) in bad.iter().zip(&existing[2..]) {
        let loaded = load_one(store, change.key)
            .await
            .expect("it is still there");
        assert_eq!(loaded.version, unchanged.version);
    }
}

async fn batches_of_every_size_are_taken<S: RecordStore>(store: &S) {
    for size in [0, 1, 2, 256, 2_000] {
        let batch: Vec<RecordWrite> = (0..size).map(|_| new_record()).collect();
        let keys: Vec<RecordKey> = batch.iter().map(|change| change.key).collect();
        let written = write_records(store, &batch).await.expect("a batch works");
        assert_eq!(written.len(), size);
        let loaded = store.load(&keys, &[]).await.expect("a batch works").records;
        assert_eq!(loaded.len(), size);
        assert!(
            batch
                .iter()
                .all(|change| loaded[&change.key].version == change.version)
        );
    }
}

/// In each round many writers start from one version. The record shows which of them won, and must
/// agree with their results.
async fn of_racing_writers_one_wins<S: RecordStore>(store: &Arc<S>) {
    const WRITERS: usize = 16;
    const ROUNDS: usize = 20;

    let mut last = new_record();
    last.expected = None;
    for round in 0..ROUNDS {
        let barrier = Arc::new(Barrier::new(WRITERS));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let change = if round == 0 {
                RecordWrite {
                    version: random_version(),
                    ..last.clone()
                }
            } else {
                successor(&last)
            };
            let (store, barrier) = (Arc::clone(store), Arc::clone(&barrier));
            writers.spawn(async move {
                barrier.wait().await;
                (write_unless_conflict(&*store, &change).await, change)
            });
        }
        let winners: Vec<RecordWrite> = writers
            .join_all()
            .await
            .into_iter()
            .filter_map(|(won, change)| won.then_some(change))
            .collect();
        assert_eq!(
            winners.len(),
            1,
            "several writers replaced one version: no version check"
        );
        let loaded = load_one(&**store, last.key).await.expect("it was written");
        assert_eq!(loaded.version, winners[0].version);
        last = winners[0].clone();
    }
}

/// Batches that hold the same keys in opposite orders neither block each other for
/// good nor both win a key.
async fn crossing_batches_lose_nothing<S: RecordStore>(store: &Arc<S>) {
    for _ in 0..20 {
        let existing: Vec<RecordWrite> = (0..32).map(|_| new_record()).collect();
        write_records(&**store, &existing)
            .await
            .expect("a batch works");
        let forwards: Vec<RecordWrite> = existing.iter().map(successor).collect();
        let backwards: Vec<RecordWrite> = existing.iter().rev().map(successor).collect();
        let mut writers = JoinSet::new();
        for batch in [forwards, backwards] {
            let store = Arc::clone(store);
            writers.spawn(async move {
                loop {
                    match write_records(&*store, &batch).await {
                        Ok(written) => return written,
                        Err(StoreError::Conflict(_)) => {}
                        Err(error) => panic!("a batch failed: {error}"),
                    }
                }
            });
        }
        let written: Vec<RecordKey> = writers.join_all().await.into_iter().flatten().collect();
        let distinct: HashSet<&RecordKey> = written.iter().collect();
        assert_eq!(
            written.len(),
            existing.len(),
            "a version was replaced twice, or not at all"
        );
        assert_eq!(distinct.len(), existing.len());
    }
}

async fn only_removable_records_are_purged<S: RecordStore>(store: &S) {
    const NOW: i64 = 100_000_000;
    const HOUR: i64 = 3_600_000;
    let now = Timestamp::from_milliseconds(NOW);
    let removable_at = |milliseconds| RecordWrite {
        removable_at: Timestamp::from_milliseconds(milliseconds),
        ..new_record()
    };
    let past: Vec<RecordWrite> = (0..5).map(|age| removable_at(NOW - age)).collect();
    let future = removable_at(NOW + 1);
    let limit = |milliseconds| new_limit(Timestamp::from_milliseconds(milliseconds));
    let limits = [limit(NOW - HOUR), limit(NOW + 1)];
    let setup = WriteBatch {
        limits: limits.to_vec(),
        ..WriteBatch::default()
    };
    store.write(&setup).await.expect("a write works");
    write_records(store, &past).await.expect("a batch works");
    write_one(store, &future).await;
    // One that was removable, and is used again.
    let mut revived = removable_at(1);
    write_one(store, &revived).await;
    revived = RecordWrite {
        removable_at: future.removable_at,
        ..successor(&revived)
    };
    write_one(store, &revived).await;

    // Two records of five and the one limit that is full; then the other records.
    assert_eq!(store.purge(now, 2).await.expect("a purge works").all(), 3);
    assert_eq!(store.purge(now, 100).await.expect("a purge works").all(), 3);
    assert_eq!(store.purge(now, 100).await.expect("a purge works").all(), 0);
    for change in &past {
        assert!(load_one(store, change.key).await.is_none());
    }
    for change in [&future, &revived] {
        assert!(load_one(store, change.key).await.is_some());
    }
    let left = store
        .load(&[], &limits.map(|limit| limit.key))
        .await
        .expect("a load works")
        .limits;
    assert!(left.len() == 1 && left.contains_key(&limits[1].key));
}

async fn the_clock_goes_with_the_records<S: RecordStore>(store: &S, database: &Database) {
    const HOUR: Duration = Duration::from_hours(1);
    let now = async || {
        store
            .load(&[], &[])
            .await
            .expect("a load works")
            .clock
            .now()
    };

    // A reader's clock never lies before the clock of the writer that it reads.
    let mut change = new_record();
    change.expected = None;
    for _ in 0..200 {
        change.record.written_at = now().await;
        write_one(store, &change).await;
        let snapshot = store.load(&[change.key], &[]).await.expect("a load works");
        assert!(snapshot.records[&change.key].record.written_at <= snapshot.clock.now());
        change = successor(&change);
    }

    let before = now().await;
    database.advance_clock(HOUR).await;
    let moved = before.duration_until(now().await);
    assert!(moved >= HOUR, "the clock moved by {moved:?}");
    database.set_clock_offset(-3_600_000).await;
    assert!(now().await < before);
    database.set_clock_offset(0).await;
}

pub(super) fn random_key() -> RecordKey {
    let mut key = [0; 32];
    os_rng().fill_bytes(&mut key);
    RecordKey(key)
}

pub(super) fn random_version() -> RowVersion {
    RowVersion::random(&mut os_rng())
}

/// A change that makes a record.
pub(super) fn new_record() -> RecordWrite {
    let at = Timestamp::from_milliseconds;
    RecordWrite {
        key: random_key(),
        expected: None,
        version: random_version(),
        removable_at: at(i64::MAX),
        limits: Vec::new(),
        record: Record {
            caller: CallerName::new("caller"),
            purpose: Purpose::default(),
            challenge: Challenge {
                nonce: ChallengeNonce([7; 16]),
                state: ChallengeState::Live(SealedBytes(vec![0, 255, 1])),
                channel: Channel::Sms,
                created_at: at(1),
                expires_at: at(i64::MAX),
                attempts: 0,
                sends: 3,
            },
            sent_at: at(-1),
            failures: FailureCounter {
                count: 99,
                last_at: at(3),
            },
            send_limits: SendLimits {
                hour_full_at: at(4),
                day_full_at: at(5),
            },
            memory: IdempotencyLog::default(),
            written_at: at(2),
        },
    }
}

/// Returns a change that replaces the record of `change`.
pub(super) fn successor(change: &RecordWrite) -> RecordWrite {
    let mut next = RecordWrite {
        expected: Some(change.version),
        ..change.clone()
    };
    next.version = random_version();
    next.record.challenge.attempts += 1;
    next.record.challenge.sends += 1;
    next
}

/// Writes records alone, and returns the keys of those that were.
async fn write_records<S: RecordStore>(
    store: &S,
    records: &[RecordWrite],
) -> Result<HashSet<RecordKey>, StoreError> {
    let changes = WriteBatch {
        records: records.to_vec(),
        ..WriteBatch::default()
    };
    Ok(store.write(&changes).await?.records)
}

async fn written<S: RecordStore>(store: &S, change: &RecordWrite) -> bool {
    let written = write_records(store, std::slice::from_ref(change))
        .await
        .expect("a write works");
    assert!(written.iter().all(|key| *key == change.key));
    !written.is_empty()
}

async fn write_one<S: RecordStore>(store: &S, change: &RecordWrite) {
    assert!(
        written(store, change).await,
        "what was as expected was not written"
    );
}

async fn write_unless_conflict<S: RecordStore>(store: &S, change: &RecordWrite) -> bool {
    match write_records(store, std::slice::from_ref(change)).await {
        Ok(written) => written.contains(&change.key),
        Err(StoreError::Conflict(_)) => false,
        Err(error) => panic!("a write failed: {error}"),
    }
}

async fn load_one<S: RecordStore>(store: &S, key: RecordKey) -> Option<VersionedRecord> {
    store
        .load(&[key], &[])
        .await
        .expect("a load works")
        .records
        .remove(&key)
}

fn assert_same(one: &Record<SealedBytes>, other: &Record<SealedBytes>) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}
