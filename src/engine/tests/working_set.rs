//! Tests of the working set alone: views, pending writes, commits.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{DecidedWrites, working_set::WorkingSet},
    fixture::{Count, rate},
    memory_store::{at, key, limit, record},
};
use crate::store::{
    ExpectedLimit, LoadedState, RowVersion, StoreClock, VersionedLimit, WriteResult,
};
use otpd_rules::{LimitKey, LimitUpdate, Quota, Timestamp};

const LOADED: RowVersion = RowVersion(1);
/// Later than any test takes.
const LOADED_STATE: Timestamp = at(5_000_000);
const OURS: RowVersion = RowVersion(2);

/// Returns a working set that has loaded the rate limit of 1.
fn working_set() -> WorkingSet {
    let loaded = VersionedLimit {
        version: LOADED,
        full_at: LOADED_STATE,
    };
    let snapshot = LoadedState {
        limits: HashMap::from([(limit(1), loaded)]),
        ..LoadedState::empty(StoreClock::from_reading(at(0), Instant::now()))
    };
    WorkingSet::new(snapshot, OURS)
}

/// Returns a job about the record of 1 and these rate limits.
fn job(limits: &[u8]) -> Count {
    let mut count = Count::of(key(1));
    count.limits = limits.iter().copied().map(limit).collect();
    count
}

fn consume(byte: u8) -> (LimitKey, LimitUpdate) {
    (limit(byte), LimitUpdate::Consume(rate()))
}

#[test]
fn limit_view_has_pending_value_and_loaded_version() {
    let mut working_set = working_set();
    assert_eq!(working_set.view().limit(&limit(1)), Some(LOADED_STATE));
    assert_eq!(working_set.view().limit(&limit(2)), None);
    let now = working_set.view().now();
    let change = DecidedWrites {
        limits: vec![consume(1), consume(2), consume(2)],
        ..DecidedWrites::default()
    };
    working_set.apply(key(1), change);
    for (number, seconds, loaded) in [(1, 1, Some(LOADED)), (2, 2, None)] {
        let base = if number == 1 { LOADED_STATE } else { now };
        let full_at = base.saturating_add(Duration::from_secs(seconds));
        assert_eq!(working_set.view().limit(&limit(number)), Some(full_at));
        assert_eq!(working_set.view().loaded_limit(&limit(number)), loaded);
    }
    let (mut changes, _) = working_set.into_write_batch();
    changes.limits.sort_unstable_by_key(|change| change.key);
    let expected: Vec<_> = changes
        .limits
        .iter()
        .map(|change| change.expected)
        .collect();
    assert_eq!(expected, [ExpectedLimit::Present, ExpectedLimit::Absent]);
    assert_eq!(changes.limits[1].delta.cost, 2_000);
}

#[test]
fn limit_is_clamped_only_if_unchanged_since_load() {
    let mut working_set = working_set();
    let narrow = Quota::new(1, Duration::from_millis(1)).expect("it is on");
    let clamp = |working_set: &mut WorkingSet| {
        let change = DecidedWrites {
            limits: vec![(limit(1), LimitUpdate::Clamp(narrow))],
            ..DecidedWrites::default()
        };
        working_set.apply(key(1), change);
    };
    clamp(&mut working_set);
    let full_at = working_set.view().limit(&limit(1));
    clamp(&mut working_set);
    assert_eq!(working_set.view().limit(&limit(1)), full_at);
    let (changes, _) = working_set.into_write_batch();
    assert_eq!(changes.limits[0].expected, ExpectedLimit::Unchanged(LOADED));
}

#[test]
fn decision_depends_on_pending_writes_of_its_record_and_limits() {
    let mut working_set = working_set();
    assert!(!working_set.is_pending(&job(&[1])));
    let change = DecidedWrites {
        limits: vec![consume(2)],
        ..DecidedWrites::default()
    };
    working_set.apply(key(1), change);
    assert!(!working_set.is_pending(&job(&[])));
    assert!(!working_set.is_pending(&job(&[1])));
    assert!(working_set.is_pending(&job(&[1, 2])));
    let change = DecidedWrites {
        record: Some((record(1), at(0))),
        ..DecidedWrites::default()
    };
    working_set.apply(key(1), change);
    assert!(working_set.is_pending(&job(&[])));
}

#[test]
fn decision_commits_once_all_its_dependencies_are_written() {
    let mut working_set = working_set();
    let change = DecidedWrites {
        record: Some((record(1), at(0))),
        limits: vec![consume(2)],
        message: None,
    };
    working_set.apply(key(1), change);
    let (_, pending) = working_set.into_write_batch();
    let written = |records: &[u8], limits: &[u8]| WriteResult {
        records: records.iter().copied().map(key).collect(),
        limits: limits.iter().map(|byte| (limit(*byte), at(7))).collect(),
        messages: HashSet::new(),
    };
    // Of the limit of 1 nothing was to be written.
    let job = job(&[1, 2]);
    assert!(pending.is_satisfied(&job, &written(&[1], &[2])));
    assert!(!pending.is_satisfied(&job, &written(&[1], &[])));
    assert!(!pending.is_satisfied(&job, &written(&[], &[2])));
}
