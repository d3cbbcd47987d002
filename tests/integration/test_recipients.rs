//! Recipients with a fixed code: no message, no limit on sends, and every other rule.

use std::time::Duration;

use otpd::grpc::v1::{SendOtpRequest, SendOtpResponse, VerifyOtpRequest, VerifyOutcome};

use crate::support::{
    CallerClient, Database, Kind, Refusal, Replica, Typed, milliseconds, on_each_store,
    token_digest,
};

const TESTER: &str = "+79991234567";
const OTHER: &str = "+79991234568";
const FIXED: &str = "424242";
const MESSAGE: &str = "Generated OTP: ";

/// A server of two callers, of which one has a test recipient until `expires`.
async fn serve(database: &Database, expires: &str) -> Replica {
    let [crm, shop] = ["crm", "shop"].map(token_digest);
    let configuration = database.configure(&format!(
        r#"
[policy]
sends_per_hour = 1
ip_sends_per_hour = 1
caller_sends_per_day = 2
[callers.crm]
token_sha256 = ["{crm}"]
blocked_destinations = ["{TESTER}"]
[callers.shop]
token_sha256 = ["{shop}"]
[[test_recipients]]
caller = "crm"
recipient = "8 (999) 123-45-67"
purpose = "login"
code = "{FIXED}"
expires = "{expires}"
"#
    ));
    let environment = [
        ("OTPD_CONFIG", configuration.as_str()),
        ("OTPD_DEFAULT_REGION", "RU"),
    ];
    Replica::start_with(database, &environment).await
}

fn send_request(recipient: &str, purpose: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient.to_owned(),
        purpose: purpose.to_owned(),
        client_ip: "203.0.113.7".to_owned(),
        ..Default::default()
    }
}

async fn send(client: &mut CallerClient, recipient: &str, purpose: &str) -> SendOtpResponse {
    let sent = client.send_otp(send_request(recipient, purpose)).await;
    sent.expect("it is sent").into_inner()
}

async fn refusal(client: &mut CallerClient, recipient: &str, purpose: &str) -> String {
    let sent = client.send_otp(send_request(recipient, purpose)).await;
    Refusal::of(&sent.expect_err("it is refused")).reason
}

/// The outcome, or the reason of a refusal; and the attempts that remain.
async fn verify(client: &mut CallerClient, code: &str) -> (String, u32) {
    let request = VerifyOtpRequest {
        recipient: TESTER.to_owned(),
        purpose: "login".to_owned(),
        code: code.to_owned(),
        ..Default::default()
    };
    match client.verify_otp(request).await {
        Ok(verdict) => {
            let verdict = verdict.into_inner();
            let outcome = verdict.outcome().as_str_name().to_owned();
            (outcome, verdict.attempts_remaining)
        }
        Err(status) => (Refusal::of(&status).reason, 0),
    }
}

fn expected(outcome: VerifyOutcome, attempts_remaining: u32) -> (String, u32) {
    (outcome.as_str_name().to_owned(), attempts_remaining)
}

async fn test_recipient_has_a_fixed_code(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = serve(&database, "2999-01-01").await;
    let mut crm = replica.client_of("crm");

    // Ten sends of one record, from one address, of one caller: beyond every limit; and
    // to a destination that is blocked.
    for _ in 0..10 {
        let sent = send(&mut crm, TESTER, "login").await;
        assert_eq!((sent.code_length, sent.code.as_str()), (6, ""));
        assert_eq!(refusal(&mut crm, TESTER, "login").await, "RESEND_TOO_SOON");
        assert_eq!(
            verify(&mut crm, FIXED).await,
            expected(VerifyOutcome::Verified, 0)
        );
    }
    assert_eq!(
        verify(&mut crm, FIXED).await,
        expected(VerifyOutcome::NotFound, 0)
    );

    // Attempts, delays and the lockout are those of every recipient.
    let wrong = Typed::Mistyped.text(FIXED);
    let mut clock = Duration::ZERO;
    for failures in (0..100).step_by(5) {
        send(&mut crm, TESTER, "login").await;
        for attempts_remaining in (0..5).rev() {
            let response = verify(&mut crm, &wrong).await;
            assert_eq!(
                response,
                expected(VerifyOutcome::WrongCode, attempts_remaining)
            );
        }
        if failures == 0 {
            assert_eq!(verify(&mut crm, FIXED).await.0, "VERIFY_DELAYED");
        }
        clock += Duration::from_hours(1);
        database.advance_clock(clock).await;
    }
    assert_eq!(verify(&mut crm, FIXED).await.0, "VERIFY_LOCKED");
    assert_eq!(refusal(&mut crm, TESTER, "login").await, "VERIFY_LOCKED");

    // No limit has been touched: a caller's two, one from that address.
    let sent = send(&mut crm, OTHER, "").await;
    replica.code(&sent.challenge_id).await;
    assert_eq!(refusal(&mut crm, "+79991234569", "").await, "SEND_LIMIT");
    let log = replica.stop().await.1;
    assert_eq!(log.matches(MESSAGE).count(), 1, "{log}");
    assert!(!log.contains(FIXED), "{log}");
}

