//! Requests and replies of the use cases, in the types of the rules.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use tokio::time::Instant;

use super::ReceiptResult;
use crate::{
    engine::{CommandRequest, RateLimit},
    keys::KeyRing,
};
use otpd_rules::{
    Caller, ChallengeId, Channel, Command, DeliveryErrorKind, DeliveryState, Lockout, OtpCode,
    Purpose, PurposePolicy, RateLimitKind, Recipient, RecordKey, SubmittedCode, Timestamp,
    VerifyOutcome, site_network, subscriber_network,
};

/// Request to send a code.
#[derive(Debug)]
pub struct SendOtp {
    /// Recipient of the code.
    pub recipient: Recipient,
    /// Purpose of the code.
    pub purpose: Purpose,
    /// Channel of the message.
    pub channel: Channel,
    /// Language of the message.
    pub locale: String,
    /// Further variables of the text.
    pub variables: BTreeMap<String, String>,
    /// IP address of the end user.
    pub client_ip: Option<IpAddr>,
    /// Idempotency key, if the caller gave one.
    pub request_id: Option<String>,
}

/// Reply to a send.
#[derive(Debug)]
pub struct SendReply {
    /// Challenge of the code.
    pub challenge_id: ChallengeId,
    /// Instant at which the code expires.
    pub expires_at: Timestamp,
    /// Instant from which the next send is allowed.
    pub resend_at: Timestamp,
    /// Whether the live code was sent again.
    pub resent: bool,
    /// Number of digits of the code.
    pub code_length: u32,
    /// The code, for a caller that delivers by itself.
    pub code: Option<OtpCode>,
}

/// Request to verify a code.
#[derive(Debug)]
pub struct VerifyOtp {
    /// Recipient of the code.
    pub recipient: Recipient,
    /// Purpose of the code.
    pub purpose: Purpose,
    /// Submitted code.
    pub code: SubmittedCode,
    /// Challenge that the code must belong to, as the caller wrote it.
    pub challenge_id: Option<String>,
    /// IP address of the end user.
    pub client_ip: Option<IpAddr>,
    /// Idempotency key, if the caller gave one.
    pub request_id: Option<String>,
    /// Receipt to be issued if the code is correct.
    pub receipt: Option<ReceiptRequest>,
}

/// Receipt that a caller asks for.
#[derive(Debug)]
pub struct ReceiptRequest {
    /// Service that the receipt is for.
    pub audience: String,
    /// Value by which that service recognizes the receipt.
    pub nonce: String,
    /// True if the receipt is to state the recipient.
    pub include_recipient: bool,
}

/// Reply to a verification.
#[derive(Debug)]
pub struct VerifyReply {
    /// Outcome.
    pub verdict: VerifyOutcome,
    /// Challenge that the outcome is about.
    pub challenge_id: Option<ChallengeId>,
    /// Lockout that this failed attempt started, if any.
    pub lockout: Option<Lockout>,
    /// Receipt, if one was asked for and the code is correct.
    pub receipt: Option<ReceiptResult>,
}

/// Selector of a code: by recipient, by challenge, or by both.
#[derive(Debug)]
pub struct OtpSelector {
    /// Recipient of the code; `None` if the challenge alone selects it.
    pub recipient: Option<Recipient>,
    /// Purpose of the code.
    pub purpose: Purpose,
    /// Its challenge, as the caller wrote it.
    pub challenge_id: Option<String>,
}

impl OtpSelector {
    /// Returns a command about the record of `key`, without rate limits and without a message.
    pub(super) fn command_request(
        &self,
        command: Command,
        caller: &Arc<Caller>,
        key: RecordKey,
        deadline: Instant,
    ) -> CommandRequest {
        CommandRequest {
            command,
            caller: Arc::clone(caller),
            key,
            // A challenge id has a purpose of its own.
            purpose: self.recipient.as_ref().map(|_| self.purpose.clone()),
            limits: Vec::new(),
            deadline,
            outbox: None,
        }
    }
}

/// Request to cancel a code.
#[derive(Debug)]
pub struct CancelOtp {
    /// Code to cancel.
    pub subject: OtpSelector,
    /// Whether to reset the failed attempts as well.
    pub reset_failures: bool,
    /// Idempotency key, if the caller gave one.
    pub request_id: Option<String>,
}

/// Reply to a cancellation.
#[derive(Debug, Default)]
pub struct CancelReply {
    /// Challenge that was live, if any.
    pub challenge_id: Option<ChallengeId>,
    /// Whether failed attempts were reset.
    pub failures_reset: bool,
}

/// State of a code.
#[derive(Debug)]
pub struct StatusReply {
    /// State, as the rules show it.
    pub status: otpd_rules::CodeStatus,
    /// Challenge of the live code.
    pub challenge_id: Option<ChallengeId>,
    /// Recipient, if it is known.
    pub recipient: Option<Recipient>,
    /// Deliveries of the newest challenge, oldest first.
    pub deliveries: Vec<DeliverySummary>,
}

/// One delivery attempt of a message; or a message that waits, or ended without an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliverySummary {
    /// Configured name of the provider; empty if there is none yet.
    pub provider: String,
    /// Channel of the provider.
    pub channel: Channel,
    /// State of the delivery.
    pub state: DeliveryState,
    /// Start of the attempt; for a waiting message, instant of its request.
    pub created_at: Timestamp,
    /// End of the attempt, or last change of the message's state.
    pub updated_at: Timestamp,
    /// Number of this attempt of its message; for a waiting message, number of attempts so far.
    pub attempts: u32,
    /// Error of a failed attempt.
    pub error: Option<DeliveryErrorKind>,
}

