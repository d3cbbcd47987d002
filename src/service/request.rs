//! Requests and replies of the use cases, in the types of the rules.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use crate::{engine::RateLimit, keys::KeyRing};
use otpd_rules::{
    Caller, ChallengeId, Channel, DeliveryErrorKind, Lockout, OtpCode, Purpose, PurposePolicy,
    RateLimitKind, Recipient, SubmittedCode, Timestamp, VerifyOutcome, site_network,
    subscriber_network,
};

/// A code that is asked for.
#[derive(Debug)]
pub struct SendOtp {
    /// Whom to send to.
    pub recipient: Recipient,
    /// What it is for.
    pub purpose: Purpose,
    /// How it travels.
    pub channel: Channel,
    /// The language of its message.
    pub locale: String,
    /// What its message says besides.
    pub variables: BTreeMap<String, String>,
    /// Where the end user is.
    pub client_ip: Option<IpAddr>,
    /// Which request it is.
    pub request_id: Option<String>,
}

/// A code that was sent.
#[derive(Debug)]
pub struct SendReply {
    /// Its challenge.
    pub challenge_id: ChallengeId,
    /// When it dies.
    pub expires_at: Timestamp,
    /// When the next send is allowed.
    pub resend_at: Timestamp,
    /// Whether it was the same code again.
    pub resent: bool,
    /// How many digits it has.
    pub code_length: u32,
    /// The code, for a caller that delivers by itself.
    pub code: Option<OtpCode>,
}

/// A code that was typed.
#[derive(Debug)]
pub struct VerifyOtp {
    /// Who typed it.
    pub recipient: Recipient,
    /// What it is for.
    pub purpose: Purpose,
    /// What was typed.
    pub code: SubmittedCode,
    /// The challenge that it must belong to, as the caller wrote it.
    pub challenge_id: Option<String>,
    /// Where the end user is.
    pub client_ip: Option<IpAddr>,
    /// Which request it is.
    pub request_id: Option<String>,
}

/// The verdict on a typed code.
#[derive(Debug)]
pub struct VerifyReply {
    /// The verdict.
    pub verdict: VerifyOutcome,
    /// The challenge that it is about.
    pub challenge_id: Option<ChallengeId>,
    /// Lockout that this failed attempt started, if any.
    pub lockout: Option<Lockout>,
}

/// Whose code a request is about: a recipient's, a challenge's, or both.
#[derive(Debug)]
pub struct OtpSelector {
    /// Whose it is; `None`: the challenge tells.
    pub recipient: Option<Recipient>,
    /// What it is for.
    pub purpose: Purpose,
    /// Its challenge, as the caller wrote it.
    pub challenge_id: Option<String>,
}

impl OtpSelector {
    /// The purpose, if the recipient is named with it; a challenge id has its own.
    pub(super) fn named_purpose(&self) -> Option<Purpose> {
        self.recipient.as_ref().map(|_| self.purpose.clone())
    }
}

/// A code to be ended.
#[derive(Debug)]
pub struct CancelOtp {
    /// Whose.
    pub subject: OtpSelector,
    /// Whether to forget wrong answers, too.
    pub reset_failures: bool,
    /// Which request it is.
    pub request_id: Option<String>,
}

/// What was ended.
#[derive(Debug, Default)]
pub struct CancelReply {
    /// The code that lived.
    pub challenge_id: Option<ChallengeId>,
    /// Whether wrong answers were forgotten.
    pub failures_reset: bool,
}

/// What is known of a code.
#[derive(Debug)]
pub struct StatusReply {
    /// What is known.
    pub status: otpd_rules::CodeStatus,
    /// The live code's challenge.
    pub challenge_id: Option<ChallengeId>,
    /// The recipient, where it is known.
    pub recipient: Option<Recipient>,
    /// What became of the messages of the newest challenge, oldest first.
    pub deliveries: Vec<DeliverySummary>,
}

/// One attempt to hand a message to a provider; or a message that waits, or was given up
/// without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliverySummary {
    /// The provider's configured name; empty where there was none yet.
    pub provider: String,
    /// The channel that it sends by.
    pub channel: Channel,
    /// How far it has come.
    pub state: DeliveryState,
    /// When the attempt started; when a message that waits was asked for.
    pub created_at: Timestamp,
    /// When its end was known, or its state changed last.
    pub updated_at: Timestamp,
    /// The how manieth attempt of its message it is; how many a message had that waits.
    pub attempts: u32,
    /// Why it failed, if it did.
    pub error: Option<DeliveryErrorKind>,
}

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// Waiting for a provider.
    Queued,
    /// Being handed to a provider.
    Sending,
    /// Taken by a provider.
    Sent,
    /// Not taken.
    Failed,
    /// Not sent, because its code died first.
    Dropped,
}

impl SendOtp {
    /// What the answer depends on. Not the client's address: a retry may come by
    /// another way.
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

    /// The limits on sends that are not the record's own.
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
            .filter_map(|(name, whom)| limit(keys, caller, policy, name, &whom))
            .collect()
    }
}

impl VerifyOtp {
    /// What the answer depends on.
    pub(super) fn fields(&self) -> [&str; 4] {
        let Self {
            recipient,
            purpose,
            code,
            challenge_id,
            ..
        } = self;
        let challenge_id = challenge_id.as_deref().unwrap_or_default();
        [
            recipient.as_str(),
            purpose.as_str(),
            code.expose(),
            challenge_id,
        ]
    }

    /// Limits on wrong answers that are not the record's own.
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
            .filter_map(|(name, whom)| limit(keys, caller, policy, name, &whom))
            .collect()
    }
}

impl CancelOtp {
    /// What the answer depends on.
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

/// A limit, unless it is off.
fn limit(
    keys: &KeyRing,
    caller: &Caller,
    policy: &PurposePolicy,
    name: RateLimitKind,
    whom: &str,
) -> Option<RateLimit> {
    let rate = policy.rate(name)?;
    Some(RateLimit {
        key: keys.limit_key(&caller.name, name, whom),
        name,
        rate,
    })
}

/// Limits of a client by its address: of its subscriber, and of its site if it has one.
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

/// The first `COUNT` groups of a network of IPv6. Keys of limits in the store are made of
/// this text, so it stays as it is.
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
                .map(|(_, whom)| whom)
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
