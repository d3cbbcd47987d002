//! Permissions of a caller: purposes, destinations, resets, and the code itself.

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest, VerifyOutcome,
};
use tonic::Code;

use super::{
    MESSAGE, RECIPIENT, cancel_request, lines, send, send_request, status_request, verify,
    verify_request,
};
use crate::support::{Database, Kind, Refusal, Replica, Typed, on_each_store, token_digest};

/// A server with one caller of each kind; their tokens are their names.
async fn serve(database: &Database) -> Replica {
    let [narrow, mighty, courier] = ["narrow", "mighty", "courier"].map(token_digest);
    let configuration = database.configure(&format!(
        r#"
[policy]
resend_after = "0s"
[callers.narrow]
token_sha256 = ["{narrow}"]
purposes = ["login", "sign-up"]
destinations = ["RU", "+44", "email"]
blocked_destinations = ["+7900", "+447400"]
[callers.mighty]
token_sha256 = ["{mighty}"]
may_reset_failures = true
[callers.courier]
token_sha256 = ["{courier}"]
self_delivery = true
"#
    ));
    Replica::start_with(database, &[("OTPD_CONFIG", &configuration)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_is_limited_to_its_purposes_and_destinations() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database).await;
    let mut narrow = replica.client_of("narrow");
    for purpose in ["login", "sign-up"] {
        send(&mut narrow, send_request(RECIPIENT, purpose)).await;
    }
    let mut refused = Vec::new();
    for other in ["", "default", "payment"] {
        let purpose = other.to_owned();
        refused.push(
            narrow
                .send_otp(send_request(RECIPIENT, other))
                .await
                .map(drop),
        );
        let request = VerifyOtpRequest {
            purpose: purpose.clone(),
            ..verify_request(RECIPIENT, "123456")
        };
        refused.push(narrow.verify_otp(request).await.map(drop));
        let request = CancelOtpRequest {
            purpose: purpose.clone(),
            ..cancel_request(RECIPIENT)
        };
        refused.push(narrow.cancel_otp(request).await.map(drop));
        let request = GetOtpStatusRequest {
            purpose,
            ..status_request(RECIPIENT)
        };
        refused.push(narrow.get_otp_status(request).await.map(drop));
    }
    for answer in refused {
        let refusal = Refusal::of(&answer.expect_err("it is refused"));
        assert_eq!(refusal.code, Code::PermissionDenied);
        assert_eq!(refusal.reason, "PURPOSE_NOT_ALLOWED");
    }

    for allowed in ["8 912 345-67-89", "+44 7911 123456", "any@example.com"] {
        let request = SendOtpRequest {
            region: "RU".to_owned(),
            ..send_request(allowed, "login")
        };
        send(&mut narrow, request).await;
    }
    // Kazakhstan shares its calling code with Russia, which alone is allowed.
    for blocked in [
        "+7 701 123 45 67",
        "+1 202 555 0123",
        "+79001234567",
        "+447400123456",
    ] {
        let answer = narrow.send_otp(send_request(blocked, "login")).await;
        let refusal = Refusal::of(&answer.expect_err(blocked));
        assert_eq!(refusal.code, Code::PermissionDenied);
        assert_eq!(refusal.reason, "DESTINATION_BLOCKED");
    }
    let log = replica.stop().await.1;
    let audited = |reason| {
        lines(&log, reason)
            .iter()
            .all(|line| line.contains("[OTP AUDIT]"))
    };
    for (reason, times) in [("PURPOSE_NOT_ALLOWED", 12), ("DESTINATION_BLOCKED", 4)] {
        assert_eq!(lines(&log, reason).len(), times);
        assert!(audited(reason), "{log}");
    }
}

async fn reset_requires_its_own_permission(kind: Kind) {
    const RESET: &str = "[OTP AUDIT] Failed-attempt counter reset";
    let database = Database::new(kind).await;
    let replica = serve(&database).await;
    for (token, purpose) in [("narrow", "login"), ("mighty", "login")] {
        let mut client = replica.client_of(token);
        let sent = send(&mut client, send_request(RECIPIENT, purpose)).await;
        let code = replica.code(&sent.challenge_id).await;
        let request = |code: &str| VerifyOtpRequest {
            purpose: purpose.to_owned(),
            ..verify_request(RECIPIENT, code)
        };
        for _ in 0..5 {
            verify(&mut client, request(&Typed::Mistyped.text(&code))).await;
        }
        let sent = send(&mut client, send_request(RECIPIENT, purpose)).await;
        let code = replica.code(&sent.challenge_id).await;
        let delayed = Refusal::of(
            &client
                .verify_otp(request(&code))
                .await
                .expect_err("it is refused"),
        );
        assert_eq!(delayed.reason, "VERIFY_DELAYED");

        let reset = CancelOtpRequest {
            purpose: purpose.to_owned(),
            reset_failures: true,
            ..cancel_request(RECIPIENT)
        };
        let answer = client.cancel_otp(reset).await;
        if token == "narrow" {
            let refusal = Refusal::of(&answer.expect_err("it is refused"));
            assert_eq!(refusal.code, Code::PermissionDenied);
            assert_eq!(refusal.reason, "RESET_NOT_ALLOWED");
            let line = replica.wait_for_line("RESET_NOT_ALLOWED").await;
            assert!(
                line.contains("[OTP AUDIT]") && line.contains("narrow"),
                "{line}"
            );
            // The code is live, and the delay still applies.
            let delayed = Refusal::of(
                &client
                    .verify_otp(request(&code))
                    .await
                    .expect_err("it is refused"),
            );
            assert_eq!(delayed.reason, "VERIFY_DELAYED");
        } else {
            let done = answer.expect("it may").into_inner();
            assert!(done.cancelled && done.failures_reset);
            let sent = send(&mut client, send_request(RECIPIENT, purpose)).await;
            let code = replica.code(&sent.challenge_id).await;
            let verdict = verify(&mut client, request(&code)).await;
            assert_eq!(verdict.outcome(), VerifyOutcome::Verified);
        }
    }
    let log = replica.stop().await.1;
    let resets = lines(&log, RESET);
    assert_eq!(resets.len(), 1, "{log}");
    assert!(resets[0].contains("mighty") && resets[0].contains("+7999***4567"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_self_delivering_callers_receive_the_code() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database).await;
    let mut courier = replica.client_of("courier");
    let request = SendOtpRequest {
        request_id: "first".to_owned(),
        ..send_request(RECIPIENT, "")
    };
    let sent = send(&mut courier, request.clone()).await;
    assert_eq!(sent.code.len(), 6);
    // A repeated request returns the same code.
    assert_eq!(send(&mut courier, request.clone()).await, sent);
    let again = send(&mut courier, send_request(RECIPIENT, "")).await;
    assert!(again.resent);
    assert_eq!(again.code, sent.code);

    for other in ["narrow", "mighty"] {
        let sent = send(
            &mut replica.client_of(other),
            send_request(RECIPIENT, "login"),
        )
        .await;
        assert_eq!(sent.code, "");
        // otpd delivers to this recipient; by then, a message of the first one would have arrived,
        // too.
        replica.code(&sent.challenge_id).await;
    }
    let verdict = verify(&mut courier, verify_request(RECIPIENT, &sent.code)).await;
    assert!(verdict.verified);
    // Nor is it given once it is spent, to the same request neither.
    assert_eq!(send(&mut courier, request).await.code, "");
    // Including messages that are due later.
    database.advance_clock(Duration::from_hours(1)).await;
    let mut mighty = replica.client_of("mighty");
    let last = send(&mut mighty, send_request("+79991234568", "")).await;
    replica.code(&last.challenge_id).await;
    let log = replica.stop().await.1;
    assert_eq!(lines(&log, MESSAGE).len(), 3, "{log}");
    assert!(!log.contains(&sent.code), "{log}");
}

on_each_store! {
    reset_requires_its_own_permission
}
