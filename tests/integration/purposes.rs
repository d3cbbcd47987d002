//! A code is valid only for its purpose, and a challenge id alone selects it.

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, GetOtpStatusResponse, SendOtpRequest, SendOtpResponse,
    VerifyOtpRequest, VerifyOutcome, otp_service_client::OtpServiceClient,
};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

use crate::support::{Database, Kind, Replica, Typed, cancel, on_each_store, reason};

const RECIPIENT: &str = "+79991234567";

async fn send(client: &mut OtpServiceClient<Channel>, purpose: &str) -> SendOtpResponse {
    let request = SendOtpRequest {
        recipient: RECIPIENT.to_owned(),
        purpose: purpose.to_owned(),
        ..Default::default()
    };
    let sent = client.send_otp(request).await;
    sent.expect("it is sent").into_inner()
}

fn verify_request(purpose: &str, code: &str, challenge_id: &str) -> VerifyOtpRequest {
    VerifyOtpRequest {
        recipient: RECIPIENT.to_owned(),
        purpose: purpose.to_owned(),
        code: code.to_owned(),
        challenge_id: challenge_id.to_owned(),
        ..Default::default()
    }
}

async fn verdict(
    client: &mut OtpServiceClient<Channel>,
    request: VerifyOtpRequest,
) -> (VerifyOutcome, u32) {
    let verdict = client.verify_otp(request).await;
    let verdict = verdict.expect("there is an outcome").into_inner();
    (verdict.outcome(), verdict.attempts_remaining)
}

