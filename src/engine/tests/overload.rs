//! More requests than the store takes.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{BatchError, BatchOptions},
    fixture::{Count, Fixture, OPTIONS, PendingJob},
    memory_store::{Instead, key},
    settle,
};
use otpd_rules::CallerName;

/// How long the store takes for a batch, of [`OPTIONS`]' eight: a hundred requests a second.
const BATCH: Duration = Duration::from_millis(80);
const CAPACITY: u32 = 100;

fn slow(options: BatchOptions) -> Fixture {
    let fixture = Fixture::new(options);
    fixture.store.let_loads(10_000);
    fixture.store.let_writes(10_000);
    fixture.store.slow_down(BATCH);
    fixture
}

/// A request of its own record.
fn request(number: u32, caller: &str, patience: Duration) -> Count {
    let mut key = key(0);
    key.0[..4].copy_from_slice(&number.to_be_bytes());
    let mut count = Count::of(key);
    count.caller = CallerName::new(caller);
    count.patience = patience;
    count
}

fn is_refused(pending: &mut PendingJob) -> bool {
    pending.has_ended()
}

/// Submits `per_second` requests a second for so many seconds; returns those that were
/// not refused at once, and how many were.
async fn flood(fixture: &Fixture, per_second: u32, seconds: u32) -> (Vec<PendingJob>, u32) {
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for number in 0..per_second * seconds {
        let mut pending = fixture.submit(request(number, "loud", Duration::from_secs(1)));
        if is_refused(&mut pending) {
            refused += 1;
        } else {
            accepted.push(pending);
        }
        tokio::time::sleep(Duration::from_secs(1) / per_second).await;
    }
    (accepted, refused)
}

#[tokio::test(start_paused = true)]
async fn overload_throughput_matches_store_capacity() {
    const SECONDS: u32 = 10;
    let fixture = slow(OPTIONS);
    let (accepted, refused) = flood(&fixture, 5 * CAPACITY, SECONDS).await;
    let count = u32::try_from(accepted.len()).unwrap();
    assert!(count >= CAPACITY * SECONDS * 9 / 10, "{count} of {refused}");
    assert!(count <= CAPACITY * (SECONDS + 1), "{count} of {refused}");
    for pending in accepted {
        pending.count().await;
    }
    // And after it everything is as before.
    let start = Instant::now();
    fixture
        .submit(request(1 << 30, "loud", BATCH))
        .count()
        .await;
    assert_eq!(start.elapsed(), BATCH);
}

#[tokio::test(start_paused = true)]
async fn light_caller_waits_little_during_overload() {
    let fixture = slow(OPTIONS);
    let quiet = async {
        let mut longest = Duration::ZERO;
        for number in 0..30 {
            let start = Instant::now();
            let one = request((1 << 30) + number, "quiet", Duration::from_secs(1));
            fixture.submit(one).count().await;
            longest = longest.max(start.elapsed());
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
        longest
    };
    let ((accepted, refused), longest) = tokio::join!(flood(&fixture, 5 * CAPACITY, 5), quiet);
    assert!(refused > CAPACITY && accepted.len() > 100);
    // The rest of the batch in progress, and its own one.
    assert!(longest <= 2 * BATCH, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn request_beyond_max_queue_wait_is_shed_with_retry_after() {
    let fixture = slow(OPTIONS);
    fixture.submit(request(0, "loud", BATCH)).count().await;
    settle().await;
    // The pace is known by half: 40 ms. One batch goes, one is full.
    let patient = |number| request(number, "loud", Duration::from_secs(1));
    let mut waiting = vec![fixture.submit(patient(1))];
    settle().await;
    waiting.extend((2..10).map(|number| fixture.submit(patient(number))));
    let hasty = fixture.submit(request(100, "loud", Duration::from_millis(118)));
    let Err(BatchError::Full { wait }) = hasty.end().await else {
        panic!("it would be answered too late");
    };
    assert_eq!(wait, Duration::from_millis(119));
    waiting.push(fixture.submit(request(101, "loud", Duration::from_millis(119))));
    for pending in waiting {
        pending.count().await;
    }
}

#[tokio::test(start_paused = true)]
async fn queue_wait_never_exceeds_its_maximum() {
    let fixture = slow(BatchOptions {
        max_queue_wait: Duration::from_millis(200),
        ..OPTIONS
    });
    for number in 0..10 {
        fixture.submit(request(number, "loud", BATCH)).count().await;
    }
    let patience = Duration::from_mins(1);
    let first = fixture.submit(request(100, "loud", patience));
    settle().await;
    let mut pending_jobs: Vec<PendingJob> = (0..50)
        .map(|number| fixture.submit(request(200 + number, "loud", patience)))
        .collect();
    let accepted: Vec<bool> = pending_jobs
        .iter_mut()
        .map(|pending| !is_refused(pending))
        .collect();
    // Three batches, of which the last one waits for two.
    assert_eq!(accepted, [vec![true; 24], vec![false; 26]].concat());
    first.count().await;
}

#[tokio::test(start_paused = true)]
async fn one_slow_batch_does_not_shed_all_requests() {
    let fixture = Fixture::new(OPTIONS);
    fixture.store.instead_of_a_load(Instead::Hang);
    fixture
        .submit(request(0, "loud", Duration::from_secs(9)))
        .end()
        .await
        .unwrap_err();
    fixture.store.slow_down(OPTIONS.timeout * 9 / 10);
    fixture
        .submit(request(1, "loud", Duration::from_secs(9)))
        .count()
        .await;
    fixture.store.slow_down(Duration::from_millis(1));
    for number in 2..20 {
        let hasty = request(number, "loud", Duration::from_millis(10));
        fixture.submit(hasty).count().await;
    }
    // By now two at once are in time, too.
    let first = fixture.submit(request(20, "loud", Duration::from_millis(10)));
    settle().await;
    let second = fixture.submit(request(21, "loud", Duration::from_millis(10)));
    first.count().await;
    second.count().await;
}

#[tokio::test(start_paused = true)]
async fn request_at_exactly_max_queue_wait_is_admitted() {
    // The average after one batch: half of its duration, because it was zero before.
    let pace = BATCH / 2;
    let shorter = pace.saturating_sub(Duration::from_millis(1));
    for (max_queue_wait, is_let_in) in [(pace, true), (shorter, false)] {
        let fixture = slow(BatchOptions {
            max_queue_wait,
            ..OPTIONS
        });
        let patient = |number| fixture.submit(request(number, "loud", Duration::from_mins(1)));
        patient(0).count().await;
        let _under_way = patient(1);
        settle().await;
        let mut waiting: Vec<PendingJob> = (2..=9).map(patient).collect();
        assert!(!waiting.iter_mut().any(is_refused));
        assert_eq!(fixture.batcher.waiting(), OPTIONS.max_batch);
        let mut last = patient(10);
        assert_eq!(!is_refused(&mut last), is_let_in, "{max_queue_wait:?}");
    }
}
