//! Requests with valid headers and an invalid message.

use std::collections::HashMap;

use otpd::grpc::v1::{GetOtpStatusRequest, SendOtpRequest};
use prost::Message as _;
use tonic::Code;

use super::{beside_good_callers, call::Call};
use crate::support::{Refusal, framed};

const SLOW: [(&str, &str); 1] = [("OTPD_CONNECTIONS__REQUEST_BODY_TIMEOUT", "700ms")];

fn good() -> Vec<u8> {
    let request = SendOtpRequest {
        recipient: "+79990000001".to_owned(),
        ..Default::default()
    };
    framed(&request.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_request_body_times_out() {
    // None of it, only its beginning, and all of it without an end of the request.
    let message = good();
    for first in [&[], &message[..9], &message] {
        let status = beside_good_callers(&SLOW, async |replica| {
            let mut call = Call::open(replica, &[]).await;
            call.say(first).await;
            call.status().await
        })
        .await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(
            status.message().contains("did not arrive within 700ms"),
            "{status:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_request_body_times_out() {
    let status = beside_good_callers(&SLOW, async |replica| {
        let mut call = Box::pin(Call::open(replica, &[])).await;
        // A message of the longest length, a byte in the time of a whole other call.
        call.say(&[0, 0, 1, 0, 0]).await;
        let mut client = replica.client();
        while !call.say(&[0]).await {
            let request = GetOtpStatusRequest {
                recipient: "+79990000002".to_owned(),
                ..Default::default()
            };
            let reply = Box::pin(client.get_otp_status(request)).await;
            reply.expect("there is a status");
        }
        call.status().await
    })
    .await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_request_body_is_rejected() {
    let status = beside_good_callers(&SLOW, async |replica| {
        let mut call = Call::open(replica, &[]).await;
        call.say(&good()).await;
        // One message after the other, where one is allowed.
        while !call.say(&[0; 4_096]).await {}
        call.status().await
    })
    .await;
    assert_ne!(status.code(), Code::Ok, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_deadline_shortens_the_body_timeout() {
    let status = beside_good_callers(&[], async |replica| {
        let mut call = Call::open(replica, &[("grpc-timeout", "500m")]).await;
        call.say(&good()[..9]).await;
        call.status().await
    })
    .await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("within 500ms"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn message_length_mismatch_is_rejected() {
    let message = good();
    let mut short = message.clone();
    short[4] -= 4;
    let mut long = message;
    long[4] += 4;
    for body in [short, long] {
        let status = beside_good_callers(&[], async |replica| {
            let mut call = Call::open(replica, &[]).await;
            call.end(&body).await;
            call.status().await
        })
        .await;
        assert!(
            matches!(status.code(), Code::Internal | Code::InvalidArgument),
            "{status:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_variables_are_rejected() {
    let variables: HashMap<String, String> = (0..6_000)
        .map(|number| (format!("v{number}"), String::new()))
        .collect();
    let request = SendOtpRequest {
        recipient: "+79990000001".to_owned(),
        variables,
        ..Default::default()
    };
    let message = framed(&request.encode_to_vec());
    assert!(message.len() < 64 * 1024);
    let status = beside_good_callers(&[], async |replica| {
        let mut call = Call::open(replica, &[]).await;
        call.end(&message).await;
        call.status().await
    })
    .await;
    let refusal = Refusal::of(&status);
    assert_eq!(
        (refusal.reason.as_str(), refusal.field.as_str()),
        ("REQUEST_INVALID", "variables")
    );
}
