//! Outcomes, writes and refusals of single sends.

use std::collections::BTreeMap;

use super::*;

/// Send of one test, with the inputs that it varies.
struct Case<'a> {
    id: u8,
    writer: u64,
    channel: Channel,
    limits: &'a [RateLimitState],
}

const FIRST: Case<'_> = Case {
    id: 1,
    writer: 1,
    channel: Channel::Sms,
    limits: &[],
};

fn ask(
    case: &Case<'_>,
    record: Option<&Record>,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<Result<SendOutcome, Refusal>> {
    let request = SendRequest {
        identity: RequestFingerprint {
            id: [case.id; 16],
            fields: [0; 16],
            writer: case.writer,
            named: true,
        },
        test: None,
        barred: None,
        caller: CallerName::new("crm"),
        recipient: Recipient::from_canonical("+79991234567".to_owned()),
        purpose: Purpose::default(),
        channel: case.channel,
        message: Some(MessageRequest {
            id: MessageId([case.id; 16]),
            lease: Some(Duration::from_secs(10)),
            locale: "ru".to_owned(),
            variables: BTreeMap::new(),
            client_ip: None,
        }),
        keeps_channels: false,
    };
    let random = &mut SplitMix(u64::from(case.id));
    send(record.cloned(), case.limits, &request, policy, now, random)
}

fn sent(
    case: &Case<'_>,
    record: Option<&Record>,
    policy: &PurposePolicy,
    now: Timestamp,
) -> (SendOutcome, Option<Record>) {
    let decision = ask(case, record, policy, now);
    (decision.outcome.unwrap(), decision.record)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(1_000_000_000_000 + seconds * 1_000)
}

#[test]
fn replayed_send_never_returns_the_code_of_a_later_one() {
    let policy = PurposePolicy::default();
    let (first, record) = sent(&FIRST, None, &policy, at(0));
    let (again, written) = sent(&FIRST, record.as_ref(), &policy, at(1));
    assert!(written.is_none());
    assert_eq!(again.challenge, first.challenge);
    let [code, code_again] = [&first, &again].map(|sent| sent.code.as_ref().unwrap());
    assert!(code_again.ct_eq(code));
    // The first code is about to expire, so the second request issues another one.
    let second = Case { id: 2, ..FIRST };
    let (second, record) = sent(&second, record.as_ref(), &policy, at(250));
    assert!(!second.resent);
    let (again, _) = sent(&FIRST, record.as_ref(), &policy, at(251));
    assert_eq!(again.challenge, first.challenge);
    assert!(again.code.is_none() && again.message.is_none());
}

#[test]
fn writer_after_lost_acknowledgement_gets_its_message_back() {
    let policy = PurposePolicy::default();
    let (first, record) = sent(&FIRST, None, &policy, at(0));
    let written = first.message.unwrap();
    let (own, _) = sent(&FIRST, record.as_ref(), &policy, at(1));
    let given = own.message.unwrap();
    assert_eq!(given.id, written.id);
    assert_eq!(given.created_at, written.created_at);
    assert_eq!(given.due_at, Some(at(10)));
    assert_eq!(given.expires_at, written.expires_at);
    let other = Case { writer: 2, ..FIRST };
    let (others, _) = sent(&other, record.as_ref(), &policy, at(1));
    assert!(others.code.is_some() && others.message.is_none());
}

#[test]
fn message_with_a_lease_has_an_open_attempt() {
    let policy = PurposePolicy::default();
    let (first, _) = sent(&FIRST, None, &policy, at(0));
    let message = first.message.unwrap();
    assert!(message.history.attempt_open);
    assert!(matches!(message.state, MessageState::Sending(_)));
}

#[test]
fn resend_uses_the_requested_channel_and_counts_predecessors() {
    let policy = PurposePolicy::default();
    let (first, record) = sent(&FIRST, None, &policy, at(0));
    assert_eq!(first.message.unwrap().predecessors, 0);
    let by_voice = Case {
        id: 2,
        channel: Channel::Voice,
        ..FIRST
    };
    let (resent, record) = sent(&by_voice, record.as_ref(), &policy, at(60));
    assert!(resent.resent);
    let message = resent.message.unwrap();
    assert_eq!((message.channel, message.predecessors), (Channel::Voice, 1));
    let challenge = record.unwrap().challenge;
    assert_eq!((challenge.channel, challenge.sends), (Channel::Voice, 2));
}

#[test]
fn longest_wait_of_several_limits_is_returned() {
    let hourly = PurposePolicy {
        sends_per_hour: 1,
        sends_per_day: 0,
        ..PurposePolicy::default()
    };
    let (_, record) = sent(&FIRST, None, &hourly, at(0));
    let shared = |full_at| RateLimitState {
        name: RateLimitKind::IpSendsPerHour,
        rate: Quota::new(1, Duration::from_hours(2)).unwrap(),
        full_at: Some(full_at),
        paid: false,
    };
    let minutes = |count: i64| count * 60;
    // The record's own limit is full after an hour.
    for (shared_full_at, limit, wait) in [
        (minutes(50), RateLimitKind::SendsPerHour, 58),
        (minutes(60), RateLimitKind::SendsPerHour, 58),
        (minutes(70), RateLimitKind::IpSendsPerHour, 68),
    ] {
        let second = Case {
            id: 2,
            limits: &[shared(at(shared_full_at))],
            ..FIRST
        };
        let refused = ask(&second, record.as_ref(), &hourly, at(minutes(2)));
        let exceeded = RateLimited {
            limit,
            wait: Duration::from_mins(wait),
        };
        assert_eq!(refused.outcome.unwrap_err(), Refusal::SendLimit(exceeded));
        assert!(refused.record.is_none());
    }
}

#[test]
fn clock_rollback_clamps_the_limits_of_the_record() {
    let policy = PurposePolicy {
        sends_per_hour: 1,
        sends_per_day: 2,
        ..PurposePolicy::default()
    };
    let (_, record) = sent(&FIRST, None, &policy, at(0));
    // A whole day earlier is further ahead than any limit reaches.
    let earlier = at(-24 * 3_600);
    let second = Case { id: 2, ..FIRST };
    let refused = ask(&second, record.as_ref(), &policy, earlier);
    assert!(refused.outcome.is_err());
    let limits = refused.record.unwrap().send_limits;
    assert_eq!(
        limits.hour_full_at,
        earlier.saturating_add(Duration::from_hours(1))
    );
    assert_eq!(
        limits.day_full_at,
        earlier.saturating_add(Duration::from_hours(24))
    );
}

#[test]
fn code_is_live_until_expired_or_exhausted() {
    let policy = PurposePolicy::default();
    let (first, record) = sent(&FIRST, None, &policy, at(0));
    let mut record = record.unwrap();
    let live = |record: &Record, policy: &PurposePolicy, now| {
        record.has_live(first.challenge, policy, now)
    };
    assert!(live(&record, &policy, at(0)));
    assert!(live(&record, &policy, at(299)));
    assert!(!live(&record, &policy, at(300)));
    assert!(!live(&record, &policy, at(-1)), "the clock stepped back");
    let other = ChallengeNonce([9; 16]);
    assert!(!record.has_live(other, &policy, at(0)));
    // A policy may be made stricter while codes are live.
    record.challenge.attempts = 3;
    for (max_attempts, is_live) in [(2, false), (3, false), (4, true)] {
        let stricter = PurposePolicy {
            max_attempts,
            ..PurposePolicy::default()
        };
        assert_eq!(live(&record, &stricter, at(0)), is_live, "{max_attempts}");
    }
    // A policy does not invalidate a code for replicas that have another policy.
    let dead = |record: &Record, nonce, now| record.is_dead(nonce, now);
    assert!(!dead(&record, first.challenge, at(299)));
    assert!(dead(&record, first.challenge, at(300)));
    assert!(dead(&record, first.challenge, at(-1)));
    assert!(dead(&record, other, at(0)));
    record.challenge.state = ChallengeState::Exhausted;
    assert!(dead(&record, first.challenge, at(0)));
}

#[test]
fn challenge_selector_matches_the_selected_challenge() {
    let [nonce, other] = [[1; 16], [2; 16]].map(ChallengeNonce);
    assert!(ChallengeSelector::Newest.matches(nonce));
    assert!(ChallengeSelector::Only(nonce).matches(nonce));
    assert!(!ChallengeSelector::Only(other).matches(nonce));
    assert!(!ChallengeSelector::Foreign.matches(nonce));
}
