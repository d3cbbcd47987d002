//! Random requests: each succeeds or is rejected with a reason.

use std::collections::HashMap;

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, ReceiptRequest, SendOtpRequest, VerifyOtpRequest,
    otp_service_client::OtpServiceClient,
};
use proptest::{
    collection::hash_map,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::{runtime::Handle, task::block_in_place};
use tonic::Code;

use crate::support::{AnyRequest, Database, Kind, Refusal, Replica};

/// Number of random requests. Each is a round trip to a real server.
const REQUESTS: u32 = 1_000;

/// Random and nearly valid values.
fn text(nearly_right: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => nearly_right,
        1 => Just(String::new()),
        1 => any::<String>(),
        1 => "\\PC{0,400}",
        1 => "[\\x00-\\x7f]{0,40}",
    ]
}

fn recipient() -> impl Strategy<Value = String> {
    text(
        "(\\+|00|8)?[0-9() .-]{5,16}|\\+7999[0-9]{7}|[a-z.+]{1,8}@[a-zа-я.-]{1,8}\\.(com|рф)|tel:[0-9;=a-z+-]{1,20}",
    )
}

fn purpose() -> impl Strategy<Value = String> {
    text("[a-z][a-z0-9_-]{0,31}")
}

fn region() -> impl Strategy<Value = String> {
    text("[A-Z]{2}|RU|US|KZ")
}

fn challenge_id() -> impl Strategy<Value = String> {
    text("[A-Za-z0-9_-]{64}|[!-~]{0,300}")
}

fn client_ip() -> impl Strategy<Value = String> {
    text("[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}|[0-9a-f:]{2,39}")
}

fn request_id() -> impl Strategy<Value = String> {
    text("[!-~]{1,130}")
}

fn receipt() -> impl Strategy<Value = ReceiptRequest> {
    let fields = (text("[!-~]{1,260}"), text("[!-~]{14,130}"), any::<bool>());
    fields.prop_map(|(audience, nonce, include_recipient)| ReceiptRequest {
        audience,
        nonce,
        include_recipient,
    })
}

fn variables() -> impl Strategy<Value = HashMap<String, String>> {
    hash_map(text("[a-z][a-z0-9_]{0,32}"), text("\\PC{0,40}"), 0..3)
}

fn request() -> impl Strategy<Value = AnyRequest> {
    let send = (
        recipient(),
        purpose(),
        prop_oneof![0..7, any::<i32>()],
        text("[a-z]{2}(-[A-Z]{2})?"),
        region(),
        client_ip(),
        request_id(),
        variables(),
    )
        .prop_map(
            |(recipient, purpose, channel, locale, region, client_ip, request_id, variables)| {
                AnyRequest::Send(SendOtpRequest {
                    recipient,
                    purpose,
                    channel,
                    locale,
                    region,
                    client_ip,
                    request_id,
                    variables,
                })
            },
        );
    let verify = (
        recipient(),
        purpose(),
        text("[0-9 -]{4,12}|[٠-٩]{6}"),
        challenge_id(),
        region(),
        client_ip(),
        request_id(),
        prop::option::of(receipt()),
    )
        .prop_map(
            |(recipient, purpose, code, challenge_id, region, client_ip, request_id, receipt)| {
                AnyRequest::Verify(VerifyOtpRequest {
                    recipient,
                    purpose,
                    code,
                    challenge_id,
                    region,
                    client_ip,
                    request_id,
                    receipt,
                })
            },
        );
    let cancel = (
        recipient(),
        purpose(),
        region(),
        challenge_id(),
        any::<bool>(),
    )
        .prop_map(
            |(recipient, purpose, region, challenge_id, reset_failures)| {
                AnyRequest::Cancel(CancelOtpRequest {
                    request_id: String::new(),
                    recipient,
                    purpose,
                    region,
                    challenge_id,
                    reset_failures,
                })
            },
        );
    let status = (recipient(), purpose(), region(), challenge_id()).prop_map(
        |(recipient, purpose, region, challenge_id)| {
            AnyRequest::Status(GetOtpStatusRequest {
                recipient,
                purpose,
                region,
                challenge_id,
            })
        },
    );
    prop_oneof![send, verify, cancel, status]
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_succeed_or_are_rejected_with_a_reason() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let client: OtpServiceClient<_> = replica.client();
    let mut answered = 0;

    let mut runner = TestRunner::new(Config {
        cases: REQUESTS,
        // The failing request is printed; a file beside the sources would be found
        // only by this machine.
        failure_persistence: None,
        ..Config::default()
    });
    let answered = std::cell::RefCell::new(&mut answered);
    let run = |request: AnyRequest| {
        let call = request.call(client.clone());
        match block_in_place(|| Handle::current().block_on(call)) {
            Ok(()) => **answered.borrow_mut() += 1,
            Err(status) => {
                let known = matches!(
                    status.code(),
                    Code::InvalidArgument | Code::PermissionDenied | Code::ResourceExhausted
                );
                prop_assert!(known, "{status:?}");
                let refusal = Refusal::of(&status);
                let told_field =
                    (status.code() == Code::InvalidArgument) != refusal.field.is_empty();
                prop_assert!(told_field, "{status:?}");
            }
        }
        Ok(())
    };
    runner
        .run(&request(), run)
        .expect("every request is understood or refused");

    let answered = answered.into_inner();
    assert!(*answered > 0, "some of the requests are good ones");
    assert!(!replica.log().contains("Panic"), "{}", replica.log());
}