async fn purposes_have_separate_codes_and_policies(kind: Kind) {
    let database = Database::new(kind).await;
    let environment = [
        ("OTPD_POLICY__CODE_TTL", "4m"),
        ("OTPD_POLICY__FAILURE_DELAY", "0s"),
        ("OTPD_PURPOSES__LOGIN__CODE_LENGTH", "8"),
        ("OTPD_PURPOSES__LOGIN__MAX_ATTEMPTS", "2"),
        ("OTPD_PURPOSES__PAYMENT__REQUIRE_CHALLENGE_ID", "true"),
        ("OTPD_PURPOSES__PAYMENT__RESEND_AFTER", "0s"),
        ("OTPD_PURPOSES__PAYMENT__CODE_TTL", "2m"),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let client = &mut replica.client();

    let mut sent = Vec::new();
    for (purpose, length, ttl, wait) in [
        ("", 6, 240, 60),
        ("login", 8, 240, 60),
        ("payment", 6, 120, 0),
    ] {
        let reply = send(client, purpose).await;
        assert!(!reply.resent, "{purpose:?}");
        assert_eq!(reply.code_length, length, "{purpose:?}");
        let (expires_at, resend_at) = (
            reply.expires_at.expect("it is set"),
            reply.resend_at.expect("it is set"),
        );
        assert_eq!(
            expires_at.seconds - resend_at.seconds,
            ttl - wait,
            "{purpose:?}"
        );
        let code = replica.code(&reply.challenge_id).await;
        sent.push((purpose, reply.challenge_id, code));
    }
    // The name of the purpose that an empty one stands for.
    let request = SendOtpRequest {
        recipient: RECIPIENT.to_owned(),
        purpose: "default".to_owned(),
        ..Default::default()
    };
    let refused = client.send_otp(request).await.expect_err("it is refused");
    assert_eq!(reason(&refused), "RESEND_TOO_SOON");

    // Without a cool-down the same code is sent again at once.
    let again = send(client, "payment").await;
    assert!(again.resent);
    assert_eq!(again.challenge_id, sent[2].1);

    // A challenge of one purpose is none of another's.
    for (purpose, own, _) in &sent {
        for (_, challenge_id, code) in sent.iter().filter(|(_, other, _)| other != own) {
            let request = verify_request(purpose, code, challenge_id);
            let verdict = verdict(client, request).await;
            assert_eq!(verdict, (VerifyOutcome::NotFound, 0));
        }
    }
    let unknown = verify_request("signup", &sent[0].2, "");
    assert_eq!(verdict(client, unknown).await, (VerifyOutcome::NotFound, 0));

    let (_, challenge_id, code) = &sent[2];
    let without = verify_request("payment", code, "");
    let refused = client.verify_otp(without).await.expect_err("it is refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused), "REQUEST_INVALID");
    let details = refused.get_error_details();
    let violations = &details.bad_request().expect("it is set").field_violations;
    assert_eq!(violations[0].field, "challenge_id");
    let with = verify_request("payment", code, challenge_id);
    assert_eq!(verdict(client, with).await, (VerifyOutcome::Verified, 0));

    let (_, _, code) = &sent[1];
    let wrong = Typed::Mistyped.text(code);
    for remaining in [1, 0] {
        let verdict = verdict(client, verify_request("login", &wrong, "")).await;
        assert_eq!(verdict, (VerifyOutcome::WrongCode, remaining));
    }
    let exhausted = (VerifyOutcome::AttemptsExhausted, 0);
    assert_eq!(
        verdict(client, verify_request("login", code, "")).await,
        exhausted
    );

    // The first code is unaffected by the others.
    let (_, _, code) = &sent[0];
    let wrong = Typed::Mistyped.text(code);
    let verdict_of_wrong = verdict(client, verify_request("default", &wrong, "")).await;
    assert_eq!(verdict_of_wrong, (VerifyOutcome::WrongCode, 4));
    let right = verify_request("default", code, "");
    assert_eq!(verdict(client, right).await, (VerifyOutcome::Verified, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn challenge_id_alone_selects_its_code() {
    let database = Database::new(Kind::Sqlite).await;
    let environment = [
        ("OTPD_PURPOSES__LOGIN__MAX_ATTEMPTS", "3"),
        ("OTPD_POLICY__FAILURE_DELAY", "0s"),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let client = &mut replica.client();
    let sent = send(client, "login").await;
    let ask = |challenge_id: &str| GetOtpStatusRequest {
        challenge_id: challenge_id.to_owned(),
        ..Default::default()
    };

    // The policy is that of the code's purpose, which the request does not name.
    let status = client.get_otp_status(ask(&sent.challenge_id)).await;
    let status = status.expect("there is a reply").into_inner();
    assert!(status.live);
    assert_eq!(status.challenge_id, sent.challenge_id);
    assert_eq!(status.recipient, RECIPIENT);
    assert_eq!(status.expires_at, sent.expires_at);
    assert_eq!(status.resend_at, sent.resend_at);
    assert_eq!(status.attempts_remaining, 3);
    assert_eq!(status.blocked_until, None);
    assert!(status.deliveries.len() <= 1, "{:?}", status.deliveries);

    // A change of one letter in the part that distinguishes challenges of a record.
    let mut other = sent.challenge_id.clone();
    let last = if other.pop() == Some('A') { 'B' } else { 'A' };
    other.push(last);
    for foreign in [other.as_str(), "garbled"] {
        let status = client
            .get_otp_status(ask(foreign))
            .await
            .expect("there is a reply");
        assert_eq!(
            status.into_inner(),
            GetOtpStatusResponse::default(),
            "{foreign}"
        );
        let request = CancelOtpRequest {
            challenge_id: foreign.to_owned(),
            ..Default::default()
        };
        assert!(!cancel(client.clone(), request).await, "{foreign}");
    }

    for cancelled in [true, false] {
        let request = CancelOtpRequest {
            challenge_id: sent.challenge_id.clone(),
            ..Default::default()
        };
        assert_eq!(cancel(client.clone(), request).await, cancelled);
    }
    let status = client.get_otp_status(ask(&sent.challenge_id)).await;
    let status = status.expect("there is a reply").into_inner();
    assert!(!status.live);
    assert_eq!(status.recipient, "", "a dead code has no recipient left");
    assert_eq!(status.challenge_id, "");
    assert_eq!(status.expires_at, None);
    assert_eq!(status.resend_at, sent.resend_at, "the cool-down goes on");
    assert_eq!(status.attempts_remaining, 0);

    let nobody = GetOtpStatusRequest::default();
    let refused = client
        .get_otp_status(nobody)
        .await
        .expect_err("it is refused");
    assert_eq!(reason(&refused), "RECIPIENT_INVALID");
}

on_each_store! {
    purposes_have_separate_codes_and_policies
}
