//! From the first request to the end of the writer.

use std::sync::Arc;

use super::*;

#[tokio::test(start_paused = true)]
async fn queue_depth_excludes_requests_in_flight() {
    let fixture = Fixture::held(OPTIONS);
    let first = fixture.count(key(0));
    settle().await;
    let rest: Vec<PendingJob> = (1..=5).map(|byte| fixture.count(key(byte))).collect();
    assert_eq!(fixture.batcher.waiting(), 5);
    fixture.store.let_loads(10);
    fixture.store.let_writes(10);
    first.count().await;
    for pending in rest {
        pending.count().await;
    }
    assert_eq!(fixture.batcher.waiting(), 0);
    assert_eq!(format!("{:?}", fixture.batcher), "BatchClient(1 executors)");
}

#[tokio::test(start_paused = true)]
async fn cancelled_lookup_is_not_sent_to_the_store() {
    let fixture = Fixture::held(OPTIONS);
    let first = fixture.count(key(0));
    settle().await;
    let batcher = fixture.batcher.clone();
    let look = tokio::spawn(async move { batcher.read(key(1)).await });
    settle().await;
    assert_eq!(fixture.batcher.waiting(), 1);
    look.abort();
    drop(look.await);
    fixture.store.let_loads(10);
    fixture.store.let_writes(10);
    first.count().await;
    settle().await;
    assert_eq!(fixture.batcher.waiting(), 0);
    assert_eq!(fixture.store.loads(), [1]);
}

#[tokio::test(start_paused = true)]
async fn batch_writer_stops_after_its_handle_is_dropped_and_work_is_done() {
    let fixture = Fixture::held(OPTIONS);
    let pending = fixture.count(key(1));
    settle().await;
    let Fixture { store, batcher, .. } = fixture;
    drop(batcher);
    settle().await;
    store.let_loads(1);
    store.let_writes(1);
    pending.count().await;
    settle().await;
    assert_eq!(Arc::strong_count(&store), 1, "the writer has its own");
}

#[tokio::test(start_paused = true)]
async fn batches_queue_waits_and_conflicts_are_counted() {
    let fixture = Fixture::held(OPTIONS);
    let first = fixture.count(key(0));
    settle().await;
    let rest = [fixture.count(key(1)), fixture.count(key(2))];
    tokio::time::sleep(Duration::from_millis(20)).await;
    fixture.store.let_loads(10);
    fixture.store.let_writes(10);
    fixture.store.instead_of_a_write(Instead::Overtake(key(0)));
    first.count().await;
    for pending in rest {
        pending.count().await;
    }
    let scrape = fixture.metrics.prometheus().unwrap();
    for line in [
        // The first alone; then the first once more, and the other two.
        "otpd_batch_size_count 2",
        "otpd_batch_size_sum 4.0",
        // Another attempt is no further wait.
        "otpd_queue_wait_seconds_count 3",
        "otpd_queue_wait_seconds_bucket{le=\"0.0005\"} 1",
        "otpd_queue_wait_seconds_bucket{le=\"0.025\"} 3",
        "otpd_batch_conflicts_total 1",
    ] {
        assert!(
            scrape.lines().any(|found| found == line),
            "{line}:\n{scrape}"
        );
    }
}
