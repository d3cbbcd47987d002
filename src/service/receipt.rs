//! Receipts: signed statements that a recipient was verified, for services that do not ask otpd.

use std::fmt;

use serde::Serialize;

use super::{OtpService, ReceiptRequest, ServiceError, VerifyOtp};
use crate::keys::SignError;
use otpd_rules::{Caller, ChallengeId, Channel, ReceiptGrant, RequestFingerprint, Timestamp};

/// Issuer of receipts.
#[derive(Clone, Debug)]
pub struct ReceiptIssuer {
    /// Name in the claim `iss`.
    pub name: String,
}

/// Receipt: a JWS in compact form. It proves a verification to its audience, so it is never
/// shown in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Receipt(String);

impl Receipt {
    /// Returns the text, for the reply.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Receipt(…)")
    }
}

/// Result of a request for a receipt, with a correct code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptResult {
    /// It was issued.
    Issued(Receipt),
    /// There is none: no channel is known to have carried the code, as for a test recipient, or
    /// the receipt has expired.
    Withheld,
    /// It could not be signed. The code is verified all the same.
    Failed(SignError),
}

/// A request that was verified.
pub(super) struct VerifiedRequest<'a> {
    pub caller: &'a Caller,
    pub request: &'a VerifyOtp,
    pub asked: &'a ReceiptRequest,
    pub identity: RequestFingerprint,
    pub challenge_id: ChallengeId,
}

/// Claims of a receipt, in the order in which they are written.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    azp: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
    nonce: &'a str,
    amr: Vec<&'static str>,
    purpose: &'a str,
    challenge_id: String,
    #[serde(flatten)]
    recipient: Option<RecipientClaims<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RecipientClaims<'a> {
    Phone {
        phone_number: &'a str,
        phone_number_verified: bool,
    },
    Email {
        email: &'a str,
        email_verified: bool,
    },
}

impl ReceiptRequest {
    /// Checks that the caller may have this receipt.
    pub(super) fn permit(&self, caller: &Caller) -> Result<(), ServiceError> {
        if !caller.receipt_audiences.contains(&self.audience) {
            let problem = "no audience of this caller; add it to receipt_audiences of the caller, or leave receipt unset";
            return Err(ServiceError::request("receipt.audience", problem));
        }
        if self.include_recipient && !caller.may_include_recipient {
            let problem = "not allowed for this caller; leave it unset, or set may_include_recipient of the caller";
            return Err(ServiceError::request("receipt.include_recipient", problem));
        }
        Ok(())
    }
}

impl OtpService {
    /// Issues a receipt, if the rules grant one.
    pub(super) fn issue_receipt(
        &self,
        grant: Option<ReceiptGrant>,
        verified: &VerifiedRequest<'_>,
    ) -> ReceiptResult {
        let (Some(grant), Some(issuer)) = (grant, &self.receipts) else {
            return ReceiptResult::Withheld;
        };
        let keys = &self.engine.keys;
        let VerifiedRequest {
            caller,
            request,
            asked,
            identity,
            challenge_id,
        } = verified;
        let recipient = &request.recipient;
        let stated = asked
            .include_recipient
            .then(|| RecipientClaims::of(recipient.as_str(), recipient.is_email()));
        let claims = Claims {
            iss: &issuer.name,
            sub: keys.receipt_subject(&asked.audience, recipient),
            aud: &asked.audience,
            azp: caller.name.as_str(),
            iat: seconds(grant.issued_at),
            exp: seconds(grant.expires_at),
            jti: keys.receipt_id(challenge_id, identity),
            nonce: &asked.nonce,
            amr: std::iter::once("otp")
                .chain(grant.channels.iter().map(method_reference))
                .collect(),
            purpose: request.purpose.as_str(),
            challenge_id: challenge_id.to_string(),
            recipient: stated,
        };
        let claims = serde_json::to_vec(&claims).expect("claims are texts, numbers and switches");
        match keys.sign_receipt(grant.issued_at, &claims) {
            Ok(receipt) => ReceiptResult::Issued(Receipt(receipt)),
            Err(error) => ReceiptResult::Failed(error),
        }
    }
}

impl<'a> RecipientClaims<'a> {
    /// Returns the claims of OpenID Connect Core 1.0, section 5.1.
    const fn of(recipient: &'a str, is_email: bool) -> Self {
        if is_email {
            Self::Email {
                email: recipient,
                email_verified: true,
            }
        } else {
            Self::Phone {
                phone_number: recipient,
                phone_number_verified: true,
            }
        }
    }
}

/// Returns the authentication method reference of a channel: `sms` and `tel` are those of RFC
/// 8176, which has none for the other channels.
const fn method_reference(channel: Channel) -> &'static str {
    match channel {
        Channel::Voice => "tel",
        Channel::Sms | Channel::Email | Channel::WhatsApp | Channel::Telegram => channel.name(),
    }
}

const fn seconds(at: Timestamp) -> i64 {
    at.milliseconds().div_euclid(1_000)
}
