//! The purpose of otpd: a code sent through one replica verifies on any other, in any spelling
//! of the number.

use otpd::grpc::v1::{SendOtpRequest, VerifyOtpRequest};

use crate::support::{Database, Replica};

/// Returns spellings of one Russian number.
fn written_forms(subscriber: u32) -> [String; 8] {
    let digits = format!("{subscriber:07}");
    let (a, b, c) = (&digits[..3], &digits[3..5], &digits[5..]);
    [
        format!("+7 999 {a}-{b}-{c}"),
        format!("8 (999) {a}-{b}-{c}"),
        format!("8999{digits}"),
        format!("999{digits}"),
        format!("+7(999){digits}"),
        format!("7 999 {a} {b} {c}"),
        format!("8.999.{a}.{b}.{c}"),
        format!("tel:+7-999-{a}-{b}-{c}"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_verify_on_a_different_replica() {
    const REPLICAS: usize = 4;
    // All pairs of replicas with all pairs of spellings, ten times. A replica with state of its
    // own fails at the first code.
    const CODES: u32 = 240;

    let database = Database::postgres().await;
    let replicas = Replica::start_many(&database, REPLICAS).await;
    let clients: Vec<_> = replicas.iter().map(Replica::client).collect();

    let mut successes = 0;
    for number in 0..CODES {
        let index = number as usize;
        let (sender, verifier) = (
            index % REPLICAS,
            (index + 1 + index / REPLICAS % 3) % REPLICAS,
        );
        assert_ne!(sender, verifier);
        let forms = written_forms(number * 7_919 % 10_000_000);
        let sent = clients[sender]
            .clone()
            .send_otp(SendOtpRequest {
                recipient: forms[index % forms.len()].clone(),
                region: "RU".to_owned(),
                ..Default::default()
            })
            .await
            .expect("it is sent")
            .into_inner();
        let verdict = clients[verifier]
            .clone()
            .verify_otp(VerifyOtpRequest {
                recipient: forms[(index + 3) % forms.len()].clone(),
                region: "RU".to_owned(),
                code: replicas[sender].code(&sent.challenge_id).await,
                ..Default::default()
            })
            .await
            .expect("there is an outcome")
            .into_inner();
        assert_eq!(verdict.recipient, sent.recipient);
        assert_eq!(verdict.challenge_id, sent.challenge_id);
        successes += u32::from(verdict.verified);
    }
    assert_eq!(successes, CODES);
}
