//! Conversion of requests of the contract to commands of the service.

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use super::v1;
use crate::service::{CancelOtp, OtpSelector, ReceiptRequest, SendOtp, ServiceError, VerifyOtp};
use otpd_rules::{Channel, Purpose, Recipient, Region, SubmittedCode};

/// RFC 5646, section 4.4.1: the shortest length that a buffer for tags may have.
const MAX_LOCALE_BYTES: usize = 35;
const MAX_REQUEST_ID_BYTES: usize = 128;
const MAX_CHALLENGE_ID_BYTES: usize = 256;
const MAX_AUDIENCE_BYTES: usize = 256;
/// Length of a nonce: at least that of 12 random bytes in base64, so that it cannot be guessed.
const NONCE_BYTES: RangeInclusive<usize> = 16..=128;
const MAX_VARIABLES: usize = 32;
const MAX_VARIABLE_NAME_BYTES: usize = 32;
const MAX_VARIABLE_VALUE_BYTES: usize = 256;

type Result<T> = std::result::Result<T, ServiceError>;

/// Converts a `SendOtp` request; `region` is the default for phone numbers without a country
/// code.
///
/// # Errors
/// The first invalid field. The error never contains its value.
pub fn send(request: &v1::SendOtpRequest, region: Option<Region>) -> Result<SendOtp> {
    let recipient = recipient(&request.recipient, &request.region, region)?;
    let purpose = Purpose::parse(&request.purpose)?;
    let channel = channel(request.channel, &recipient)?;
    check_locale(&request.locale)?;
    check_variables(&request.variables)?;
    Ok(SendOtp {
        recipient,
        purpose,
        channel,
        locale: request.locale.clone(),
        variables: request.variables.clone().into_iter().collect(),
        client_ip: client_ip(&request.client_ip)?,
        request_id: request_id(&request.request_id)?,
    })
}

/// Converts a `VerifyOtp` request.
///
/// # Errors
/// The first invalid field. The error never contains its value.
pub fn verify(request: &v1::VerifyOtpRequest, region: Option<Region>) -> Result<VerifyOtp> {
    let recipient = recipient(&request.recipient, &request.region, region)?;
    let purpose = Purpose::parse(&request.purpose)?;
    let code = SubmittedCode::parse(&request.code)?;
    let challenge_id = challenge_id(&request.challenge_id)?;
    let client_ip = client_ip(&request.client_ip)?;
    let request_id = request_id(&request.request_id)?;
    let receipt = request.receipt.as_ref().map(receipt).transpose()?;
    Ok(VerifyOtp {
        recipient,
        purpose,
        code,
        challenge_id,
        client_ip,
        request_id,
        receipt,
    })
}

fn receipt(request: &v1::ReceiptRequest) -> Result<ReceiptRequest> {
    let audience = visible_ascii("receipt.audience", &request.audience, MAX_AUDIENCE_BYTES)?;
    let audience = audience.ok_or_else(|| {
        let problem = "required; give one of the receipt_audiences of this caller";
        invalid("receipt.audience", problem)
    })?;
    let nonce = visible_ascii("receipt.nonce", &request.nonce, *NONCE_BYTES.end())?;
    let nonce = nonce.filter(|nonce| NONCE_BYTES.contains(&nonce.len()));
    let nonce = nonce.ok_or_else(|| {
        let (min, max) = (NONCE_BYTES.start(), NONCE_BYTES.end());
        let problem = format!(
            "must be {min} to {max} visible ASCII characters, generated at random by the audience"
        );
        invalid("receipt.nonce", problem)
    })?;
    Ok(ReceiptRequest {
        audience,
        nonce,
        include_recipient: request.include_recipient,
    })
}

/// Converts a `CancelOtp` request.
///
/// # Errors
/// The first invalid field. The error never contains its value.
pub fn cancel(request: &v1::CancelOtpRequest, region: Option<Region>) -> Result<CancelOtp> {
    let subject = subject(
        &request.recipient,
        &request.purpose,
        &request.challenge_id,
        &request.region,
        region,
    )?;
    let request_id = request_id(&request.request_id)?;
    Ok(CancelOtp {
        subject,
        reset_failures: request.reset_failures,
        request_id,
    })
}

/// Converts a `GetOtpStatus` request to the selector of its code.
///
/// # Errors
/// The first invalid field. The error never contains its value.
pub fn status(request: &v1::GetOtpStatusRequest, region: Option<Region>) -> Result<OtpSelector> {
    let v1::GetOtpStatusRequest {
        recipient,
        purpose,
        region: requested_region,
        challenge_id,
    } = request;
    subject(recipient, purpose, challenge_id, requested_region, region)
}

