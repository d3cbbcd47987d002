//! Sealed bytes of a store, as an attacker with access to it could change them.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
};

use otpd::{
    keys::{KeyRing, OpenError},
    store::SealedBytes,
};
use otpd_rules::{
    AttemptLog, CallerName, Challenge, ChallengeNonce, ChallengeSecret, ChallengeState, Channel,
    ChannelSet, FailureCounter, IdempotencyLog, MessageId, MessagePayload, MessageState, OtpCode,
    OutboxMessage, Purpose, Recipient, Record, RecordKey, SendLimits, Timestamp,
};

use crate::{bytes::Bytes, random::Draws};

/// Two rings with the same numbers and different keys.
static RINGS: LazyLock<[KeyRing; 2]> = LazyLock::new(|| {
    [1, 2].map(|seed| {
        let text = KeyRing::generate(&mut Draws(seed));
        KeyRing::parse(&text).expect("a new key ring is valid")
    })
});

/// Checks that sealed content opens to the same content, only in its place and for its
/// owner, and that any other bytes, such as changed ones, do not open.
pub fn sealed(data: &[u8]) {
    let [ring, other_ring] = &*RINGS;
    let mut input = Bytes(data);
    let challenge = ChallengeNonce(input.array());
    let id = MessageId(input.array());
    let channel = Channel::ALL[usize::from(input.byte()) % Channel::ALL.len()];
    let change = (input.number(), input.byte());
    let owner = Owner {
        caller: CallerName::new(input.text()),
        purpose: Purpose::parse(&input.text()).unwrap_or_default(),
    };
    let made_up = SealedBytes(input.0.to_vec());
    let (secret, content) = contents(&mut input);
    let key = ring.record_key(&owner.caller, &content.recipient, &owner.purpose);

    let mut draws = Draws(change.0);
    let sealed = ring.seal(&key, &challenge, &secret, &mut draws);
    let opened = open_record(ring, &key, &owner, challenge, sealed.clone());
    let ChallengeState::Live(opened) = opened.expect("it was just sealed").challenge.state else {
        unreachable!("a live record opens as a live one")
    };
    assert!(opened.code.ct_eq(&secret.code));
    assert_eq!(opened.recipient, secret.recipient);
    let plain = message(id, challenge, channel, content.clone());
    let stored = ring.seal_message(&key, plain, &mut draws);
    let sealed_content = stored.content().expect("the message is queued").clone();
    let open = |ring: &KeyRing, key, owner: &Owner, message| {
        ring.open_message(key, &owner.caller, &owner.purpose, message)
    };
    let opened = open(ring, &key, &owner, stored.clone()).expect("it was just sealed");
    is_same(opened.content().expect("the message is queued"), &content);

    // Another ring, another place, another owner, and content of the other kind.
    let foreign_key = RecordKey(changed_array(key.0, change));
    let foreign_challenge = ChallengeNonce(changed_array(challenge.0, change));
    let foreign_owner = Owner {
        caller: CallerName::new(format!("{}2", owner.caller.as_str())),
        ..owner.clone()
    };
    for (ring, key, owner, challenge, sealed) in [
        (other_ring, &key, &owner, challenge, &sealed),
        (ring, &foreign_key, &owner, challenge, &sealed),
        (ring, &key, &foreign_owner, challenge, &sealed),
        (ring, &key, &owner, foreign_challenge, &sealed),
        (ring, &key, &owner, challenge, &sealed_content),
        (ring, &key, &owner, challenge, &made_up),
    ] {
        let opened = open_record(ring, key, owner, challenge, sealed.clone());
        assert!(opened.is_err(), "{opened:?}");
    }
    let with = |sealed| OutboxMessage {
        state: MessageState::Queued(sealed),
        ..stored.clone()
    };
    let foreign_channel = Channel::ALL[(channel as usize + 1) % Channel::ALL.len()];
    let moved = |challenge, id, channel| OutboxMessage {
        challenge,
        id,
        channel,
        ..stored.clone()
    };
    let foreign_id = MessageId(changed_array(id.0, change));
    for (ring, key, owner, message) in [
        (other_ring, &key, &owner, stored.clone()),
        (ring, &foreign_key, &owner, stored.clone()),
        (ring, &key, &foreign_owner, stored.clone()),
        (ring, &key, &owner, moved(foreign_challenge, id, channel)),
        (ring, &key, &owner, moved(challenge, foreign_id, channel)),
        (ring, &key, &owner, moved(challenge, id, foreign_channel)),
        (ring, &key, &owner, with(sealed.clone())),
        (ring, &key, &owner, with(made_up.clone())),
    ] {
        assert!(open(ring, key, owner, message).is_err());
    }

    // Changed bytes, and fewer bytes.
    let bad = SealedBytes(changed(&sealed.0, change));
    assert!(open_record(ring, &key, &owner, challenge, bad).is_err());
    let bad = SealedBytes(changed(&sealed_content.0, change));
    assert!(open(ring, &key, &owner, with(bad)).is_err());
    let shorter = position(change.0, sealed_content.0.len());
    let bad = SealedBytes(sealed_content.0[..shorter].to_vec());
    assert!(open(ring, &key, &owner, with(bad)).is_err());
}

