//! Test recipients: they have a fixed code and are sent no message. They serve reviews of
//! apps in stores, and the tests of callers.

use super::{CallerName, OtpCode, Purpose, Recipient, Timestamp};

/// Recipient with a fixed code. Attempts, delays and the lock are those of every other
/// recipient; limits on sends do not count.
#[derive(Clone, Debug)]
pub struct TestRecipient {
    /// Caller of the entry.
    pub caller: CallerName,
    /// Recipient of the entry.
    pub recipient: Recipient,
    /// Purpose of its codes.
    pub purpose: Purpose,
    /// Fixed code.
    pub code: OtpCode,
    /// Time from which it is treated like any other recipient.
    pub expires_at: Timestamp,
}

impl TestRecipient {
    /// Returns true if a request is for this entry.
    pub fn matches(&self, caller: &CallerName, recipient: &Recipient, purpose: &Purpose) -> bool {
        self.caller == *caller && self.recipient == *recipient && self.purpose == *purpose
    }

    /// Returns the entry until it expires. Its codes expire with it, so that none is ever
    /// sent to the real recipient.
    pub fn active_at(&self, now: Timestamp) -> Option<&Self> {
        (now < self.expires_at).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use rand::{Rng as _, rand_core::UnwrapErr, rngs::SysRng};

    use super::*;
    use crate::{
        ChallengeState, Channel, MessageId, MessageRequest, PurposePolicy, Record,
        RequestFingerprint, SendOutcome, SendRequest, send,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(seconds * 1_000)
    }

    fn recipient() -> TestRecipient {
        TestRecipient {
            caller: CallerName::new("crm"),
            recipient: Recipient::from_canonical("+79991234567".to_owned()),
            purpose: Purpose::default(),
            code: OtpCode::from_digits("00000000").unwrap(),
            expires_at: at(1_000),
        }
    }

    fn sent(record: Option<Record>, seconds: i64, configured: bool) -> (SendOutcome, Record) {
        sent_with_entry(record, seconds, configured.then(recipient))
    }

    fn sent_with_entry(
        record: Option<Record>,
        seconds: i64,
        entry: Option<TestRecipient>,
    ) -> (SendOutcome, Record) {
        let test = recipient();
        let mut random = UnwrapErr(SysRng);
        let mut id = [0; 16];
        random.fill_bytes(&mut id);
        let request = SendRequest {
            identity: RequestFingerprint {
                id,
                fields: [0; 16],
                writer: 0,
                named: false,
            },
            caller: test.caller,
            recipient: test.recipient,
            purpose: test.purpose,
            channel: Channel::Sms,
            test: entry,
            message: Some(MessageRequest {
                id: MessageId([1; 16]),
                lease: None,
                locale: String::new(),
                variables: BTreeMap::new(),
                client_ip: None,
            }),
            barred: None,
            keeps_channels: true,
        };
        let policy = PurposePolicy::default();
        let decision = send(record, &[], &request, &policy, at(seconds), &mut random);
        (decision.outcome.unwrap(), decision.record.unwrap())
    }

    #[test]
    fn test_recipient_matches_caller_recipient_and_purpose() {
        let test = recipient();
        let (caller, recipient, purpose) = (&test.caller, &test.recipient, &test.purpose);
        assert!(test.matches(caller, recipient, purpose));
        let other_recipient = Recipient::from_canonical("+79991234568".to_owned());
        let other_purpose = Purpose::parse("payment").unwrap();
        assert!(!test.matches(&CallerName::new("shop"), recipient, purpose));
        assert!(!test.matches(caller, &other_recipient, purpose));
        assert!(!test.matches(caller, recipient, &other_purpose));
    }

    #[test]
    fn fixed_code_expires_with_its_entry_and_is_never_sent() {
        let (first, record) = sent(None, 900, true);
        assert_eq!(first.code.unwrap().expose(), "00000000");
        assert_eq!(first.expires_at, at(1_000));
        let (second, _) = sent(Some(record), 1_000, true);
        assert!(!second.resent);
        assert_eq!(
            second.expires_at,
            at(1_000).saturating_add(Duration::from_mins(5))
        );
    }

    #[test]
    fn fixed_code_is_not_resent_after_its_entry_is_removed() {
        let (first, record) = sent(None, 100, true);
        let ChallengeState::Live(secret) = &record.challenge.state else {
            panic!("the code is live");
        };
        assert!(secret.channels.is_empty(), "no message carries the code");
        // The entry was removed, or another replica never had it.
        let (second, record) = sent(Some(record), 200, false);
        assert!(!second.resent);
        assert_ne!(first.challenge, second.challenge);
        let message = second.message.unwrap();
        assert!(!message.content().unwrap().code.ct_eq(&recipient().code));
        let (third, record) = sent(Some(record), 300, false);
        assert!(third.resent, "a random code is repeated");
        let (fourth, _) = sent(Some(record), 400, true);
        assert_eq!(fourth.code.unwrap().expose(), "00000000");
        assert!(fourth.message.is_none());
    }

    #[test]
    fn changed_fixed_code_replaces_the_live_one() {
        let (first, record) = sent(None, 100, true);
        let changed = TestRecipient {
            code: OtpCode::from_digits("11111111").unwrap(),
            ..recipient()
        };
        let (second, _) = sent_with_entry(Some(record), 200, Some(changed));
        assert!(!second.resent);
        assert_ne!(first.challenge, second.challenge);
        assert_eq!(second.code.unwrap().expose(), "11111111");
    }

    #[test]
    fn random_code_is_not_resent_to_a_test_recipient() {
        let (first, record) = sent(None, 100, false);
        let (second, _) = sent(Some(record), 200, true);
        assert!(!second.resent);
        assert_ne!(first.challenge, second.challenge);
        assert_eq!(second.code.unwrap().expose(), "00000000");
    }
}