impl SendOtp {
    /// Returns the fields that the outcome depends on. The client's address is none: a retry may
    /// come from another one.
    pub(super) fn fields(&self) -> Vec<&str> {
        let Self {
            recipient,
            purpose,
            channel,
            locale,
            variables,
            ..
        } = self;
        let fields = [recipient.as_str(), purpose.as_str(), channel.name(), locale];
        let variables = variables
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value]);
        fields.into_iter().chain(variables).collect()
    }

    /// Returns the rate limits of sends that are shared between records.
    pub(super) fn limits(
        &self,
        keys: &KeyRing,
        caller: &Caller,
        policy: &PurposePolicy,
    ) -> Vec<RateLimit> {
        let by_client = client_limits(
            self.client_ip,
            RateLimitKind::IpSendsPerHour,
            RateLimitKind::IpSiteSendsPerHour,
        );
        let by_prefix = self.recipient.dialling_prefix();
        let by_prefix =
            by_prefix.map(|prefix| (RateLimitKind::PrefixSendsPerDay, prefix.to_owned()));
        let by_caller = (RateLimitKind::CallerSendsPerDay, String::new());
        by_client
            .chain(by_prefix)
            .chain([by_caller])
            .filter_map(|(name, subject)| limit(keys, caller, policy, name, &subject))
            .collect()
    }
}

impl VerifyOtp {
    /// Returns the fields that the outcome depends on. Those of a receipt follow only if one is
    /// asked for, because fingerprints of requests without a receipt are stored without them.
    pub(super) fn fields(&self) -> Vec<&str> {
        let Self {
            recipient,
            purpose,
            code,
            challenge_id,
            ..
        } = self;
        let challenge_id = challenge_id.as_deref().unwrap_or_default();
        let mut fields = vec![
            recipient.as_str(),
            purpose.as_str(),
            code.expose(),
            challenge_id,
        ];
        if let Some(receipt) = &self.receipt {
            let recipient = if receipt.include_recipient {
                "recipient"
            } else {
                ""
            };
            fields.extend([receipt.audience.as_str(), &receipt.nonce, recipient]);
        }
        fields
    }

    /// Returns the rate limits of failed attempts that are shared between records.
    pub(super) fn limits(
        &self,
        keys: &KeyRing,
        caller: &Caller,
        policy: &PurposePolicy,
    ) -> Vec<RateLimit> {
        let by_client = client_limits(
            self.client_ip,
            RateLimitKind::IpFailuresPerHour,
            RateLimitKind::IpSiteFailuresPerHour,
        );
        by_client
            .filter_map(|(name, subject)| limit(keys, caller, policy, name, &subject))
            .collect()
    }
}

impl CancelOtp {
    /// Returns the fields that the outcome depends on.
    pub(super) fn fields(&self) -> [&str; 4] {
        let OtpSelector {
            recipient,
            purpose,
            challenge_id,
        } = &self.subject;
        let recipient = recipient
            .as_ref()
            .map(Recipient::as_str)
            .unwrap_or_default();
        let challenge_id = challenge_id.as_deref().unwrap_or_default();
        let reset = if self.reset_failures { "reset" } else { "" };
        [recipient, purpose.as_str(), challenge_id, reset]
    }
}

/// Returns a rate limit, unless it is off.
fn limit(
    keys: &KeyRing,
    caller: &Caller,
    policy: &PurposePolicy,
    name: RateLimitKind,
    subject: &str,
) -> Option<RateLimit> {
    let rate = policy.rate(name)?;
    Some(RateLimit {
        key: keys.limit_key(&caller.name, name, subject),
        name,
        rate,
    })
}

/// Returns the rate limits of a client address: of its subscriber, and of its site if it has one.
fn client_limits(
    address: Option<IpAddr>,
    subscriber: RateLimitKind,
    site: RateLimitKind,
) -> impl Iterator<Item = (RateLimitKind, String)> {
    let by_subscriber = address.map(|address| {
        let network = match subscriber_network(address) {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(network) => groups::<4>(network),
        };
        (subscriber, network)
    });
    let by_site = address.and_then(site_network);
    let by_site = by_site.map(|network| (site, groups::<3>(network)));
    by_subscriber.into_iter().chain(by_site)
}

/// Returns the first `COUNT` groups of an IPv6 network. The keys of rate limits in the store
/// are made of this text, so it must not change.
fn groups<const COUNT: usize>(network: Ipv6Addr) -> String {
    let groups = network.segments();
    let groups: Vec<_> = groups[..COUNT]
        .iter()
        .map(|group| format!("{group:x}"))
        .collect();
    groups.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_distinguished_by_address_or_subnet() {
        let limits = |text: &str| -> Vec<_> {
            let (subscriber, site) = (
                RateLimitKind::IpSendsPerHour,
                RateLimitKind::IpSiteSendsPerHour,
            );
            let address = Some(text.parse().unwrap());
            client_limits(address, subscriber, site)
                .map(|(_, network)| network)
                .collect()
        };
        for ipv4 in ["203.0.113.7", "::ffff:203.0.113.7", "64:ff9b::203.0.113.7"] {
            assert_eq!(limits(ipv4), ["203.0.113.7"], "{ipv4}");
        }
        let both = ["2001:db8:1:2", "2001:db8:1"];
        assert_eq!(limits("2001:db8:1:2::1"), both);
        assert_eq!(limits("2001:db8:1:2:ffff::9"), both);
        assert_eq!(limits("2001:db8:1:3::1"), ["2001:db8:1:3", "2001:db8:1"]);
        assert_eq!(limits("fd00:1:2:3::1"), ["fd00:1:2:3"]);
    }
}
