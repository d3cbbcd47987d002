//! Conversion of calls of the model to requests of the contract, and of replies back.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use otpd::grpc::v1::{
    self, CancelOtpRequest, CancelOtpResponse, GetOtpStatusRequest, GetOtpStatusResponse,
    ReceiptRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest, VerifyOtpResponse,
    VerifyOutcome, otp_service_client::OtpServiceClient,
};
use otpd_model::{Call, Command, Observed, Outcome, Settings};
use prost_types::Timestamp;
use serde_json::Value;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    transport::Channel,
};
use tonic_types::StatusExt as _;

use crate::{
    settings::token,
    support::{AnyRequest, Refusal, milliseconds},
};

/// Audience of all receipts.
const AUDIENCE: &str = "https://shop.example";
/// Channels by their numbers in the model.
const CHANNELS: [v1::Channel; 2] = [v1::Channel::Unspecified, v1::Channel::Voice];

/// Makes `call` and converts its reply. `spelling` selects one of the spellings of a recipient,
/// a code and a purpose.
///
/// # Errors
/// A failure that is not a refusal by the rules.
pub async fn make(
    channel: Channel,
    settings: &Settings,
    call: &Call,
    spelling: usize,
    metadata: impl Fn(&mut MetadataMap),
) -> Result<Observed, Status> {
    let caller = &settings.callers[call.record.caller];
    let authorization: MetadataValue<Ascii> = format!("Bearer {}", token(caller))
        .parse()
        .expect("tokens are ASCII");
    let authenticate = |mut request: Request<()>| {
        request
            .metadata_mut()
            .insert("authorization", authorization.clone());
        metadata(request.metadata_mut());
        Ok(request)
    };
    let mut client = OtpServiceClient::with_interceptor(channel, authenticate);
    let observed = match request(settings, call, spelling) {
        AnyRequest::Send(message) => {
            let reply = client.send_otp(message).await;
            reply.map(|reply| sent(reply.into_inner(), call))
        }
        AnyRequest::Verify(message) => {
            let reply = client.verify_otp(message).await;
            reply.map(|reply| verdict(reply.into_inner(), call))
        }
        AnyRequest::Cancel(message) => {
            let reply = client.cancel_otp(message).await;
            reply.map(|reply| cancelled(reply.into_inner()))
        }
        AnyRequest::Status(message) => {
            let reply = client.get_otp_status(message).await;
            reply.map(|reply| status(reply.into_inner(), call))
        }
    };
    observed.or_else(refused)
}

/// Returns the request of `call`.
fn request(settings: &Settings, call: &Call, spelling: usize) -> AnyRequest {
    let purpose = match settings.policies[call.record.purpose].name {
        // An empty purpose is the default one.
        "default" if spelling.is_multiple_of(2) => String::new(),
        name => name.to_owned(),
    };
    let (recipient, purpose) = match call.command {
        Command::Cancel { by_challenge, .. } | Command::Status { by_challenge, .. }
            if by_challenge =>
        {
            (String::new(), String::new())
        }
        _ => (spelled_recipient(&call.record.recipient, spelling), purpose),
    };
    let request_id = call.request_id.clone().unwrap_or_default();
    let address = |network: &Option<String>| {
        let host = |network: &String| format!("{network}::{:x}", spelling + 1);
        network.as_ref().map(host).unwrap_or_default()
    };
    match call.command.clone() {
        Command::Send {
            content,
            channel,
            network,
        } => AnyRequest::Send(SendOtpRequest {
            recipient,
            purpose,
            channel: CHANNELS[usize::from(channel)].into(),
            locale: ["", "ru", "en-GB"][usize::from(content) % 3].to_owned(),
            client_ip: address(&network),
            request_id,
            ..Default::default()
        }),
        Command::Verify {
            code,
            challenge,
            network,
            receipt,
        } => AnyRequest::Verify(VerifyOtpRequest {
            recipient,
            purpose,
            code: spelled_code(&code, spelling),
            challenge_id: challenge.unwrap_or_default(),
            client_ip: address(&network),
            request_id,
            receipt: receipt.map(|number| ReceiptRequest {
                audience: AUDIENCE.to_owned(),
                nonce: format!("nonce-of-request-{number}"),
                include_recipient: false,
            }),
            ..Default::default()
        }),
        Command::Cancel {
            challenge,
            reset_failures,
            ..
        } => AnyRequest::Cancel(CancelOtpRequest {
            recipient,
            purpose,
            challenge_id: challenge.unwrap_or_default(),
            reset_failures,
            request_id,
            ..Default::default()
        }),
        Command::Status { challenge, .. } => AnyRequest::Status(GetOtpStatusRequest {
            recipient,
            purpose,
            challenge_id: challenge.unwrap_or_default(),
            ..Default::default()
        }),
    }
}

/// Returns another spelling of a canonical recipient.
fn spelled_recipient(recipient: &str, spelling: usize) -> String {
    let Some(national) = recipient.strip_prefix("+7") else {
        return match spelling % 3 {
            0 => recipient.to_owned(),
            1 => recipient.to_uppercase(),
            _ => format!(" {recipient} "),
        };
    };
    let (area, rest) = national.split_at(3);
    match spelling % 4 {
        0 => recipient.to_owned(),
        1 => format!("8 ({area}) {}-{}-{}", &rest[..3], &rest[3..5], &rest[5..]),
        2 => format!("+7 {area} {rest}"),
        _ => national.to_owned(),
    }
}

