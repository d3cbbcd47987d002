//! Receipts: which verifications may have one, and the channels that it names.

use std::collections::BTreeMap;

use super::*;

/// Send of a code on a channel.
struct Sent {
    channel: Channel,
    /// True if the caller may get receipts then.
    keeps_channels: bool,
    /// True if a message carries the code.
    has_message: bool,
}

const fn by(channel: Channel) -> Sent {
    Sent {
        channel,
        keeps_channels: true,
        has_message: true,
    }
}

/// Returns the identity of a request with an id.
fn identity(id: u8) -> RequestFingerprint {
    RequestFingerprint {
        id: [id; 16],
        fields: [0; 16],
        writer: 0,
        named: true,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(seconds * 1_000)
}

/// Sends a code, a minute after each other, and returns the record.
fn record_after(sends: &[Sent]) -> Record {
    let policy = PurposePolicy::default();
    let mut record = None;
    for (number, sent) in (0..).zip(sends) {
        let message = MessageRequest {
            id: MessageId([number; 16]),
            lease: None,
            locale: String::new(),
            variables: BTreeMap::new(),
            client_ip: None,
        };
        let request = SendRequest {
            identity: identity(number),
            caller: CallerName::new("crm"),
            recipient: Recipient::from_canonical("+79991234567".to_owned()),
            purpose: Purpose::default(),
            channel: sent.channel,
            test: None,
            barred: None,
            message: sent.has_message.then_some(message),
            keeps_channels: sent.keeps_channels,
        };
        let now = at(60 * i64::from(number));
        let random = &mut SplitMix(9);
        record = send(record, &[], &request, &policy, now, random).record;
    }
    record.expect("the first send is written")
}

/// Submits the code of a record, and returns the grant and the record.
fn verified(record: Record, asked: bool, now: Timestamp) -> (Option<ReceiptGrant>, Record) {
    let digits = match &record.challenge.state {
        ChallengeState::Live(secret) => secret.code.expose().to_owned(),
        _ => "000000".to_owned(),
    };
    let request = VerifyRequest {
        identity: identity(99),
        code: SubmittedCode::parse(&digits).unwrap(),
        challenge: ChallengeSelector::Newest,
        receipt: asked,
    };
    let policy = PurposePolicy::default();
    let decision = verify(Some(record.clone()), &[], &request, &policy, now);
    let Ok(VerifyOutcome::Verified { receipt, .. }) = decision.outcome else {
        panic!("not verified: {:?}", decision.outcome);
    };
    (receipt, decision.record.unwrap_or(record))
}

fn channels(sends: &[Sent]) -> Option<Vec<Channel>> {
    let (grant, _) = verified(record_after(sends), true, at(170));
    grant.map(|grant| grant.channels.iter().collect())
}

#[test]
fn receipt_names_every_channel_that_carried_the_code() {
    use Channel::{Sms, Telegram, Voice};
    assert_eq!(channels(&[by(Sms)]), Some(vec![Sms]));
    assert_eq!(channels(&[by(Sms), by(Sms)]), Some(vec![Sms]));
    assert_eq!(
        channels(&[by(Telegram), by(Sms), by(Voice)]),
        Some(vec![Sms, Voice, Telegram])
    );
}

#[test]
fn code_with_an_unknown_channel_has_no_receipt() {
    let unknown = || Sent {
        keeps_channels: false,
        ..by(Channel::Sms)
    };
    let without_message = || Sent {
        has_message: false,
        ..by(Channel::Sms)
    };
    for sends in [
        vec![unknown()],
        vec![without_message()],
        vec![unknown(), by(Channel::Voice)],
        vec![by(Channel::Voice), unknown()],
        vec![by(Channel::Voice), without_message()],
        vec![by(Channel::Voice), unknown(), by(Channel::Voice)],
    ] {
        assert_eq!(channels(&sends), None);
    }
}

#[test]
fn replay_has_the_grant_of_the_first_reply_until_the_receipt_expires() {
    let now = Timestamp::from_milliseconds(10_999);
    let (first, record) = verified(record_after(&[by(Channel::Sms)]), true, now);
    let first = first.expect("a receipt was asked for");
    assert_eq!((first.issued_at, first.expires_at), (at(10), at(310)));
    for (now, expected) in [
        (now, Some(first)),
        (Timestamp::from_milliseconds(309_999), Some(first)),
        (at(310), None),
        // The clock stepped back.
        (at(10), Some(first)),
        (Timestamp::from_milliseconds(9_999), None),
    ] {
        assert_eq!(verified(record.clone(), true, now).0, expected, "{now:?}");
    }
}

#[test]
fn outcome_without_a_receipt_is_stored_as_before() {
    let unasked = verified(record_after(&[by(Channel::Sms)]), false, at(10)).1;
    let asked = verified(record_after(&[by(Channel::Sms)]), true, at(10)).1;
    assert_eq!(verified(unasked.clone(), true, at(11)).0, None);
    let stored = |record: Record| serde_json::to_string(&record.memory).unwrap();
    assert!(!stored(unasked).contains("channels"));
    assert!(stored(asked).contains(r#""channels":1"#));
}
