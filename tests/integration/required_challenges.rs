//! A purpose that requires `challenge_id` for a verification.

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest,
    VerifyOutcome,
};
use tonic::Code;

use crate::support::{CallerClient, Database, Kind, Refusal, Replica, on_each_store, token_digest};

const RECIPIENT: &str = "+79991234567";

async fn send(client: &mut CallerClient, recipient: &str, purpose: &str) -> SendOtpResponse {
    let request = SendOtpRequest {
        recipient: recipient.to_owned(),
        purpose: purpose.to_owned(),
        ..Default::default()
    };
    let sent = client.send_otp(request).await;
    sent.expect("it is sent").into_inner()
}

fn verify(code: &str, challenge_id: &str) -> VerifyOtpRequest {
    VerifyOtpRequest {
        recipient: RECIPIENT.to_owned(),
        purpose: "login".to_owned(),
        code: code.to_owned(),
        challenge_id: challenge_id.to_owned(),
        ..Default::default()
    }
}

async fn required_challenge_must_be_the_one_of_the_code(kind: Kind) {
    let database = Database::new(kind).await;
    let [crm, shop] = ["crm's", "shop's"].map(token_digest);
    let environment = [
        ("OTPD_POLICY__REQUIRE_CHALLENGE_ID", "true"),
        ("OTPD_POLICY__RESEND_AFTER", "0s"),
        ("OTPD_CALLERS__CRM__TOKEN_SHA256", crm.as_str()),
        ("OTPD_CALLERS__SHOP__TOKEN_SHA256", shop.as_str()),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let [mut crm, mut shop] = ["crm's", "shop's"].map(|token| replica.client_of(token));
    let sent = send(&mut crm, RECIPIENT, "login").await;
    let code = replica.code(&sent.challenge_id).await;

    let refused = crm.verify_otp(verify(&code, "")).await;
    let refused = Refusal::of(&refused.expect_err("it names no challenge"));
    assert_eq!(refused.code, Code::InvalidArgument);
    assert_eq!(refused.reason, "REQUEST_INVALID");

    // The ids are right in themselves, each for another code.
    for other in [
        send(&mut crm, "+79997654321", "login").await,
        send(&mut crm, RECIPIENT, "payment").await,
        send(&mut shop, RECIPIENT, "login").await,
    ] {
        let judged = crm.verify_otp(verify(&code, &other.challenge_id)).await;
        let judged = judged.expect("it is judged").into_inner();
        assert_eq!(judged.outcome(), VerifyOutcome::NotFound);
        let judged = shop.verify_otp(verify(&code, &sent.challenge_id)).await;
        let judged = judged.expect("it is judged").into_inner();
        assert_eq!(judged.outcome(), VerifyOutcome::NotFound);
    }

    // A resend and a status tell the same id to the same caller, so keeping it with the
    // session that asked is the caller's part.
    let again = send(&mut crm, RECIPIENT, "login").await;
    assert!(again.resent);
    assert_eq!(again.challenge_id, sent.challenge_id);
    let request = GetOtpStatusRequest {
        recipient: RECIPIENT.to_owned(),
        purpose: "login".to_owned(),
        ..Default::default()
    };
    let told = crm.get_otp_status(request).await.expect("it is reported");
    let told = told.into_inner();
    assert_eq!(told.challenge_id, sent.challenge_id);
    // None of the refused answers was counted.
    assert_eq!(told.attempts_remaining, 5);

    let judged = crm.verify_otp(verify(&code, &sent.challenge_id)).await;
    assert!(judged.expect("it is judged").into_inner().verified);
    // The id of a used code is of no use for the next one.
    let next = send(&mut crm, RECIPIENT, "login").await;
    let code = replica.code(&next.challenge_id).await;
    let judged = crm.verify_otp(verify(&code, &sent.challenge_id)).await;
    let judged = judged.expect("it is judged").into_inner();
    assert_eq!(judged.outcome(), VerifyOutcome::NotFound);

    // Nothing but a verification requires it.
    let request = CancelOtpRequest {
        recipient: RECIPIENT.to_owned(),
        purpose: "login".to_owned(),
        ..Default::default()
    };
    let cancelled = crm.cancel_otp(request).await.expect("it is done");
    assert!(cancelled.into_inner().cancelled);
}

on_each_store! { required_challenge_must_be_the_one_of_the_code }
