//! Tests under paused time: a wait for the clock fails at once, or passes at once.

mod fair_queue;
mod fixture;
mod locked_rows;
mod memory_store;
mod messages;
mod overload;
mod rate_limits;
mod shutdown;
mod working_set;

use std::time::Duration;

use tokio::{task::JoinHandle, time::Instant};

use super::{
    BatchError, BatchOptions, ReadResult, executor::MAX_CONFLICT_RETRIES,
    queued_job::MAX_UNKNOWN_OUTCOMES,
};
use crate::store::StoreError;
use fixture::{Count, Fixture, OPTIONS, PendingJob};
use memory_store::{Instead, key, settlement, unavailable};
use otpd_rules::{MessageId, RecordKey};

#[tokio::test(start_paused = true)]
async fn single_request_is_not_delayed() {
    let fixture = Fixture::new(OPTIONS);
    let start = Instant::now();
    assert_eq!(fixture.count(key(1)).count().await, 1);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(fixture.store.loads(), [1]);
    assert_eq!(fixture.store.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_during_a_batch_join_the_next_batches() {
    let fixture = Fixture::held(OPTIONS);
    let first = fixture.count(key(0));
    settle().await;
    let rest: Vec<PendingJob> = (1..=20).map(|byte| fixture.count(key(byte))).collect();
    fixture.store.let_loads(10);
    fixture.store.let_writes(10);
    assert_eq!(first.count().await, 1);
    for pending in rest {
        assert_eq!(pending.count().await, 1);
    }
    assert_eq!(fixture.store.loads(), [1, 8, 8, 4]);
    let writes = fixture.store.writes();
    let records: Vec<usize> = writes.iter().map(|write| write.records.len()).collect();
    assert_eq!(records, [1, 8, 8, 4]);
}

#[tokio::test(start_paused = true)]
async fn requests_for_one_record_are_decided_in_sequence_in_memory() {
    let fixture = Fixture::held(OPTIONS);
    let pending_jobs: Vec<PendingJob> = (0..8).map(|_| fixture.count(key(1))).collect();
    fixture.store.let_loads(1);
    fixture.store.let_writes(1);
    let mut counts = Vec::new();
    for pending in pending_jobs {
        counts.push(pending.count().await);
    }
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(fixture.store.counted(key(1)), 8);
    assert_eq!(fixture.store.loads(), [1]);
    assert_eq!(fixture.store.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn version_conflict_is_retried_on_fresh_state() {
    let fixture = Fixture::new(OPTIONS);
    fixture.store.instead_of_a_write(Instead::Overtake(key(1)));
    let (loser, other) = (fixture.count(key(1)), fixture.count(key(2)));
    let counted = loser.end().await.unwrap();
    assert_eq!((counted.count, counted.tries), (101, 2));
    assert_eq!(other.end().await.unwrap().tries, 1);
    assert_eq!(fixture.store.counted(key(1)), 101);
}

#[tokio::test(start_paused = true)]
async fn persistent_conflict_returns_contention_error() {
    let fixture = Fixture::new(OPTIONS);
    for _ in 0..MAX_CONFLICT_RETRIES {
        fixture.store.instead_of_a_write(Instead::Overtake(key(1)));
    }
    let end = fixture.count(key(1)).end().await;
    assert!(matches!(end, Err(BatchError::ContentionLimit)), "{end:?}");
    assert_eq!(fixture.store.loads().len(), MAX_CONFLICT_RETRIES as usize);
    // A conflict of the database is a lost race as well, at the load and at the write.
    let conflict = || Instead::Fail(StoreError::Conflict("deadlock".to_owned()));
    fixture.store.instead_of_a_load(conflict());
    fixture.store.instead_of_a_write(conflict());
    assert_eq!(fixture.count(key(2)).end().await.unwrap().tries, 2);
}

#[tokio::test(start_paused = true)]
async fn dependent_decision_is_retried_after_conflict() {
    let fixture = Fixture::held(OPTIONS);
    let first = fixture.count(key(0));
    settle().await;
    // These two are in one batch.
    let count = fixture.count(key(1));
    let mut look = Count::of(key(1));
    look.looks = true;
    let look = fixture.submit(look);
    settle().await;
    fixture.store.let_loads(1);
    fixture.store.let_writes(1);
    assert_eq!(first.count().await, 1);
    fixture.store.instead_of_a_write(Instead::Overtake(key(1)));
    fixture.store.let_loads(2);
    fixture.store.let_writes(2);
    assert_eq!(count.count().await, 101);
    assert_eq!(look.count().await, 101);
    assert_eq!(fixture.store.loads(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn independent_decision_does_not_wait_for_the_write() {
    let fixture = Fixture::held(OPTIONS);
    let first = fixture.count(key(0));
    settle().await;
    let mut count = fixture.count(key(1));
    let look = look(&fixture, key(2));
    settle().await;
    fixture.store.let_loads(2);
    fixture.store.let_writes(1);
    assert_eq!(first.count().await, 1);
    assert!(look.await.unwrap().unwrap().record.is_none());
    assert!(fixture.store.message_loads().is_empty());
    assert!(!count.has_ended(), "acknowledged before the commit");
    fixture.store.let_writes(1);
    assert_eq!(count.count().await, 1);
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_queue_size_are_shed_at_once() {
    let fixture = Fixture::held(BatchOptions {
        queue_size: 3,
        ..OPTIONS
    });
    let first = fixture.count(key(0));
    settle().await;
    let waiting: Vec<PendingJob> = (1..=3).map(|byte| fixture.count(key(byte))).collect();
    for _ in 0..2 {
        let refused = fixture.count(key(4)).end().await;
        assert!(
            matches!(refused, Err(BatchError::Full { .. })),
            "{refused:?}"
        );
    }
    // A read and a message update are work of otpd itself, and wait for the next batch.
    let id = MessageId([1; 16]);
    let version = fixture.store.add_message(id);
    let batcher = fixture.batcher.clone();
    let patient = tokio::spawn(async move {
        let settled = batcher.update_message(settlement(id, version, -1)).await;
        (batcher.read(key(1)).await, settled)
    });
    settle().await;
    fixture.store.let_loads(10);
    fixture.store.let_writes(10);
    assert_eq!(first.count().await, 1);
    for pending in waiting {
        assert_eq!(pending.count().await, 1);
    }
    let (seen, settled) = patient.await.unwrap();
    assert!(seen.unwrap().record.is_some());
    assert!(settled.unwrap());
}

/// Makes one batch of eight requests, and checks that the one about the fifth record ends as
/// corrupt and all others succeed.
async fn assert_only_the_fifth_of_eight_fails(fixture: &Fixture) {
    let pending_jobs: Vec<PendingJob> = (1..=8).map(|byte| fixture.count(key(byte))).collect();
    fixture.store.let_loads(100);
    fixture.store.let_writes(100);
    for (byte, pending) in (1..).zip(pending_jobs) {
        let end = pending.end().await;
        if byte == 5 {
            let refused = matches!(end, Err(BatchError::Store(StoreError::Corrupt(_))));
            assert!(refused, "{end:?}");
        } else {
            assert_eq!(end.unwrap().count, 1, "{byte}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unreadable_record_fails_only_its_own_requests() {
    let fixture = Fixture::held(OPTIONS);
    fixture.store.garble(key(5));
    assert_only_the_fifth_of_eight_fails(&fixture).await;
    assert_eq!(fixture.store.loads(), [8], "and costs the others nothing");
}

#[tokio::test(start_paused = true)]
async fn poison_request_is_isolated_by_bisection() {
    let fixture = Fixture::held(OPTIONS);
    fixture.store.poison(key(5));
    assert_only_the_fifth_of_eight_fails(&fixture).await;
    // Halved until it is alone: 8, 4, 4, 2, 2, 1, 1.
    assert_eq!(fixture.store.loads(), [8, 4, 4, 2, 1, 1, 2]);

    // The same if only the write is refused.
    let fixture = Fixture::held(OPTIONS);
    let refusal = || Instead::Fail(StoreError::Refused("check".to_owned()));
    fixture.store.instead_of_a_write(refusal());
    fixture.store.instead_of_a_write(refusal());
    let (bad, good) = (fixture.count(key(1)), fixture.count(key(2)));
    fixture.store.let_loads(10);
    fixture.store.let_writes(10);
    let end = bad.end().await;
    assert!(
        matches!(end, Err(BatchError::Store(StoreError::Refused(_)))),
        "{end:?}"
    );
    assert_eq!(good.count().await, 1);
}

#[tokio::test(start_paused = true)]
async fn panic_fails_only_one_request() {
    std::panic::set_hook(Box::new(|_| {}));
    let fixture = Fixture::held(OPTIONS);
    let first = fixture.count(key(1));
    let mut panics = Count::of(key(1));
    panics.panics = true;
    let panics = fixture.submit(panics);
    let mut late = Count::of(key(1));
    late.panics_at_the_end = true;
    let late = fixture.submit(late);
    let last = fixture.count(key(1));
    fixture.store.let_loads(2);
    fixture.store.let_writes(2);
    assert_eq!(first.count().await, 1);
    assert!(matches!(panics.end().await, Err(BatchError::Panicked)));
    drop(late);
    assert_eq!(last.count().await, 3);
    assert_eq!(fixture.count(key(1)).count().await, 4);
}

#[tokio::test(start_paused = true)]
async fn unknown_commit_outcome_is_resolved_on_retry() {
    let fixture = Fixture::new(OPTIONS);
    fixture.store.instead_of_a_write(Instead::DoAndFail);
    let counted = fixture.count(key(1)).end().await.unwrap();
    // A rule would find its own answer; this one counts once more.
    assert_eq!((counted.count, counted.doubts), (2, 1));

    // A message update fails with an unknown outcome: its dispatcher repeats it.
    let id = MessageId([1; 16]);
    let version = fixture.store.add_message(id);
    fixture.store.instead_of_a_write(Instead::DoAndFail);
    let end = fixture
        .batcher
        .update_message(settlement(id, version, -1))
        .await;
    assert!(
        matches!(end, Err(BatchError::Store(StoreError::Unavailable(_)))),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn store_failure_or_timeout_fails_one_batch() {
    let fixture = Fixture::new(OPTIONS);
    fixture
        .store
        .instead_of_a_load(Instead::Fail(unavailable()));
    fixture.store.instead_of_a_load(Instead::Hang);
    let start = Instant::now();
    for waited in [Duration::ZERO, OPTIONS.timeout] {
        let end = fixture.count(key(1)).end().await;
        assert!(
            matches!(end, Err(BatchError::Store(StoreError::Unavailable(_)))),
            "{end:?}"
        );
        assert_eq!(start.elapsed(), waited);
    }
    assert_eq!(fixture.count(key(1)).count().await, 1);

    fixture.store.instead_of_a_write(Instead::Hang);
    let counted = fixture.count(key(1)).end().await.unwrap();
    assert_eq!((counted.count, counted.doubts), (2, 1));
}

/// A full disk takes no write, however often it is asked.
#[tokio::test(start_paused = true)]
async fn persistent_write_failure_returns_store_unavailable() {
    let fixture = Fixture::new(OPTIONS);
    for _ in 0..=MAX_UNKNOWN_OUTCOMES {
        let full = Instead::Fail(unavailable());
        fixture.store.instead_of_a_write(full);
    }
    let end = fixture.count(key(1)).end().await;
    assert!(
        matches!(end, Err(BatchError::Store(StoreError::Unavailable(_)))),
        "{end:?}"
    );
    assert_eq!(fixture.count(key(1)).count().await, 1);
}

#[tokio::test(start_paused = true)]
async fn cancelled_request_is_skipped() {
    let fixture = Fixture::held(OPTIONS);
    let first = fixture.count(key(1));
    settle().await;
    drop(fixture.count(key(2)));
    let last = fixture.count(key(3));
    fixture.store.let_loads(10);
    fixture.store.let_writes(10);
    assert_eq!(first.count().await, 1);
    assert_eq!(last.count().await, 1);
    assert_eq!(fixture.store.counted(key(2)), 0);
}

#[tokio::test(start_paused = true)]
async fn message_updates_join_a_write_without_a_load() {
    let fixture = Fixture::new(OPTIONS);
    let id = MessageId([1; 16]);
    let version = fixture.store.add_message(id);
    let settle = |version, next| {
        fixture
            .batcher
            .update_message(settlement(id, version, next))
    };
    // Two of one message: the first wins, the other one is not even in its batch.
    let (first, second) = tokio::join!(settle(version, -1), settle(version, -2));
    assert_eq!((first.unwrap(), second.unwrap()), (true, false));
    assert!(fixture.store.loads().is_empty());
    assert_eq!(fixture.store.writes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn batch_writers_partition_work_by_record() {
    let fixture = Fixture::held(BatchOptions {
        batch_writers: 2,
        ..OPTIONS
    });
    let even: Vec<PendingJob> = (0..4).map(|_| fixture.count(key(2))).collect();
    let odd: Vec<PendingJob> = (0..4).map(|_| fixture.count(key(3))).collect();
    fixture.store.let_loads(2);
    fixture.store.let_writes(2);
    for pending_jobs in [even, odd] {
        let mut counts = Vec::new();
        for pending in pending_jobs {
            counts.push(pending.count().await);
        }
        assert_eq!(counts, [1, 2, 3, 4]);
    }
    assert_eq!(fixture.store.loads(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn submitted_requests_finish_after_the_executor_is_dropped() {
    let fixture = Fixture::held(OPTIONS);
    let pending_jobs: Vec<PendingJob> = (1..=20).map(|byte| fixture.count(key(byte))).collect();
    fixture.store.let_loads(10);
    fixture.store.let_writes(10);
    drop(fixture.batcher);
    for pending in pending_jobs {
        assert_eq!(pending.count().await, 1);
    }
}

fn look(fixture: &Fixture, key: RecordKey) -> JoinHandle<Result<ReadResult, BatchError>> {
    let batcher = fixture.batcher.clone();
    tokio::spawn(async move { batcher.read(key).await })
}

/// Lets everything go as far as it goes: paused time moves on only when nothing else can
/// be done.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
