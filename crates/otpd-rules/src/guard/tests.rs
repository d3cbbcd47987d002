//! Verdicts by example, and properties of the rule.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::Timestamp;

const START: Timestamp = Timestamp::from_milliseconds(1_800_000_000_000);

fn after(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

fn policy() -> GuardPolicy {
    GuardPolicy::default()
}

fn usual() -> Baseline {
    Baseline::assumed(&policy())
}

fn block_verdict(cell: &Cell, now: Timestamp) -> Verdict {
    assess_block(cell, usual(), &policy(), now).verdict
}

fn country_verdict(cell: &Cell, now: Timestamp) -> Verdict {
    assess_country(cell, usual(), &policy(), now).verdict
}

/// Returns a cell with a message in each of the first `sends` intervals, of which each `every`th
/// was verified; 0 for none.
fn cell(sends: u64, interval: u64, every: u64, sequential: bool) -> Cell {
    let mut cell = Cell::default();
    for index in 0..sends {
        let time = after(index * interval);
        cell.add_send(time, sequential);
        if every > 0 && index % every == 0 {
            cell.add_verification(time, 1);
        }
    }
    cell
}

#[test]
fn verdicts_on_a_block() {
    // Messages, seconds between them, each n-th verified, in sequence.
    for (sends, interval, every, sequential, expected) in [
        (0, 1, 0, false, Verdict::Free),
        (10, 1, 0, false, Verdict::Free),
        (11, 1, 0, false, Verdict::Slow),
        (15, 1, 0, false, Verdict::Slow),
        (16, 1, 0, false, Verdict::Suspect),
        (9, 1, 0, true, Verdict::Suspect),
        (8, 1, 0, true, Verdict::Free),
        // Three an hour.
        (23, 1_200, 0, false, Verdict::Suspect),
        (21, 1_200, 0, false, Verdict::Free),
        (500, 1, 2, false, Verdict::Free),
        (500, 1, 3, false, Verdict::Free),
        (500, 1, 10, false, Verdict::Suspect),
    ] {
        let cell = cell(sends, interval, every, sequential);
        let found = block_verdict(&cell, after(sends * interval));
        assert_eq!(found, expected, "{sends} {interval} {every} {sequential}");
    }
}

#[test]
fn verdicts_on_a_country() {
    // Messages, seconds between them, each n-th verified, seconds after the last message.
    for (sends, interval, every, later, expected) in [
        (0, 1, 0, 0, Verdict::Free),
        (190, 1, 2, 0, Verdict::Free),
        // Nobody can have answered yet.
        (190, 0, 0, 5, Verdict::Free),
        (200, 0, 0, 5, Verdict::Suspect),
        (190, 0, 0, 180, Verdict::Slow),
        (300, 10, 0, 0, Verdict::Suspect),
        (300, 60, 0, 0, Verdict::Slow),
        (3_000, 1, 2, 0, Verdict::Free),
        (2_000, 1, 10, 0, Verdict::Suspect),
    ] {
        let cell = cell(sends, interval, every, false);
        let found = country_verdict(&cell, after(sends * interval + later));
        assert_eq!(found, expected, "{sends} {interval} {every} {later}");
    }
}

#[test]
fn reasons_name_the_window_and_its_counts() {
    let now = after(20);
    let block = cell(20, 1, 0, true);
    let reasons = assess_block(&block, usual(), &policy(), now).reasons;
    let counts = Counts {
        sends: 20,
        verified: 0,
        sequential: 20,
    };
    let low = |window| Reason::LowConversion {
        window,
        counts,
        threshold: Share::from_millionths(325_000),
        probability: probability_below(Share::from_millionths(325_000), 2, 21),
    };
    let expected = [
        Reason::Sequence { counts },
        low(Window::TenMinutes),
        low(Window::Hour),
    ];
    assert_eq!(reasons, expected);
    assert!(
        assess_block(&Cell::default(), usual(), &policy(), now)
            .reasons
            .is_empty()
    );
}

#[test]
fn attack_on_one_block_hour_after_hour_stays_below_thirty_a_day() {
    let (mut cell, mut messages) = (Cell::default(), 0);
    for second in 0..86_400 {
        let now = after(second);
        let country = assess_country(&Cell::default(), usual(), &policy(), now);
        let block = assess_block(&cell, usual(), &policy(), now);
        let send = SendAssessment {
            block: &block,
            country: &country,
            block_cell: &cell,
            unmerged: 0,
            provider_is_down: false,
        };
        if matches!(
            admit(SendClass::Ordinary, send, &policy(), now),
            Admission::Allowed { .. }
        ) {
            cell.add_send(now, false);
            messages += 1;
        }
    }
    assert!((16..=30).contains(&messages), "{messages}");
}

#[test]
fn conversion_of_the_past_becomes_usual_a_day_later() {
    let past = cell(2_000, 60, 2, false);
    let now = after(2_000 * 60 + 86_400 * 2);
    let mut aged = past.clone();
    aged.add_send(now, false);
    let found = aged.baseline(usual()).conversion.millionths();
    assert!((500_000..520_000).contains(&found), "{found}");
    // Hours of an attack hardly count.
    let mut attacked = Cell::default();
    for index in 0..200 {
        attacked.add_send(after(index * 60), false);
        attacked.mark_suspicious(after(index * 60));
    }
    let mut unmarked = cell(200, 60, 0, false);
    for cell in [&mut attacked, &mut unmarked] {
        cell.add_send(now, false);
    }
    assert!(attacked.baseline(usual()).conversion > unmarked.baseline(usual()).conversion);
    assert_eq!(attacked.peak(Share::ONE, now), 0);
}

#[test]
fn peak_of_a_country_is_the_bound_below_which_it_is_not_refused() {
    // 600 messages in each hour of a day, half of them verified; then an attack.
    let mut country = cell(14_400, 6, 2, false);
    let now = after(86_400 + 2_000);
    let peak = country.peak(usual().conversion, now);
    assert!((450..=470).contains(&peak), "{peak}");
    for index in 0..900 {
        country.add_send(after(86_400 + index * 2), false);
    }
    assert_ne!(country_verdict(&country, now), Verdict::Suspect);
    for index in 0..2_000 {
        country.add_send(after(86_400 + index), false);
    }
    assert_eq!(country_verdict(&country, now), Verdict::Suspect);
}

#[test]
fn neighbours_of_recent_numbers_are_a_sequence() {
    let mut tracker = SequenceTracker::default();
    let neighbours =
        [100, 101, 101, 700, 104, 5, 300, 101, 800, 98].map(|digits| tracker.add(digits));
    let expected = [
        false, true, false, false, true, false, false, true, false, true,
    ];
    assert_eq!(neighbours, expected);
}

fn slots(health: &mut ProviderHealth, first: u64, count: u64, events: &[(ProviderEvent, u32)]) {
    for slot in first..first + count {
        for &(event, blocks) in events {
            for _ in 0..blocks {
                health.add(event, after(slot * 300 + 10));
            }
        }
    }
}

#[test]
fn provider_without_verifications_is_down_until_they_return() {
    use ProviderEvent::{Sent, Verified};
    let mut health = ProviderHealth::default();
    slots(&mut health, 0, 24, &[(Sent, 40), (Verified, 30)]);
    assert!(!health.is_down(after(24 * 300)));
    slots(&mut health, 24, 12, &[(Sent, 40), (Verified, 1)]);
    assert!(health.is_down(after(36 * 300)));
    slots(&mut health, 36, 1, &[(Sent, 40), (Verified, 30)]);
    assert!(!health.is_down(after(37 * 300)));
    // A suspension ends after six hours even if nothing returns.
    slots(&mut health, 37, 200, &[(Sent, 40)]);
    assert!(!health.is_down(after(237 * 300)));
}

#[test]
fn attack_is_no_outage() {
    use ProviderEvent::{Refused, Sent, Verified};
    let mut health = ProviderHealth::default();
    slots(&mut health, 0, 24, &[(Sent, 40), (Verified, 30)]);
    slots(&mut health, 24, 2, &[(Sent, 4_000), (Verified, 25)]);
    assert!(!health.is_down(after(26 * 300)));
    // The guard refuses nearly all, honest people among them.
    slots(
        &mut health,
        26,
        4,
        &[(Sent, 40), (Refused, 4_000), (Verified, 2)],
    );
    assert!(!health.is_down(after(30 * 300)));
    // Night comes.
    slots(&mut health, 30, 4, &[(Sent, 3), (Verified, 2)]);
    assert!(!health.is_down(after(34 * 300)));
}

#[derive(Clone, Debug)]
struct Event {
    seconds: u64,
    verified: bool,
    sequential: bool,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0_u64..90_000, any::<bool>(), any::<bool>());
    let event = event.prop_map(|(seconds, verified, sequential)| Event {
        seconds,
        verified,
        sequential,
    });
    prop::collection::vec(event, 0..120)
}

