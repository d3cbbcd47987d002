//! The board by itself: what is seen, what is pending, what stands.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::{
    super::{Change, Written, board::Board},
    store::{at, key, limit, record},
    world::Count,
};
use crate::store::{Clock, Snapshot, Version, VersionedLimit};

const LOADED: Version = Version(1);
const OURS: Version = Version(2);

/// A board that has loaded the limit of 1.
fn board() -> Board {
    let loaded = VersionedLimit {
        version: LOADED,
        full_at: at(5),
    };
    let snapshot = Snapshot {
        clock: Clock::read_now(at(0), Instant::now()),
        records: HashMap::new(),
        limits: HashMap::from([(limit(1), loaded)]),
    };
    Board::new(snapshot, OURS)
}

/// A job about the record of 1 and these limits.
fn job(limits: &[u8]) -> Count {
    let mut count = Count::of(key(1));
    count.limits = limits.iter().copied().map(limit).collect();
    count
}

#[test]
fn a_limit_is_seen_with_the_version_that_it_will_have() {
    let mut board = board();
    let seen = board.view().limit(&limit(1)).unwrap();
    assert_eq!((seen.version, seen.full_at), (LOADED, at(5)));
    assert!(board.view().limit(&limit(2)).is_none());
    let change = Change {
        limits: vec![(limit(1), at(6)), (limit(2), at(7))],
        ..Change::default()
    };
    board.apply(Some(key(1)), change);
    for (number, full_at) in [(1, at(6)), (2, at(7))] {
        let seen = board.view().limit(&limit(number)).unwrap();
        assert_eq!((seen.version, seen.full_at), (OURS, full_at));
    }
}

#[test]
fn a_decision_waits_for_what_was_changed_of_its_record_and_its_limits() {
    let mut board = board();
    assert!(!board.is_pending(&job(&[1])));
    let change = Change {
        limits: vec![(limit(2), at(7))],
        ..Change::default()
    };
    board.apply(Some(key(1)), change);
    assert!(!board.is_pending(&job(&[])));
    assert!(!board.is_pending(&job(&[1])));
    assert!(board.is_pending(&job(&[1, 2])));
    let change = Change {
        record: Some((record(1), at(0))),
        ..Change::default()
    };
    board.apply(Some(key(1)), change);
    assert!(board.is_pending(&job(&[])));
}

#[test]
fn a_decision_stands_once_all_of_it_that_was_to_be_written_is() {
    let mut board = board();
    let change = Change {
        record: Some((record(1), at(0))),
        limits: vec![(limit(2), at(7))],
        message: None,
    };
    board.apply(Some(key(1)), change);
    let (_, pending) = board.close();
    let written = |records: &[u8], limits: &[u8]| Written {
        records: records.iter().copied().map(key).collect(),
        limits: limits.iter().copied().map(limit).collect(),
        messages: HashSet::new(),
    };
    // Of the limit of 1 nothing was to be written.
    let job = job(&[1, 2]);
    assert!(pending.stands(&job, &written(&[1], &[2])));
    assert!(!pending.stands(&job, &written(&[1], &[])));
    assert!(!pending.stands(&job, &written(&[], &[2])));
}