/// Returns another spelling of a code: with blanks, hyphens or digits of another script.
fn spelled_code(code: &str, spelling: usize) -> String {
    match spelling % 4 {
        1 if code.len() > 3 => format!("{}-{}", &code[..3], &code[3..]),
        2 => format!(" {code} "),
        3 => code
            .chars()
            .map(|digit| {
                digit
                    .to_digit(10)
                    .and_then(|value| char::from_u32(0x660 + value))
            })
            .collect::<Option<String>>()
            .unwrap_or_else(|| code.to_owned()),
        _ => code.to_owned(),
    }
}

fn sent(reply: SendOtpResponse, call: &Call) -> Observed {
    assert_eq!(reply.recipient, call.record.recipient);
    assert!(
        reply.code.is_empty()
            || reply.code.len() == usize::try_from(reply.code_length).expect("few")
    );
    Observed::Sent {
        challenge: reply.challenge_id,
        expires_at: milliseconds(reply.expires_at),
        resend_at: milliseconds(reply.resend_at),
        resent: reply.resent,
        code: reply.code,
    }
}

fn verdict(reply: VerifyOtpResponse, call: &Call) -> Observed {
    assert_eq!(reply.recipient, call.record.recipient);
    let outcome = match reply.outcome() {
        VerifyOutcome::Verified => Outcome::Verified,
        VerifyOutcome::WrongCode => Outcome::WrongCode,
        VerifyOutcome::Expired => Outcome::Expired,
        VerifyOutcome::AttemptsExhausted => Outcome::AttemptsExhausted,
        VerifyOutcome::NotFound => Outcome::NotFound,
        VerifyOutcome::Unspecified => panic!("every reply has an outcome"),
    };
    assert_eq!(reply.verified, outcome == Outcome::Verified);
    Observed::Verdict {
        outcome,
        remaining: reply.attempts_remaining,
        challenge: reply.challenge_id,
        verified_at: reply.verified_at.map(|at| milliseconds(Some(at))),
        receipt: (!reply.receipt.is_empty()).then(|| receipt(&reply.receipt, call)),
    }
}

/// Returns the time of a receipt, and the numbers of the channels that it names.
fn receipt(text: &str, call: &Call) -> (i64, BTreeSet<u8>) {
    let Command::Verify {
        receipt: Some(number),
        ..
    } = call.command
    else {
        panic!("{call:?} asks for no receipt");
    };
    let claims = text.split('.').nth(1).expect("a JWS has three parts");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!(claims["aud"], AUDIENCE);
    assert_eq!(claims["nonce"], format!("nonce-of-request-{number}"));
    let seconds = |name: &str| claims[name].as_i64().expect("a number");
    assert_eq!(seconds("exp") - seconds("iat"), 300);
    let methods = claims["amr"].as_array().expect("a list");
    let channels = methods.iter().filter_map(|method| match method.as_str() {
        Some("sms" | "email") => Some(0),
        Some("tel") => Some(1),
        _ => None,
    });
    (seconds("iat") * 1_000, channels.collect())
}

fn cancelled(reply: CancelOtpResponse) -> Observed {
    Observed::Cancelled {
        cancelled: reply.cancelled,
        reset: reply.failures_reset,
    }
}

fn status(reply: GetOtpStatusResponse, call: &Call) -> Observed {
    assert!(reply.recipient.is_empty() || reply.recipient == call.record.recipient);
    let optional = |at: Option<Timestamp>| at.map(|at| milliseconds(Some(at)));
    assert_eq!(reply.live, !reply.challenge_id.is_empty());
    assert_eq!(reply.live, reply.expires_at.is_some());
    assert!(reply.live || reply.attempts_remaining == 0);
    let live = reply.expires_at.map(|at| {
        let expires_at = milliseconds(Some(at));
        (reply.challenge_id, expires_at, reply.attempts_remaining)
    });
    Observed::Status {
        live,
        resend_at: optional(reply.resend_at),
        blocked_until: optional(reply.blocked_until),
    }
}

/// Converts a refusal of the rules; returns any other error.
fn refused(status: Status) -> Result<Observed, Status> {
    let by_rule = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::ResourceExhausted
    );
    let details = status.get_error_details();
    let (true, Some(info)) = (by_rule, details.error_info()) else {
        return Err(status);
    };
    let metadata = |key: &str| info.metadata.get(key).cloned();
    let wait = Refusal::of(&status).wait;
    let live = metadata("challenge_id").map(|id| {
        let at = metadata("expires_at").expect("it is beside challenge_id");
        let at = humantime::parse_rfc3339(&at).expect("RFC 3339");
        let at = at
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970");
        (id, i64::try_from(at.as_millis()).expect("milliseconds fit"))
    });
    Ok(Observed::Refused {
        reason: info.reason.clone(),
        limit: metadata("limit"),
        wait: wait.map(|wait| i64::try_from(wait.as_millis()).expect("a short wait")),
        live,
    })
}