/// Owner of a record.
#[derive(Clone)]
struct Owner {
    caller: CallerName,
    purpose: Purpose,
}

/// Opens a live record with these bytes.
fn open_record(
    ring: &KeyRing,
    key: &RecordKey,
    owner: &Owner,
    nonce: ChallengeNonce,
    sealed: SealedBytes,
) -> Result<Record, OpenError> {
    let now = Timestamp::from_milliseconds(0);
    let record = Record {
        caller: owner.caller.clone(),
        purpose: owner.purpose.clone(),
        challenge: Challenge {
            nonce,
            state: ChallengeState::Live(sealed),
            channel: Channel::Sms,
            created_at: now,
            expires_at: now,
            attempts: 0,
            sends: 0,
        },
        sent_at: now,
        failures: FailureCounter::NONE,
        send_limits: SendLimits::default(),
        memory: IdempotencyLog::default(),
        written_at: now,
    };
    ring.open_record(key, record)
}

/// Returns a secret and a message content, of arbitrary texts.
fn contents(input: &mut Bytes<'_>) -> (ChallengeSecret, MessagePayload) {
    let length = input.byte() % 7 + 4;
    let code = OtpCode::generate(length, &mut Draws(input.number()));
    let client_ip = match input.byte() % 3 {
        0 => None,
        1 => Some(IpAddr::from(input.array::<4>())),
        _ => Some(IpAddr::from(Ipv6Addr::from(input.array::<16>()))),
    };
    let recipient = Recipient::from_canonical(input.text());
    let locale = input.text();
    let mut variables = Vec::new();
    while !input.0.is_empty() {
        variables.push((input.text(), input.text()));
    }
    let secret = ChallengeSecret {
        code: code.clone(),
        recipient: recipient.clone(),
        is_test: locale.len() % 2 == 1,
        channels: ChannelSet::EMPTY,
    };
    let content = MessagePayload {
        recipient,
        code,
        locale,
        variables: variables.into_iter().collect(),
        client_ip,
    };
    (secret, content)
}

fn message(
    id: MessageId,
    challenge: ChallengeNonce,
    channel: Channel,
    content: MessagePayload,
) -> OutboxMessage {
    let now = Timestamp::from_milliseconds(0);
    OutboxMessage {
        id,
        challenge,
        channel,
        predecessors: 0,
        state: MessageState::Queued(content),
        provider: String::new(),
        history: AttemptLog::default(),
        created_at: now,
        updated_at: now,
        expires_at: now,
        due_at: None,
    }
}

fn is_same(opened: &MessagePayload, content: &MessagePayload) {
    assert_eq!(opened.recipient, content.recipient);
    assert!(opened.code.ct_eq(&content.code));
    assert_eq!(opened.locale, content.locale);
    assert_eq!(opened.variables, content.variables);
    assert_eq!(opened.client_ip, content.client_ip);
}

/// Returns the bytes with one of them changed.
fn changed(bytes: &[u8], (place, bits): (u64, u8)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let place = position(place, bytes.len());
    bytes[place] ^= bits.max(1);
    bytes
}

/// Returns the bytes with one of them changed.
fn changed_array<const LENGTH: usize>(bytes: [u8; LENGTH], change: (u64, u8)) -> [u8; LENGTH] {
    let changed = changed(&bytes, change);
    changed.try_into().expect("the length is unchanged")
}

/// Returns a position below `length`, which is not 0.
fn position(place: u64, length: usize) -> usize {
    let length = u64::try_from(length).expect("a length in memory fits 64 bits");
    usize::try_from(place % length).expect("a position is below a length in memory")
}
