//! Conformance of a store: shared limits.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use otpd::{
    keys::os_rng,
    store::{
        ExpectedLimit, LimitWrite, RecordStore, RecordWrite, StoreError, VersionedLimit,
        WriteBatch, WriteResult,
    },
};
use otpd_rules::{BatchedLimit, LimitDelta, LimitKey, LimitUpdate, Quota, Timestamp};
use rand::RngExt as _;
use tokio::{sync::Barrier, task::JoinSet};

use super::suite::{new_record, random_key, random_version};

/// Later than any purge of the suite.
const NOW: Timestamp = Timestamp::from_milliseconds(1_000_000_000_000_000);
/// Cells of a limit, of one second each.
const BURST: u32 = 10;

pub(super) async fn run<S: RecordStore>(store: &Arc<S>) {
    updates_follow_the_rule(&**store).await;
    only_an_expected_limit_is_updated(&**store).await;
    racing_charges_all_succeed_while_there_is_room(store).await;
    a_record_waits_for_all_its_limits(&**store).await;
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(milliseconds)
}

/// A change that makes a limit which is full at this instant.
pub(super) fn new_limit(full_at: Timestamp) -> LimitWrite {
    LimitWrite {
        key: LimitKey(random_key().0),
        expected: ExpectedLimit::Absent,
        version: random_version(),
        delta: LimitDelta {
            floor: full_at,
            latest: full_at,
            cost: 0,
        },
    }
}

/// A charge of so many cells at `NOW`.
fn charge(key: LimitKey, cells: u32) -> LimitWrite {
    let rate = Quota::new(BURST, Duration::from_secs(u64::from(BURST))).expect("it is on");
    let mut limit = BatchedLimit::new(NOW);
    for _ in 0..cells {
        limit.update(LimitUpdate::Consume(rate), NOW);
    }
    LimitWrite {
        key,
        expected: ExpectedLimit::Present,
        version: random_version(),
        delta: limit.delta.expect("something is consumed"),
    }
}

async fn write<S: RecordStore>(store: &S, change: LimitWrite) -> WriteResult {
    let alone = WriteBatch {
        limits: vec![change],
        ..WriteBatch::default()
    };
    let written = loop {
        match store.write(&alone).await {
            Err(StoreError::Conflict(_)) => {}
            written => break written.expect("a write works"),
        }
    };
    assert!(written.records.is_empty());
    written
}

async fn load<S: RecordStore>(store: &S, key: LimitKey) -> Option<VersionedLimit> {
    let loaded = store.load(&[], &[key]).await.expect("a load works");
    loaded.limits.get(&key).copied()
}

/// The statement changes a stored state like the pure function.
async fn updates_follow_the_rule<S: RecordStore>(store: &S) {
    let around_now = || at(NOW.milliseconds() + os_rng().random_range(-3..=3));
    for round in 0..200 {
        let first = new_limit(around_now());
        let delta = LimitDelta {
            floor: if round % 4 == 0 {
                at(i64::MIN)
            } else {
                around_now()
            },
            latest: if round % 5 == 0 {
                at(i64::MAX)
            } else {
                around_now()
            },
            cost: os_rng().random_range(-2..=2),
        };
        let second = LimitWrite {
            expected: ExpectedLimit::Present,
            version: random_version(),
            delta,
            ..first
        };
        write(store, first).await;
        let expected = delta.apply(Some(first.delta.floor));
        let written = write(store, second).await;
        assert_eq!(
            written.limits.get(&first.key).copied(),
            expected,
            "no rule of limits: {delta:?} of {:?}",
            first.delta.floor
        );
        let stored = load(store, first.key).await.expect("it exists");
        assert_eq!(stored.full_at, expected.unwrap_or(first.delta.floor));
        let version = if expected.is_some() {
            second.version
        } else {
            first.version
        };
        assert_eq!(
            stored.version, version,
            "replicas of all releases compare versions"
        );

        let delta = LimitDelta {
            floor: around_now(),
            ..delta
        };
        let made = LimitWrite {
            delta,
            ..new_limit(NOW)
        };
        let written = write(store, made).await;
        assert_eq!(
            written.limits.get(&made.key).copied(),
            delta.apply(None),
            "no rule of limits: {delta:?} of a limit that is full"
        );
    }
}

