//! Status of a code, case by case.

use super::*;

#[test]
fn status_returns_the_live_code_and_the_cool_down() {
    let world = world_with_a_code();
    let record = world.record.clone().unwrap();
    let policy = &world.policy;
    let nonce = record.challenge.nonce;
    let sent_at = record.sent_at;
    let status_after = |challenge, after| {
        let decision = status(
            Some(record.clone()),
            challenge,
            policy,
            sent_at.saturating_add(after),
        );
        assert!(decision.record.is_none());
        decision.outcome
    };
    let last_send = Some(LastSend {
        challenge: nonce,
        purpose: record.purpose.clone(),
        channel: record.challenge.channel,
        at: sent_at,
    });

    let fresh = status_after(ChallengeSelector::Only(nonce), Duration::ZERO);
    let live = fresh.live.unwrap();
    assert_eq!(live.challenge, nonce);
    assert_eq!(live.recipient.as_str(), "+79991234567");
    assert_eq!(live.expires_at, sent_at.saturating_add(policy.code_ttl));
    assert_eq!(live.attempts_remaining, policy.max_attempts);
    assert_eq!(fresh.last_send, last_send);
    let resend_at = sent_at.saturating_add(policy.resend_after);
    assert_eq!(fresh.resend_at, Some(resend_at));
    assert_eq!(fresh.block, None);

    let waited = |after| status_after(ChallengeSelector::Newest, after).resend_at;
    assert_eq!(waited(just_before(policy.resend_after)), Some(resend_at));
    assert_eq!(waited(policy.resend_after), None);

    let dead = status_after(ChallengeSelector::Newest, policy.code_ttl);
    assert!(dead.live.is_none());
    assert_eq!(dead.last_send, last_send);
    let forgotten = policy.code_ttl + PurposePolicy::EXPIRED_RETENTION;
    let last = |after| status_after(ChallengeSelector::Newest, after).last_send;
    assert_eq!(last(just_before(forgotten)), last_send);
    assert_eq!(last(forgotten), None);

    let foreign = status_after(ChallengeSelector::Foreign, Duration::ZERO);
    assert!(foreign.live.is_none() && foreign.last_send.is_none());
    assert_eq!((foreign.resend_at, foreign.block), (None, None));
}

#[test]
fn status_returns_the_lockout() {
    let world = world_with_a_code();
    let mut record = world.record.clone().unwrap();
    record.failures = FailureCounter {
        count: world.policy.failure_limit,
        last_at: record.sent_at,
    };
    let locked_out = status(
        Some(record),
        ChallengeSelector::Newest,
        &world.policy,
        world.now,
    );
    assert!(locked_out.outcome.block.unwrap().locked);
}
