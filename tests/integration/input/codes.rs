//! Well-formed codes and challenge ids that do not match the stored ones.

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest, Channel as ChannelField, GetOtpStatusRequest, SendOtpRequest,
    VerifyOtpRequest, VerifyOutcome, otp_service_client::OtpServiceClient,
};
use tonic::{Code, transport::Channel};

use crate::support::{Database, Kind, Refusal, Replica, Typed};

const PHONE: &str = "+79991234567";
/// Digits enough for a code, and of no code of the default length.
const TOO_SHORT: &str = "12345";
const TOO_LONG: &str = "1234567";

type Client = OtpServiceClient<Channel>;

fn verify(code: &str) -> VerifyOtpRequest {
    VerifyOtpRequest {
        recipient: PHONE.to_owned(),
        code: code.to_owned(),
        ..Default::default()
    }
}

async fn send(client: &mut Client, recipient: &str, purpose: &str) -> String {
    let request = SendOtpRequest {
        recipient: recipient.to_owned(),
        purpose: purpose.to_owned(),
        ..Default::default()
    };
    let sent = client.send_otp(request).await.expect("it is sent");
    sent.into_inner().challenge_id
}

async fn outcome(client: &mut Client, request: VerifyOtpRequest) -> VerifyOutcome {
    let verdict = client
        .verify_otp(request)
        .await
        .expect("there is an outcome");
    verdict.into_inner().outcome()
}