fn cell_of(events: &[Event]) -> Cell {
    let mut cell = Cell::default();
    let mut events = events.to_vec();
    events.sort_by_key(|event| event.seconds);
    for event in events {
        cell.add_send(after(event.seconds), event.sequential);
        if event.verified {
            cell.add_verification(after(event.seconds), 1);
        }
    }
    cell
}

proptest! {
    #[test]
    fn probability_grows_with_failures_and_falls_with_successes(
        bound in 0_u32..=1_000_000, successes in 1_u64..400, failures in 1_u64..400,
    ) {
        let bound = Share::from_millionths(bound);
        let probability = probability_below(bound, successes, failures);
        prop_assert!(probability <= probability_below(bound, successes, failures + 1));
        prop_assert!(probability >= probability_below(bound, successes + 1, failures));
    }

    #[test]
    fn more_unanswered_sends_never_loosen_a_verdict(
        events in events(), age in 0_u64..90_000, sequential: bool, copies in 1_u32..20,
    ) {
        let now = after(90_000);
        let mut cell = cell_of(&events);
        let before = (block_verdict(&cell, now), country_verdict(&cell, now));
        for _ in 0..copies {
            cell.add_send(after(90_000 - age.min(86_400)), sequential);
        }
        prop_assert!(block_verdict(&cell, now) >= before.0);
        prop_assert!(country_verdict(&cell, now) >= before.1);
    }

    #[test]
    fn release_always_comes(events in events()) {
        let now = after(90_000);
        let cell = cell_of(&events);
        let assess_block = |cell: &Cell, now| assess_block(cell, usual(), &policy(), now);
        let assess_country = |cell: &Cell, now| assess_country(cell, usual(), &policy(), now);
        let block = release(&cell, Verdict::Slow, now, assess_block);
        prop_assert!(block <= now.saturating_add(Duration::from_hours(25)));
        prop_assert_eq!(block_verdict(&cell, block), Verdict::Free);
        let country = release(&cell, Verdict::Slow, now, assess_country);
        prop_assert!(country <= now.saturating_add(Duration::from_hours(25)));
        prop_assert_eq!(country_verdict(&cell, country), Verdict::Free);
    }

    #[test]
    fn only_ordinary_sends_are_refused_or_slowed(
        events in events(), unmerged in 0_u32..100, listed: bool,
    ) {
        let now = after(90_000);
        let cell = cell_of(&events);
        let send = SendAssessment {
            block: &assess_block(&cell, usual(), &policy(), now),
            country: &assess_country(&cell, usual(), &policy(), now),
            block_cell: &cell,
            unmerged,
            provider_is_down: false,
        };
        let class = if listed { SendClass::AllowListed } else { SendClass::Returning };
        let allowed = Admission::Allowed { resend_factor: 1 };
        prop_assert_eq!(admit(class, send, &policy(), now), allowed);
        let during_outage = SendAssessment { provider_is_down: true, ..send };
        prop_assert_eq!(admit(SendClass::Ordinary, during_outage, &policy(), now), allowed);
    }

    #[test]
    fn order_of_merges_does_not_matter(events in events()) {
        let events: Vec<_> = events.into_iter().filter(|event| event.seconds > 86_400).collect();
        let mut reversed = Cell::default();
        reversed.add_send(after(89_999), false);
        let mut ordered = reversed.clone();
        for (cell, events) in [(&mut ordered, events.clone()), (&mut reversed, events.into_iter().rev().collect())] {
            for event in events {
                cell.add_send(after(event.seconds), event.sequential);
            }
        }
        prop_assert_eq!(ordered, reversed);
    }
}
