//! From the first request to the end of the writer.

use std::sync::Arc;

use super::*;

#[tokio::test(start_paused = true)]
async fn queue_depth_excludes_requests_in_flight() {
    let world = World::held(OPTIONS);
    let first = world.count(key(0));
    settle().await;
    let rest: Vec<Ticket> = (1..=5).map(|byte| world.count(key(byte))).collect();
    assert_eq!(world.batcher.waiting(), 5);
    world.store.let_loads(10);
    world.store.let_writes(10);
    first.count().await;
    for ticket in rest {
        ticket.count().await;
    }
    assert_eq!(world.batcher.waiting(), 0);
    assert_eq!(format!("{:?}", world.batcher), "BatchClient(1 executors)");
}

#[tokio::test(start_paused = true)]
async fn cancelled_lookup_is_not_sent_to_the_store() {
    let world = World::held(OPTIONS);
    let first = world.count(key(0));
    settle().await;
    let batcher = world.batcher.clone();
    let look = tokio::spawn(async move { batcher.read(key(1)).await });
    settle().await;
    assert_eq!(world.batcher.waiting(), 1);
    look.abort();
    drop(look.await);
    world.store.let_loads(10);
    world.store.let_writes(10);
    first.count().await;
    settle().await;
    assert_eq!(world.batcher.waiting(), 0);
    assert_eq!(world.store.loads(), [1]);
}

#[tokio::test(start_paused = true)]
async fn batch_writer_stops_after_its_handle_is_dropped_and_work_is_done() {
    let world = World::held(OPTIONS);
    let ticket = world.count(key(1));
    settle().await;
    let World { store, batcher, .. } = world;
    drop(batcher);
    settle().await;
    store.let_loads(1);
    store.let_writes(1);
    ticket.count().await;
    settle().await;
    assert_eq!(Arc::strong_count(&store), 1, "the writer has its own");
}

#[tokio::test(start_paused = true)]
async fn batches_queue_waits_and_conflicts_are_counted() {
    let world = World::held(OPTIONS);
    let first = world.count(key(0));
    settle().await;
    let rest = [world.count(key(1)), world.count(key(2))];
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.store.let_loads(10);
    world.store.let_writes(10);
    world.store.instead_of_a_write(Instead::Overtake(key(0)));
    first.count().await;
    for ticket in rest {
        ticket.count().await;
    }
    let told = world.metrics.prometheus().unwrap();
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
        assert!(told.lines().any(|told| told == line), "{line}:\n{told}");
    }
}
