//! Tests of the fair queue alone.

use super::super::fair_queue::FairQueue;
use otpd_rules::CallerName;

#[test]
fn callers_take_turns_and_priority_items_go_first() {
    let caller = |name: &str| CallerName::new(name);
    let mut queue = FairQueue::new(100);
    for number in 0..5 {
        assert_eq!(queue.push(&caller("a"), ("a", number)), None);
    }
    for number in 0..2 {
        assert_eq!(queue.push(&caller("b"), ("b", number)), None);
    }
    assert_eq!(queue.position_of(&caller("a")), 5 + 2);
    assert_eq!(queue.position_of(&caller("b")), 2 + 3);
    assert_eq!(queue.position_of(&caller("c")), 1 + 1);
    queue.push_priority(("own", 0));
    assert_eq!(queue.position_of(&caller("c")), 3);
    let mut batch = Vec::new();
    queue.pop_batch(4, &mut batch);
    assert_eq!(batch, [("own", 0), ("a", 0), ("b", 0), ("a", 1)]);
    assert_eq!(queue.push(&caller("c"), ("c", 0)), None);
    batch.clear();
    queue.pop_batch(100, &mut batch);
    assert_eq!(batch, [("b", 1), ("a", 2), ("c", 0), ("a", 3), ("a", 4)]);
    batch.clear();
    queue.pop_batch(1, &mut batch);
    assert!(batch.is_empty());
}

#[test]
fn full_queue_evicts_from_the_longest_lane() {
    let caller = |name: &str| CallerName::new(name);
    let mut queue = FairQueue::new(4);
    for number in 0..4 {
        assert_eq!(queue.push(&caller("a"), ("a", number)), None);
    }
    assert_eq!(queue.push(&caller("a"), ("a", 4)), Some(("a", 4)));
    assert_eq!(queue.push(&caller("b"), ("b", 0)), Some(("a", 3)));
    assert_eq!(queue.push(&caller("b"), ("b", 1)), Some(("a", 2)));
    // Now both have as many.
    assert_eq!(queue.push(&caller("b"), ("b", 2)), Some(("b", 2)));
    assert_eq!(queue.push(&caller("a"), ("a", 5)), Some(("a", 5)));
    assert_eq!(queue.len(), 4);
    // Work of otpd itself has no bound here.
    queue.push_priority(("own", 0));
    queue.push_priority(("own", 1));
    assert_eq!(queue.len(), 6);
    let mut batch = Vec::new();
    queue.pop_batch(100, &mut batch);
    assert_eq!(
        batch,
        [
            ("own", 0),
            ("own", 1),
            ("a", 0),
            ("b", 0),
            ("a", 1),
            ("b", 1)
        ]
    );
    assert_eq!(queue.len(), 0);
}

#[test]
fn eviction_requires_a_strictly_shorter_lane() {
    let caller = |name: &str| CallerName::new(name);
    let mut queue = FairQueue::new(3);
    for (name, number) in [("a", 0), ("a", 1), ("b", 0)] {
        assert_eq!(queue.push(&caller(name), (name, number)), None);
    }
    assert_eq!(queue.push(&caller("b"), ("b", 1)), Some(("b", 1)));
    assert_eq!(queue.push(&caller("c"), ("c", 0)), Some(("a", 1)));
}
