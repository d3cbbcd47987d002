//! What a store holds sealed, in the hands of whoever holds the store.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
};

use otpd::{
    domain::{
        ChallengeNonce, Channel, Code, Content, History, Message, MessageId, MessageState,
        Recipient, RecordKey, Secret, Timestamp,
    },
    keys::KeyRing,
    store::Sealed,
};

use crate::{bytes::Bytes, random::Draws};

/// Two rings of the same numbers and other keys.
static RINGS: LazyLock<[KeyRing; 2]> = LazyLock::new(|| {
    [1, 2].map(|seed| {
        let text = KeyRing::generate(&mut Draws(seed));
        KeyRing::parse(&text).expect("a new key ring is one")
    })
});

/// What otpd sealed opens to the same, in its place alone; whatever else there is, changed
/// bytes of it too, does not open.
pub fn sealed(data: &[u8]) {
    let [ring, other_ring] = &*RINGS;
    let mut input = Bytes(data);
    let key = RecordKey(input.array());
    let challenge = ChallengeNonce(input.array());
    let id = MessageId(input.array());
    let change = (input.number(), input.byte());

    let made_up = Sealed(input.0.to_vec());
    assert!(ring.open(&key, &challenge, &made_up).is_none());
    assert!(ring.open_content(&key, &challenge, &id, &made_up).is_none());

    let (secret, content) = contents(&mut input);
    let mut draws = Draws(change.0);
    let sealed = ring.seal(&key, &challenge, &secret, &mut draws);
    let opened = ring
        .open(&key, &challenge, &sealed)
        .expect("it was just sealed");
    assert!(opened.code.same_as(&secret.code));
    assert_eq!(opened.recipient, secret.recipient);
    let message = ring.seal_message(&key, message(id, challenge, content.clone()), &mut draws);
    let MessageState::Queued(sealed_content) = message.state else {
        unreachable!("sealing leaves the state as it is")
    };
    let opened = ring.open_content(&key, &challenge, &id, &sealed_content);
    is_same(&opened.expect("it was just sealed"), &content);

    // Another key, another place, and the place of the other kind of thing.
    let (foreign_key, foreign_challenge) = (changed(&key.0, change), changed(&challenge.0, change));
    let foreign_key = RecordKey(foreign_key.try_into().expect("it has the same length"));
    let foreign_challenge = ChallengeNonce(foreign_challenge.try_into().expect("and this"));
    let foreign_id = MessageId(changed(&id.0, change).try_into().expect("and this"));
    assert!(other_ring.open(&key, &challenge, &sealed).is_none());
    assert!(ring.open(&foreign_key, &challenge, &sealed).is_none());
    assert!(ring.open(&key, &foreign_challenge, &sealed).is_none());
    assert!(ring.open(&key, &challenge, &sealed_content).is_none());
    let opens =
        |key, challenge, id, content| ring.open_content(key, challenge, id, content).is_some();
    assert!(!opens(&foreign_key, &challenge, &id, &sealed_content));
    assert!(!opens(&key, &foreign_challenge, &id, &sealed_content));
    assert!(!opens(&key, &challenge, &foreign_id, &sealed_content));
    assert!(!opens(&key, &challenge, &id, &sealed));

    // Other bytes, and fewer.
    let bad = Sealed(changed(&sealed.0, change));
    assert!(ring.open(&key, &challenge, &bad).is_none());
    let bad = Sealed(changed(&sealed_content.0, change));
    assert!(!opens(&key, &challenge, &id, &bad));
    let shorter = position(change.0, sealed_content.0.len());
    let bad = Sealed(sealed_content.0[..shorter].to_vec());
    assert!(!opens(&key, &challenge, &id, &bad));
}

/// A secret and a content, of any texts.
fn contents(input: &mut Bytes<'_>) -> (Secret, Content) {
    let length = input.byte() % 7 + 4;
    let code = Code::generate(length, &mut Draws(input.number()));
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
    let secret = Secret {
        code: code.clone(),
        recipient: recipient.clone(),
    };
    let content = Content {
        recipient,
        code,
        locale,
        variables: variables.into_iter().collect(),
        client_ip,
    };
    (secret, content)
}

fn message(id: MessageId, challenge: ChallengeNonce, content: Content) -> Message {
    let now = Timestamp::from_milliseconds(0);
    Message {
        id,
        challenge,
        channel: Channel::Sms,
        predecessors: 0,
        state: MessageState::Queued(content),
        provider: String::new(),
        history: History::default(),
        created_at: now,
        updated_at: now,
        expires_at: now,
        due_at: None,
    }
}

fn is_same(opened: &Content, content: &Content) {
    assert_eq!(opened.recipient, content.recipient);
    assert!(opened.code.same_as(&content.code));
    assert_eq!(opened.locale, content.locale);
    assert_eq!(opened.variables, content.variables);
    assert_eq!(opened.client_ip, content.client_ip);
}

/// The bytes with one of them changed.
fn changed(bytes: &[u8], (place, bits): (u64, u8)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let place = position(place, bytes.len());
    bytes[place] ^= bits.max(1);
    bytes
}

/// A place below `length`, which is not 0.
fn position(place: u64, length: usize) -> usize {
    let length = u64::try_from(length).expect("a length in memory fits 64 bits");
    usize::try_from(place % length).expect("it is below a length in memory")
}
