//! A purged record has no effect.

use std::time::Duration;

use proptest::{prelude::*, test_runner::TestCaseResult};

use super::{
    steps::{Named, SplitMix, Typed},
    world::{RECIPIENT, World},
};
use crate::*;

/// Returns the fingerprint of a request without a `request_id`.
fn identity(random: &mut SplitMix) -> RequestFingerprint {
    let mut id = [0; 16];
    random.fill_bytes(&mut id);
    RequestFingerprint {
        id,
        fields: [0; 16],
        writer: 0,
        named: false,
    }
}

pub(super) fn send_at(
    record: Option<Record>,
    policy: &PurposePolicy,
    now: Timestamp,
    random: &mut SplitMix,
) -> Decision<Result<SendOutcome, Refusal>> {
    let request = SendRequest {
        identity: identity(random),
        test: None,
        barred: None,
        caller: CallerName::new("crm"),
        recipient: Recipient::from_canonical(RECIPIENT.to_owned()),
        purpose: Purpose::default(),
        channel: Channel::Sms,
        message: None,
        keeps_channels: false,
    };
    send(record, &[], &request, policy, now, random)
}

impl World {
    /// Once the record may be purged, the next request gets the same reply without it.
    pub(super) fn check_purge(&self) -> TestCaseResult {
        let Some(record) = &self.record else {
            return Ok(());
        };
        let removable_at = record.purge_at(&self.policy);
        prop_assert!(
            removable_at >= record.written_at,
            "purged before its last write"
        );
        for later in [0, 60_000, 86_400_000] {
            let at = removable_at
                .max(self.now)
                .saturating_add(Duration::from_millis(later));
            prop_assert_eq!(
                self.replies(Some(record), at),
                self.replies(None, at),
                "{} ms after {:?}",
                later,
                record
            );
        }
        Ok(())
    }

    /// Returns the replies to all possible next requests.
    fn replies(&self, record: Option<&Record>, at: Timestamp) -> Vec<String> {
        let policy = &self.policy;
        let sent = send_at(record.cloned(), policy, at, &mut SplitMix(7));
        let sent = sent.outcome.map(|sent| {
            let code = sent
                .code
                .expect("a first send returns the code")
                .expose()
                .to_owned();
            (
                sent.challenge,
                code,
                sent.expires_at,
                sent.resend_at,
                sent.resent,
            )
        });
        let mut replies = vec![format!("{sent:?}")];
        for named in [Named::Nothing, Named::Newest, Named::First, Named::Foreign] {
            let challenge = self.selector(named);
            for typed in [Typed::Right, Typed::Wrong, Typed::TooShort] {
                let request = VerifyRequest {
                    identity: identity(&mut SplitMix(8)),
                    code: self.typed(typed),
                    challenge,
                    receipt: true,
                };
                let verdict = verify(record.cloned(), &[], &request, policy, at).outcome;
                replies.push(format!("{verdict:?}"));
            }
            let request = CancelRequest {
                identity: identity(&mut SplitMix(9)),
                challenge,
                reset_failures: false,
            };
            let cancelled = cancel(record.cloned(), &request, policy, at).outcome;
            let status = status(record.cloned(), challenge, policy, at).outcome;
            replies.push(format!("{cancelled:?} {status:?}"));
        }
        replies
    }
}