async fn only_an_expected_limit_is_updated<S: RecordStore>(store: &S) {
    let first = new_limit(NOW);
    let change = |expected| LimitWrite {
        expected,
        version: random_version(),
        ..first
    };
    let second = change(ExpectedLimit::Unchanged(first.version));
    let absent = LimitWrite {
        key: new_limit(NOW).key,
        ..change(ExpectedLimit::Present)
    };
    for (change, is_written) in [
        (first, true),
        (change(ExpectedLimit::Absent), false),
        (second, true),
        (change(ExpectedLimit::Unchanged(first.version)), false),
        (absent, false),
    ] {
        let written = write(store, change).await;
        assert_eq!(
            written.limits.contains_key(&change.key),
            is_written,
            "no check of limits: {:?}",
            change.expected
        );
    }
    let loaded = load(store, first.key).await.expect("it was written");
    assert_eq!(loaded.version, second.version);
    assert!(load(store, absent.key).await.is_none());
}

/// Each charge has its own connection: those with room are granted, in any order.
async fn racing_charges_all_succeed_while_there_is_room<S: RecordStore>(store: &Arc<S>) {
    const ROUNDS: usize = 20;
    for round in 0..ROUNDS {
        // As many as there is room for, and more than that.
        let writers = if round % 2 == 0 { BURST } else { 2 * BURST };
        let limit = new_limit(NOW);
        write(&**store, limit).await;
        let barrier = Arc::new(Barrier::new(writers as usize));
        let mut racing = JoinSet::new();
        for _ in 0..writers {
            let (store, barrier) = (Arc::clone(store), Arc::clone(&barrier));
            racing.spawn(async move {
                barrier.wait().await;
                let written = write(&*store, charge(limit.key, 1)).await;
                written.limits.contains_key(&limit.key)
            });
        }
        let granted = racing
            .join_all()
            .await
            .into_iter()
            .filter(|granted| *granted);
        assert_eq!(
            granted.count(),
            BURST as usize,
            "charges race, or exceed the limit"
        );
        let stored = load(&**store, limit.key).await.expect("it exists");
        assert_eq!(
            stored.full_at,
            at(NOW.milliseconds() + i64::from(BURST) * 1_000)
        );
    }
    // An update that does not fit as a whole is not granted in part.
    let limit = new_limit(NOW);
    write(&**store, limit).await;
    write(&**store, charge(limit.key, 8)).await;
    assert!(
        write(&**store, charge(limit.key, 3))
            .await
            .limits
            .is_empty()
    );
    assert!(
        !write(&**store, charge(limit.key, 2))
            .await
            .limits
            .is_empty()
    );
}

async fn a_record_waits_for_all_its_limits<S: RecordStore>(store: &S) {
    let existing = new_limit(NOW);
    let setup = WriteBatch {
        limits: vec![existing],
        ..WriteBatch::default()
    };
    store.write(&setup).await.expect("a write works");

    // One of the limits is shared by two records, and one does not have the expected state.
    let (fresh, other) = (new_limit(NOW), new_limit(NOW));
    let taken = LimitWrite {
        key: existing.key,
        ..new_limit(NOW)
    };
    let paid_with = |limits: &[LimitWrite]| RecordWrite {
        limits: limits.iter().map(|limit| limit.key).collect(),
        ..new_record()
    };
    let blocked = paid_with(&[fresh, taken]);
    let (stranger, sharer, free) = (
        paid_with(&[other]),
        paid_with(&[fresh, other]),
        new_record(),
    );
    let batch = WriteBatch {
        limits: vec![fresh, taken, other],
        records: vec![
            blocked.clone(),
            stranger.clone(),
            sharer.clone(),
            free.clone(),
        ],
        messages: Vec::new(),
    };
    let written = store.write(&batch).await.expect("a batch works");
    assert_eq!(
        written.records,
        HashSet::from([stranger.key, sharer.key, free.key]),
        "a limit was not waited for"
    );
    assert_eq!(
        written.limits,
        HashMap::from([(fresh.key, NOW), (other.key, NOW)])
    );
    let loaded = store
        .load(&[blocked.key, sharer.key], &[fresh.key])
        .await
        .expect("a load works");
    assert_eq!(loaded.records.len(), 1);
    assert_eq!(
        loaded.limits[&fresh.key].version, fresh.version,
        "a written limit stays written"
    );
}
