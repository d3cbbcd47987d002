//! Limits that jobs share with each other and with other replicas.

use super::{memory_store::limit, *};

#[tokio::test(start_paused = true)]
async fn shared_limit_is_charged_once_per_request() {
    let fixture = Fixture::held(OPTIONS);
    let charging = |byte| {
        let mut count = Count::of(key(byte));
        count.limits = vec![limit(1), limit(byte)];
        fixture.submit(count)
    };
    let pending_jobs: Vec<PendingJob> = (2..=7).map(charging).collect();
    fixture.store.let_loads(1);
    fixture.store.let_writes(1);
    for pending in pending_jobs {
        assert_eq!(pending.count().await, 1);
    }
    assert_eq!(fixture.store.charged(limit(1)), 6);
    assert_eq!(fixture.store.charged(limit(3)), 1);
}

#[tokio::test(start_paused = true)]
async fn charge_commutes_with_charges_of_other_replicas() {
    let fixture = Fixture::new(OPTIONS);
    let charge = |byte| {
        let mut count = Count::of(key(byte));
        count.limits = vec![limit(1)];
        fixture.submit(count).end()
    };
    charge(1).await.unwrap();
    fixture
        .store
        .instead_of_a_write(Instead::ChargeLimit(limit(1)));
    assert_eq!(charge(2).await.unwrap().tries, 1);
    assert_eq!(fixture.store.charged(limit(1)), 102);
}

#[tokio::test(start_paused = true)]
async fn limit_charge_is_remembered_after_conflict() {
    let fixture = Fixture::new(OPTIONS);
    let mut count = Count::of(key(1));
    count.limits = vec![limit(1), limit(2)];
    fixture
        .store
        .instead_of_a_write(Instead::ChargeLimit(limit(2)));
    let counted = fixture.submit(count).end().await.unwrap();
    assert_eq!(counted.tries, 2);
    assert_eq!(counted.paid, [limit(1)].into());

    // No record is written without all charges for it in its batch.
    let fixture = Fixture::held(OPTIONS);
    fixture
        .store
        .instead_of_a_write(Instead::ChargeLimit(limit(2)));
    let charging = |byte| {
        let mut count = Count::of(key(1));
        count.limits = vec![limit(byte)];
        fixture.submit(count)
    };
    let (first, second) = (charging(1), charging(2));
    fixture.store.let_loads(2);
    fixture.store.let_writes(2);
    assert_eq!(first.end().await.unwrap().paid, [limit(1)].into());
    assert_eq!(second.end().await.unwrap().tries, 2);
    assert_eq!(fixture.store.counted(key(1)), 2);
}