fn subject(
    written: &str,
    purpose: &str,
    challenge: &str,
    requested_region: &str,
    region: Option<Region>,
) -> Result<OtpSelector> {
    let challenge_id = challenge_id(challenge)?;
    let recipient = match (written.is_empty(), &challenge_id) {
        (true, Some(_)) => None,
        _ => Some(recipient(written, requested_region, region)?),
    };
    Ok(OtpSelector {
        recipient,
        purpose: Purpose::parse(purpose)?,
        challenge_id,
    })
}

fn recipient(
    written: &str,
    requested_region: &str,
    default_region: Option<Region>,
) -> Result<Recipient> {
    let region = if requested_region.is_empty() {
        default_region
    } else {
        Some(
            requested_region
                .parse()
                .map_err(|error| invalid("region", error))?,
        )
    };
    Ok(Recipient::parse(written, region)?)
}

fn channel(number: i32, recipient: &Recipient) -> Result<Channel> {
    let channel = match v1::Channel::try_from(number) {
        Ok(v1::Channel::Unspecified) => Channel::default_for(recipient),
        Ok(v1::Channel::Sms) => Channel::Sms,
        Ok(v1::Channel::Email) => Channel::Email,
        Ok(v1::Channel::Voice) => Channel::Voice,
        Ok(v1::Channel::Whatsapp) => Channel::WhatsApp,
        Ok(v1::Channel::Telegram) => Channel::Telegram,
        Err(_) => {
            // The text has no number from the request, because it may be a misplaced code.
            return Err(invalid("channel", "not a channel of this version"));
        }
    };
    if channel.reaches(recipient) {
        return Ok(channel);
    }
    let problem = if recipient.is_email() {
        format!("{channel} needs a phone number, not an e-mail address; leave it unset")
    } else {
        format!("{channel} needs an e-mail address, not a phone number; leave it unset")
    };
    Err(invalid("channel", problem))
}

fn challenge_id(text: &str) -> Result<Option<String>> {
    visible_ascii("challenge_id", text, MAX_CHALLENGE_ID_BYTES)
}

fn request_id(text: &str) -> Result<Option<String>> {
    visible_ascii("request_id", text, MAX_REQUEST_ID_BYTES)
}

fn visible_ascii(field: &'static str, text: &str, max: usize) -> Result<Option<String>> {
    if text.len() <= max && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok((!text.is_empty()).then(|| text.to_owned()));
    }
    let problem = format!("must be at most {max} visible ASCII characters, without spaces");
    Err(invalid(field, problem))
}

fn check_locale(locale: &str) -> Result<()> {
    let is_subtag = |subtag: &str| {
        (1..=8).contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let well_formed = locale.is_empty()
        || locale.len() <= MAX_LOCALE_BYTES
            && locale
                .bytes()
                .take(2)
                .all(|byte| byte.is_ascii_alphabetic())
            && locale.len() >= 2
            && locale.split('-').all(is_subtag);
    if well_formed {
        return Ok(());
    }
    Err(invalid(
        "locale",
        "not a BCP 47 language tag; give e.g. \"ru\" or \"en-GB\", or leave it empty",
    ))
}

fn client_ip(text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let problem = "not an IPv4 or IPv6 address; give e.g. 203.0.113.7, or leave it empty";
    text.parse()
        .map(Some)
        .map_err(|_| invalid("client_ip", problem))
}

fn check_variables(variables: &HashMap<String, String>) -> Result<()> {
    if variables.len() > MAX_VARIABLES {
        return Err(invalid(
            "variables",
            format!("too many; give at most {MAX_VARIABLES}"),
        ));
    }
    for (name, value) in variables {
        let named = (1..=MAX_VARIABLE_NAME_BYTES).contains(&name.len())
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !named {
            // The text has no name from the request, because it may be a misplaced value.
            return Err(invalid(
                "variables",
                "a name must be a lower-case letter and up to 31 of a-z, 0-9 and _",
            ));
        }
        if value.len() > MAX_VARIABLE_VALUE_BYTES || value.chars().any(char::is_control) {
            return Err(invalid(
                "variables",
                format!(
                    "{name}: at most {MAX_VARIABLE_VALUE_BYTES} bytes without control characters"
                ),
            ));
        }
    }
    Ok(())
}

fn invalid(field: &'static str, problem: impl ToString) -> ServiceError {
    ServiceError::request(field, problem.to_string())
}
