//! Repeated and concurrent submissions.

use std::time::Duration;

use otpd::grpc::v1::{ReceiptRequest, VerifyOtpRequest, VerifyOutcome};
use tokio::{sync::Barrier, task::JoinSet};

use std::sync::Arc;

use super::{
    BANK, RECIPIENT, SHOP, asked, public_keys, send, serve, submission, to, verified_claims, verify,
};
use crate::support::{Database, Kind, Refusal, on_each_store};

on_each_store! {
    repeated_submission_has_equal_claims_until_the_receipt_expires
    one_of_many_submissions_has_a_receipt
}

async fn repeated_submission_has_equal_claims_until_the_receipt_expires(kind: Kind) {
    let database = Database::new(kind).await;
    let replicas = serve(&database, 2).await;
    let keys = public_keys(&replicas[0]).await;
    let code = send(&replicas[0], "crm", to(RECIPIENT)).await;
    let request = submission(RECIPIENT, &code);
    let mut claims = Vec::new();
    for replica in [0, 1, 0] {
        let mut client = replicas[replica].client_of("crm");
        let reply = verify(&mut client, request.clone()).await;
        assert!(reply.verified);
        claims.push(verified_claims(&reply.receipt, &keys).expect("the signature is valid"));
    }
    assert_eq!(claims[0], claims[1]);
    assert_eq!(claims[0], claims[2]);

    // The fields of the receipt are part of the request.
    let mut client = replicas[1].client_of("crm");
    let other = |receipt: Option<ReceiptRequest>| VerifyOtpRequest {
        receipt,
        ..request.clone()
    };
    for different in [
        None,
        Some(asked(BANK)),
        Some(ReceiptRequest {
            nonce: "fedcba9876543210".to_owned(),
            ..asked(SHOP)
        }),
        Some(ReceiptRequest {
            include_recipient: true,
            ..asked(SHOP)
        }),
    ] {
        let refused = client.verify_otp(other(different)).await;
        let status = refused.expect_err("the id was used for another request");
        assert_eq!(Refusal::of(&status).reason, "REQUEST_INVALID");
        assert!(status.message().starts_with("request_id: "), "{status:?}");
    }

    // The outcome is kept for longer than the receipt lives.
    database.advance_clock(Duration::from_secs(301)).await;
    let reply = verify(&mut client, request).await;
    assert!(reply.verified);
    assert_eq!(reply.receipt, "");
}

async fn one_of_many_submissions_has_a_receipt(kind: Kind) {
    const SUBMISSIONS: usize = 32;
    let database = Database::new(kind).await;
    let count = match kind {
        Kind::Postgres => 4,
        Kind::Sqlite => 2,
    };
    let replicas = serve(&database, count).await;
    let code = send(&replicas[0], "crm", to(RECIPIENT)).await;
    let barrier = Arc::new(Barrier::new(SUBMISSIONS));
    let mut calls = JoinSet::new();
    for number in 0..SUBMISSIONS {
        let mut client = replicas[number % count].client_of("crm");
        let barrier = Arc::clone(&barrier);
        let request = VerifyOtpRequest {
            request_id: format!("submission-{number}"),
            ..submission(RECIPIENT, &code)
        };
        calls.spawn(async move {
            barrier.wait().await;
            verify(&mut client, request).await
        });
    }
    let replies = calls.join_all().await;
    let with_receipt = replies.iter().filter(|reply| !reply.receipt.is_empty());
    assert_eq!(with_receipt.count(), 1);
    for reply in &replies {
        let is_verified = reply.outcome() == VerifyOutcome::Verified;
        assert_eq!(is_verified, !reply.receipt.is_empty());
    }
}
