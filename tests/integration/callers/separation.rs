//! Separation of callers: the data of one is unknown to every other.

use otpd::grpc::v1::{
    CancelOtpRequest, CancelOtpResponse, GetOtpStatusRequest, GetOtpStatusResponse, SendOtpRequest,
    VerifyOtpRequest, VerifyOutcome,
};
use tonic::Code;

use super::{
    RECIPIENT, cancel_request, send, send_request, status_request, verify, verify_request,
};
use crate::support::{
    CallerClient, Database, Kind, Refusal, Replica, Typed, on_each_store, token_digest,
};

/// A server of two callers, and their clients.
async fn two_callers(database: &Database, more: &[(&str, &str)]) -> (Replica, [CallerClient; 2]) {
    let digests = ["crm's", "shop's"].map(token_digest);
    let callers = [
        ("OTPD_CALLERS__CRM__TOKEN_SHA256", digests[0].as_str()),
        ("OTPD_CALLERS__SHOP__TOKEN_SHA256", digests[1].as_str()),
    ];
    let replica = Replica::start_with(database, &[&callers, more].concat()).await;
    let clients = ["crm's", "shop's"].map(|token| replica.client_of(token));
    (replica, clients)
}

async fn callers_do_not_see_each_others_codes_or_status(kind: Kind) {
    let database = Database::new(kind).await;
    let (replica, [mut crm, mut shop]) = two_callers(&database, &[]).await;
    let request = SendOtpRequest {
        request_id: "the-same-for-both".to_owned(),
        ..send_request(RECIPIENT, "")
    };
    let sent = send(&mut crm, request.clone()).await;
    let code = replica.code(&sent.challenge_id).await;

    // By recipient, by challenge id, and by both.
    for (recipient, challenge_id) in [
        (RECIPIENT, ""),
        ("", sent.challenge_id.as_str()),
        (RECIPIENT, sent.challenge_id.as_str()),
    ] {
        let request = GetOtpStatusRequest {
            challenge_id: challenge_id.to_owned(),
            ..status_request(recipient)
        };
        let status = shop
            .get_otp_status(request)
            .await
            .expect("there is a status");
        let nothing = GetOtpStatusResponse {
            recipient: recipient.to_owned(),
            ..Default::default()
        };
        assert_eq!(status.into_inner(), nothing);
        let request = CancelOtpRequest {
            challenge_id: challenge_id.to_owned(),
            ..cancel_request(recipient)
        };
        let done = shop.cancel_otp(request).await.expect("there is a reply");
        assert_eq!(done.into_inner(), CancelOtpResponse::default());
        if !recipient.is_empty() {
            let request = VerifyOtpRequest {
                challenge_id: challenge_id.to_owned(),
                ..verify_request(recipient, &code)
            };
            let verdict = verify(&mut shop, request).await;
            assert_eq!(verdict.outcome(), VerifyOutcome::NotFound);
            assert_eq!(verdict.challenge_id, "");
        }
    }
    // The other's request id is its own, and so is the cool-down.
    let others = send(&mut shop, request).await;
    assert_ne!(others.challenge_id, sent.challenge_id);
    let others_code = replica.code(&others.challenge_id).await;

    // The code is unaffected by all this.
    let status = crm.get_otp_status(status_request(RECIPIENT)).await;
    let status = status.expect("there is a status").into_inner();
    assert_eq!(
        (status.challenge_id, status.attempts_remaining),
        (sent.challenge_id, 5)
    );
    let verdict = verify(&mut crm, verify_request(RECIPIENT, &code)).await;
    assert!(verdict.verified);
    let verdict = verify(&mut shop, verify_request(RECIPIENT, &others_code)).await;
    assert!(verdict.verified);
}

async fn callers_do_not_share_limits(kind: Kind) {
    const CLIENT_IP: &str = "203.0.113.7";
    let database = Database::new(kind).await;
    let limits = [
        ("OTPD_POLICY__RESEND_AFTER", "0s"),
        ("OTPD_POLICY__IP_SENDS_PER_HOUR", "2"),
        ("OTPD_POLICY__IP_FAILURES_PER_HOUR", "6"),
        ("OTPD_POLICY__CALLER_SENDS_PER_DAY", "2"),
        ("OTPD_POLICY__PREFIX_SENDS_PER_DAY", "2"),
    ];
    let (replica, [mut crm, mut shop]) = two_callers(&database, &limits).await;
    let send_request = SendOtpRequest {
        client_ip: CLIENT_IP.to_owned(),
        ..send_request(RECIPIENT, "")
    };
    send(&mut crm, send_request.clone()).await;
    let sent = send(&mut crm, send_request.clone()).await;
    let code = replica.code(&sent.challenge_id).await;
    let wrong = VerifyOtpRequest {
        client_ip: CLIENT_IP.to_owned(),
        ..verify_request(RECIPIENT, &Typed::Mistyped.text(&code))
    };
    for _ in 0..5 {
        let verdict = verify(&mut crm, wrong.clone()).await;
        assert_eq!(verdict.outcome(), VerifyOutcome::WrongCode);
    }
    let full = Refusal::of(
        &crm.send_otp(send_request.clone())
            .await
            .expect_err("it is refused"),
    );
    assert_eq!(
        (full.code, full.reason.as_str()),
        (Code::ResourceExhausted, "SEND_LIMIT")
    );
    let delayed = Refusal::of(
        &crm.verify_otp(wrong.clone())
            .await
            .expect_err("it is refused"),
    );
    assert_eq!(delayed.reason, "VERIFY_DELAYED");

    // The other one has everything still before it.
    for resent in [false, true] {
        assert_eq!(send(&mut shop, send_request.clone()).await.resent, resent);
    }
    let status = shop.get_otp_status(status_request(RECIPIENT)).await;
    let status = status.expect("there is a status").into_inner();
    assert_eq!((status.attempts_remaining, status.blocked_until), (5, None));
    let code = replica.code(&status.challenge_id).await;
    let wrong = VerifyOtpRequest {
        code: Typed::Mistyped.text(&code),
        ..wrong
    };
    for attempts_remaining in [4, 3, 2, 1] {
        let verdict = verify(&mut shop, wrong.clone()).await;
        assert_eq!(verdict.attempts_remaining, attempts_remaining);
    }
    assert!(
        verify(&mut shop, verify_request(RECIPIENT, &code))
            .await
            .verified
    );
}

on_each_store! {
    callers_do_not_see_each_others_codes_or_status
    callers_do_not_share_limits
}