async fn attempts_remaining(client: &mut Client) -> u32 {
    let request = GetOtpStatusRequest {
        recipient: PHONE.to_owned(),
        ..Default::default()
    };
    let status = client
        .get_otp_status(request)
        .await
        .expect("there is a status");
    status.into_inner().attempts_remaining
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_code_length_is_reported_last_and_consumes_no_attempt() {
    let database = Database::new(Kind::Sqlite).await;
    let no_delay = [("OTPD_POLICY__FAILURE_DELAY", "0s")];
    let replica = Replica::start_with(&database, &no_delay).await;
    let mut client = replica.client();
    let client = &mut client;
    assert_eq!(
        outcome(client, verify(TOO_SHORT)).await,
        VerifyOutcome::NotFound
    );

    let challenge_id = send(client, PHONE, "").await;
    for _ in 0..10 {
        for typed in [TOO_SHORT, TOO_LONG, "1", &"1".repeat(128)] {
            let status = client.verify_otp(verify(typed)).await.expect_err(typed);
            let refusal = Refusal::of(&status);
            assert_eq!(
                (
                    refusal.code,
                    refusal.reason.as_str(),
                    refusal.field.as_str()
                ),
                (Code::InvalidArgument, "CODE_MALFORMED", "code")
            );
            assert_eq!(refusal.remedy, "this code has 6 digits");
        }
    }
    assert_eq!(attempts_remaining(client).await, 5);
    let elsewhere = VerifyOtpRequest {
        challenge_id: "another".to_owned(),
        ..verify(TOO_SHORT)
    };
    assert_eq!(outcome(client, elsewhere).await, VerifyOutcome::NotFound);

    let code = replica.code(&challenge_id).await;
    for _ in 0..5 {
        assert_eq!(
            outcome(client, verify(&Typed::Mistyped.text(&code))).await,
            VerifyOutcome::WrongCode
        );
    }
    assert_eq!(
        outcome(client, verify(TOO_LONG)).await,
        VerifyOutcome::AttemptsExhausted
    );

    database.advance_clock(Duration::from_mins(5)).await;
    assert_eq!(
        outcome(client, verify(TOO_LONG)).await,
        VerifyOutcome::Expired
    );
    database.advance_clock(Duration::from_mins(66)).await;
    assert_eq!(
        outcome(client, verify(TOO_LONG)).await,
        VerifyOutcome::NotFound
    );

    let challenge_id = send(client, PHONE, "").await;
    let code = replica.code(&challenge_id).await;
    assert_eq!(
        outcome(client, verify(&code)).await,
        VerifyOutcome::Verified
    );
    assert_eq!(
        outcome(client, verify(TOO_SHORT)).await,
        VerifyOutcome::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn challenge_id_of_another_code_matches_nothing() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let mut client = replica.client();
    let client = &mut client;
    let own = send(client, PHONE, "").await;
    let code = replica.code(&own).await;
    let of_another_recipient = send(client, "+79997654321", "").await;
    let of_another_purpose = send(client, PHONE, "login").await;
    let flipped: String = own
        .chars()
        .rev()
        .enumerate()
        .map(|(index, character)| match (index, character) {
            (0, 'A') => 'B',
            (0, _) => 'A',
            (_, same) => same,
        })
        .collect();
    let one_letter_off: String = flipped.chars().rev().collect();
    for challenge_id in [
        of_another_recipient.as_str(),
        &of_another_purpose,
        &one_letter_off,
        &own[..60],
        &format!("{own}AAAA"),
        &"A".repeat(64),
        "garbage",
        "'; DROP TABLE otp_record; --".replace(' ', "_").as_str(),
        &"x".repeat(256),
    ] {
        let verdict = client
            .verify_otp(VerifyOtpRequest {
                challenge_id: challenge_id.to_owned(),
                ..verify(&code)
            })
            .await
            .expect("there is an outcome")
            .into_inner();
        assert_eq!(verdict.outcome(), VerifyOutcome::NotFound, "{challenge_id}");
        assert_eq!(
            (verdict.verified, verdict.challenge_id.as_str()),
            (false, "")
        );
        let cancelled = client
            .cancel_otp(CancelOtpRequest {
                recipient: PHONE.to_owned(),
                challenge_id: challenge_id.to_owned(),
                ..Default::default()
            })
            .await
            .expect("there is a reply")
            .into_inner();
        assert!(!cancelled.cancelled, "{challenge_id}");
        let reply = client
            .get_otp_status(GetOtpStatusRequest {
                recipient: PHONE.to_owned(),
                challenge_id: challenge_id.to_owned(),
                ..Default::default()
            })
            .await
            .expect("there is a status")
            .into_inner();
        assert!(
            !reply.live && reply.challenge_id.is_empty(),
            "{challenge_id}"
        );
    }
    // Alone, too, a challenge that otpd never gave finds nothing.
    for challenge_id in [one_letter_off, "A".repeat(64), "garbage".to_owned()] {
        let reply = client
            .get_otp_status(GetOtpStatusRequest {
                challenge_id: challenge_id.clone(),
                ..Default::default()
            })
            .await
            .expect("there is a status")
            .into_inner();
        assert_eq!(
            (reply.live, reply.recipient.as_str()),
            (false, ""),
            "{challenge_id}"
        );
    }
    assert_eq!(attempts_remaining(client).await, 5, "nothing was judged");
    let right = VerifyOtpRequest {
        challenge_id: own,
        ..verify(&code)
    };
    assert_eq!(outcome(client, right).await, VerifyOutcome::Verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthorized_reset_changes_nothing() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let mut client = replica.client();
    let challenge_id = send(&mut client, PHONE, "").await;
    for (recipient, challenge_id) in [(PHONE, ""), ("", challenge_id.as_str())] {
        let status = client
            .cancel_otp(CancelOtpRequest {
                recipient: recipient.to_owned(),
                challenge_id: challenge_id.to_owned(),
                reset_failures: true,
                ..Default::default()
            })
            .await
            .expect_err("it is refused");
        let refusal = Refusal::of(&status);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::PermissionDenied, "RESET_NOT_ALLOWED")
        );
        assert!(status.message().contains("leave reset_failures unset"));
    }
    let code = replica.code(&challenge_id).await;
    assert_eq!(
        outcome(&mut client, verify(&code)).await,
        VerifyOutcome::Verified
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_send_keeps_the_live_code() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let mut client = replica.client();
    let challenge_id = send(&mut client, PHONE, "").await;
    let status = client
        .send_otp(SendOtpRequest {
            recipient: PHONE.to_owned(),
            channel: ChannelField::Email.into(),
            ..Default::default()
        })
        .await
        .expect_err("an address is needed");
    assert_eq!(Refusal::of(&status).field, "channel");
    let code = replica.code(&challenge_id).await;
    assert_eq!(
        outcome(&mut client, verify(&code)).await,
        VerifyOutcome::Verified
    );
}
