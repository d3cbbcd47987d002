//! Callers: authentication, permissions and separation.

mod certificates;
mod permissions;
mod separation;
mod tokens;

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest,
    VerifyOtpResponse,
};

use crate::support::CallerClient;

const RECIPIENT: &str = "+79991234567";
/// Prefix of each message of the log provider.
const MESSAGE: &str = "[OTP] Generated OTP: ";

fn send_request(recipient: &str, purpose: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient.to_owned(),
        purpose: purpose.to_owned(),
        ..Default::default()
    }
}

fn verify_request(recipient: &str, code: &str) -> VerifyOtpRequest {
    VerifyOtpRequest {
        recipient: recipient.to_owned(),
        code: code.to_owned(),
        ..Default::default()
    }
}

fn cancel_request(recipient: &str) -> CancelOtpRequest {
    CancelOtpRequest {
        recipient: recipient.to_owned(),
        ..Default::default()
    }
}

fn status_request(recipient: &str) -> GetOtpStatusRequest {
    GetOtpStatusRequest {
        recipient: recipient.to_owned(),
        ..Default::default()
    }
}

async fn send(client: &mut CallerClient, request: SendOtpRequest) -> SendOtpResponse {
    let sent = client.send_otp(request).await;
    sent.expect("it is sent").into_inner()
}

async fn verify(client: &mut CallerClient, request: VerifyOtpRequest) -> VerifyOtpResponse {
    let verdict = client.verify_otp(request).await;
    verdict.expect("there is an outcome").into_inner()
}

/// The lines of a log that hold `text`.
fn lines<'a>(log: &'a str, text: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(text)).collect()
}