/// A fixed code that no random one of six digits can be.
const LONG: &str = "42424242";

#[tokio::test(flavor = "multi_thread")]
async fn fixed_code_is_not_sent_by_a_replica_without_the_entry() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let database = Database::new(kind).await;
        let entry = format!(
            "[[test_recipients]]\nrecipient = \"{TESTER}\"\npurpose = \"login\"\ncode = \"{LONG}\"\nexpires = \"2999-01-01\"\n"
        );
        let with_it = database.configure(&entry);
        let replica = Replica::start_with(&database, &[("OTPD_CONFIG", &with_it)]).await;
        let first = replica
            .client()
            .send_otp(send_request(TESTER, "login"))
            .await;
        let first = first.expect("it is sent").into_inner();
        assert_eq!(first.code_length, 8);
        replica.stop().await;
        // Its entry is removed while the code is live.
        let replica = Replica::start_with(&database, &[]).await;
        database.advance_clock(Duration::from_mins(2)).await;
        let second = replica
            .client()
            .send_otp(send_request(TESTER, "login"))
            .await;
        let second = second.expect("it is sent").into_inner();
        assert!(!second.resent);
        assert_ne!(second.challenge_id, first.challenge_id);
        let code = replica.code(&second.challenge_id).await;
        assert_eq!(code.len(), 6);
        let log = replica.stop().await.1;
        assert!(!log.contains(LONG), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn test_recipient_is_limited_to_its_caller_purpose_and_expiry() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, "2999-01-01T12:00:00Z").await;
    // Another purpose of the caller: an ordinary recipient, which is blocked here.
    let mut crm = replica.client_of("crm");
    assert_eq!(refusal(&mut crm, TESTER, "").await, "DESTINATION_BLOCKED");
    // Another caller: a random code, and a message.
    let mut shop = replica.client_of("shop");
    let sent = send(&mut shop, TESTER, "login").await;
    let code = replica.code(&sent.challenge_id).await;
    if code != FIXED {
        let response = verify(&mut shop, FIXED).await;
        assert_eq!(response, expected(VerifyOutcome::WrongCode, 4));
    }
    assert_eq!(
        verify(&mut shop, &code).await,
        expected(VerifyOutcome::Verified, 0)
    );

    // A minute before its end the code is made to die with it.
    let end = humantime::parse_rfc3339("2999-01-01T12:00:00Z").expect("an instant");
    let end = end
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is later");
    let end = i64::try_from(end.as_millis()).expect("a sensible time");
    database.stop_clock_at(end - 60_000).await;
    let sent = send(&mut crm, TESTER, "login").await;
    assert_eq!(milliseconds(sent.expires_at), end);
    database.stop_clock_at(end).await;
    assert_eq!(
        verify(&mut crm, FIXED).await,
        expected(VerifyOutcome::Expired, 0)
    );
    // From then on it is a recipient like any other.
    assert_eq!(
        refusal(&mut crm, TESTER, "login").await,
        "DESTINATION_BLOCKED"
    );
}

on_each_store! {
    test_recipient_has_a_fixed_code
}
