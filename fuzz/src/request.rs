//! Messages of the contract, from bytes to the service's requests.

use std::{fmt::Debug, sync::LazyLock};

use otpd::{
    grpc::{convert, v1},
    service::ServiceError,
};
use otpd_rules::{ChallengeId, Recipient, Region};
use prost::Message;
use tonic::Status;

use crate::bytes::Bytes;

/// Length of a run of digits that may be from a code or a number.
const RUN: usize = 6;
/// Number that errors give as an example.
const EXAMPLE: &str = "+79991234567";
/// Region in which a national number is read.
static REGION: LazyLock<Region> = LazyLock::new(|| "RU".parse().expect("RU has phone numbers"));

/// Checks that an accepted request has only canonical values, and that a rejected one
/// returns a short error without its values.
pub fn request(data: &[u8]) {
    let mut input = Bytes(data);
    let choice = input.byte();
    let region = (choice & 4 == 0).then_some(*REGION);
    match choice & 3 {
        0 => send(input.0, region),
        1 => verify(input.0, region),
        2 => cancel(input.0, region),
        _ => status(input.0, region),
    }
}

/// Checks an error for a text that cannot be read.
pub fn is_refused(error: ServiceError, text: &str) {
    let runs = text.split(|letter: char| !letter.is_ascii_digit());
    let runs: Vec<&str> = runs.filter(|run| run.len() >= RUN).collect();
    is_discreet(error, &runs);
}

/// Decodes the message, if it is one, and checks that it round-trips.
fn decoded<T: Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let message = T::decode(bytes).ok()?;
    let again = T::decode(message.encode_to_vec().as_slice());
    assert_eq!(again.as_ref(), Ok(&message));
    Some(message)
}

fn send(bytes: &[u8], region: Option<Region>) {
    let Some(request) = decoded::<v1::SendOtpRequest>(bytes) else {
        return;
    };
    match convert::send(&request, region) {
        Ok(send) => {
            is_canonical(&send.recipient);
            assert!(send.channel.reaches(&send.recipient));
            assert!(send.locale.len() <= 35 && send.locale.is_ascii());
            assert!(send.variables.len() <= 32);
            for (name, value) in &send.variables {
                assert!((1..=32).contains(&name.len()) && name.is_ascii());
                assert!(value.len() <= 256 && !value.chars().any(char::is_control));
            }
            is_visible(send.request_id.as_deref());
        }
        Err(error) => {
            let values = request.variables.values().map(String::as_str);
            let mut private: Vec<&str> = values.collect();
            private.extend([request.recipient.as_str(), &request.client_ip]);
            is_discreet(error, &private);
        }
    }
}

fn verify(bytes: &[u8], region: Option<Region>) {
    let Some(request) = decoded::<v1::VerifyOtpRequest>(bytes) else {
        return;
    };
    match convert::verify(&request, region) {
        Ok(verify) => {
            is_canonical(&verify.recipient);
            is_visible(verify.challenge_id.as_deref());
            is_visible(verify.request_id.as_deref());
            let id = verify.challenge_id.as_deref().and_then(ChallengeId::parse);
            if let Some(id) = id {
                assert_eq!(id.to_string(), request.challenge_id);
            }
            let shown = format!("{verify:?}");
            let digits = verify.code.expose();
            assert!(digits.len() < RUN || !shows(&shown, verify.recipient.as_str()));
        }
        Err(error) => is_discreet(error, &[&request.recipient, &request.code]),
    }
}

fn cancel(bytes: &[u8], region: Option<Region>) {
    let Some(request) = decoded::<v1::CancelOtpRequest>(bytes) else {
        return;
    };
    match convert::cancel(&request, region) {
        Ok(cancel) => {
            cancel.subject.recipient.iter().for_each(is_canonical);
            is_visible(cancel.request_id.as_deref());
            assert_eq!(cancel.reset_failures, request.reset_failures);
        }
        Err(error) => is_discreet(error, &[&request.recipient]),
    }
}

fn status(bytes: &[u8], region: Option<Region>) {
    let Some(request) = decoded::<v1::GetOtpStatusRequest>(bytes) else {
        return;
    };
    match convert::status(&request, region) {
        Ok(subject) => {
            subject.recipient.iter().for_each(is_canonical);
            assert!(subject.recipient.is_some() || subject.challenge_id.is_some());
        }
        Err(error) => is_discreet(error, &[&request.recipient]),
    }
}

fn is_canonical(recipient: &Recipient) {
    let again = Recipient::parse(recipient.as_str(), None);
    assert_eq!(again.as_ref(), Ok(recipient));
}

fn is_visible(text: Option<&str>) {
    if let Some(text) = text {
        assert!((1..=256).contains(&text.len()));
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

/// Checks that an error is the caller's mistake, and that its short text shows no
/// `private` value.
fn is_discreet(error: ServiceError, private: &[&str]) {
    let shown = format!("{error:?}");
    let status = Status::from(error);
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let problem = status.message();
    assert!(
        problem.len() < 512 && !problem.contains('\n'),
        "{problem:?}"
    );
    let details = String::from_utf8_lossy(status.details());
    for text in private {
        for place in [problem, &shown, &details] {
            assert!(!shows(place, text), "{place:?} shows a value");
        }
    }
}

/// Returns true if `place` contains `text`, unless otpd may have written such a text
/// itself.
fn shows(place: &str, text: &str) -> bool {
    let is_run = |run: &str| run.len() >= RUN;
    let is_private = !text.is_ascii() || text.split(|c: char| !c.is_ascii_digit()).any(is_run);
    is_private && place.replace(EXAMPLE, "").contains(text)
}
