//! Requests about rows that another session keeps locked.

use super::*;

fn is_locked<T>(end: &Result<T, BatchError>) -> bool {
    matches!(end, Err(BatchError::Store(StoreError::Locked(_))))
}

/// Ends eight requests about the records 1 to 8, of which those in `locked` must fail.
async fn assert_only_these_fail(fixture: &Fixture, locked: &[u8]) {
    let pending_jobs: Vec<PendingJob> = (1..=8).map(|byte| fixture.count(key(byte))).collect();
    fixture.store.let_loads(100);
    fixture.store.let_writes(100);
    for (byte, pending) in (1..).zip(pending_jobs) {
        let end = pending.end().await;
        if locked.contains(&byte) {
            assert!(is_locked(&end), "{end:?}");
        } else {
            assert_eq!(end.unwrap().count, 1, "{byte}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn locked_rows_delay_the_others_of_their_batch_once() {
    let fixture = Fixture::held(OPTIONS);
    fixture.store.lock(key(3));
    fixture.store.lock(key(5));
    assert_only_these_fail(&fixture, &[3, 5]).await;
    // The free ones go first. One request alone needs no query.
    let loads = [8, 6, 2, 1, 1];
    assert_eq!(fixture.store.loads(), loads);
    assert_eq!(fixture.store.lock_queries(), [8, 2]);

    // The next requests about them wait for no lock.
    for byte in [3, 5, 5, 3] {
        let end = fixture.count(key(byte)).end().await;
        assert!(is_locked(&end), "{end:?}");
        assert_eq!(fixture.store.loads(), loads);
    }
    fixture.store.unlock(key(5));
    assert_eq!(fixture.count(key(5)).count().await, 1);
}

#[tokio::test(start_paused = true)]
async fn row_that_is_being_inserted_is_isolated_by_bisection() {
    let fixture = Fixture::held(OPTIONS);
    fixture.store.lock_as_insert(key(5));
    assert_only_these_fail(&fixture, &[5]).await;
    assert_eq!(fixture.store.loads(), [8, 4, 4, 2, 1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn requests_about_locked_rows_alone_are_isolated_by_bisection() {
    let fixture = Fixture::held(OPTIONS);
    for byte in 1..=8 {
        fixture.store.lock(key(byte));
    }
    // Some of them are being written by another replica, and free at the next attempt.
    let pending_jobs: Vec<PendingJob> = (1..=8).map(|byte| fixture.count(key(byte))).collect();
    fixture.store.let_loads(1);
    fixture.store.let_writes(1);
    settle().await;
    fixture.store.unlock(key(1));
    fixture.store.let_loads(100);
    fixture.store.let_writes(100);
    for (byte, pending) in (1..).zip(pending_jobs) {
        let end = pending.end().await;
        assert_eq!(is_locked(&end), byte != 1, "{byte}: {end:?}");
    }
}
