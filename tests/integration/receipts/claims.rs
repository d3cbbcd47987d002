//! Claims of receipts.

use otpd::grpc::v1::{Channel, ReceiptRequest, SendOtpRequest, VerifyOtpRequest, VerifyOutcome};

use super::{
    BANK, ISSUER, NONCE, RECIPIENT, SHOP, asked, public_keys, send, serve, submission, to,
    verified_claims, verify,
};
use crate::support::{Database, Kind, milliseconds, on_each_store};

on_each_store! {
    receipt_states_the_verification
    receipt_names_every_channel_and_the_recipient_only_on_request
    only_a_verified_code_has_a_receipt
}

async fn receipt_states_the_verification(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = serve(&database, 1).await.remove(0);
    let mut client = replica.client_of("crm");
    let login = SendOtpRequest {
        purpose: "login".to_owned(),
        ..to(RECIPIENT)
    };
    let code = send(&replica, "crm", login).await;
    let request = VerifyOtpRequest {
        purpose: "login".to_owned(),
        ..submission("8 (999) 123-45-67", &code)
    };
    let request = VerifyOtpRequest {
        region: "RU".to_owned(),
        ..request
    };
    let reply = verify(&mut client, request).await;
    let keys = public_keys(&replica).await;
    let claims = verified_claims(&reply.receipt, &keys).expect("the signature is valid");
    let names: Vec<&str> = claims
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = [
        "iss",
        "sub",
        "aud",
        "azp",
        "iat",
        "exp",
        "jti",
        "nonce",
        "amr",
        "purpose",
        "challenge_id",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], SHOP);
    assert_eq!(claims["azp"], "crm");
    assert_eq!(claims["nonce"], NONCE);
    assert_eq!(claims["purpose"], "login");
    assert_eq!(claims["challenge_id"], reply.challenge_id);
    assert_eq!(claims["amr"], serde_json::json!(["otp", "sms"]));
    assert_eq!(claims["iat"], milliseconds(reply.verified_at) / 1_000);
    let life =
        claims["exp"].as_i64().expect("a number") - claims["iat"].as_i64().expect("a number");
    assert_eq!(life, 300);
    assert_eq!(claims["jti"].as_str().expect("a text").len(), 22);

    // The same recipient is the same subject for one audience, and another one for others.
    let subject = claims["sub"].clone();
    assert_eq!(subject.as_str().expect("a text").len(), 43);
    assert!(!claims.to_string().contains("9991234567"));
    for (caller, audience, is_same) in [("crm", BANK, false), ("app", SHOP, true)] {
        let code = send(&replica, caller, to(RECIPIENT)).await;
        let request = VerifyOtpRequest {
            receipt: Some(asked(audience)),
            ..submission(RECIPIENT, &code)
        };
        let reply = verify(&mut replica.client_of(caller), request).await;
        let other = verified_claims(&reply.receipt, &keys).expect("the signature is valid");
        assert_eq!(other["azp"], caller);
        assert_eq!(other["sub"] == subject, is_same, "{caller} {audience}");
        assert_ne!(other["jti"], claims["jti"]);
    }
}

async fn receipt_names_every_channel_and_the_recipient_only_on_request(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = serve(&database, 1).await.remove(0);
    let mut client = replica.client_of("crm");
    let keys = public_keys(&replica).await;
    let on = |channel: Channel| SendOtpRequest {
        channel: channel.into(),
        ..to(RECIPIENT)
    };
    let mut code = String::new();
    for channel in [
        Channel::Voice,
        Channel::Sms,
        Channel::Telegram,
        Channel::Voice,
    ] {
        code = send(&replica, "crm", on(channel)).await;
    }
    let with_recipient = ReceiptRequest {
        include_recipient: true,
        ..asked(SHOP)
    };
    let request = VerifyOtpRequest {
        receipt: Some(with_recipient.clone()),
        ..submission(RECIPIENT, &code)
    };
    let reply = verify(&mut client, request).await;
    let claims = verified_claims(&reply.receipt, &keys).expect("the signature is valid");
    assert_eq!(
        claims["amr"],
        serde_json::json!(["otp", "sms", "tel", "telegram"])
    );
    assert_eq!(claims["phone_number"], RECIPIENT);
    assert_eq!(claims["phone_number_verified"], true);
    assert!(claims.get("email").is_none());

    let code = send(&replica, "crm", to("Anna@Example.com")).await;
    let request = VerifyOtpRequest {
        receipt: Some(with_recipient),
        ..submission("anna@example.com", &code)
    };
    let reply = verify(&mut client, request).await;
    let claims = verified_claims(&reply.receipt, &keys).expect("the signature is valid");
    assert_eq!(claims["amr"], serde_json::json!(["otp", "email"]));
    assert_eq!(claims["email"], "anna@example.com");
    assert_eq!(claims["email_verified"], true);
    assert!(claims.get("phone_number").is_none());
}

async fn only_a_verified_code_has_a_receipt(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = serve(&database, 1).await.remove(0);
    let mut client = replica.client_of("crm");
    let unknown = verify(&mut client, submission(RECIPIENT, "123456")).await;
    assert_eq!(unknown.outcome(), VerifyOutcome::NotFound);
    assert_eq!(unknown.receipt, "");
    let code = send(&replica, "crm", to(RECIPIENT)).await;
    let wrong = if code.starts_with('9') { "0" } else { "9" };
    let wrong = format!("{wrong}{}", &code[1..]);
    let mistyped = VerifyOtpRequest {
        request_id: "mistyped".to_owned(),
        ..submission(RECIPIENT, &wrong)
    };
    for _ in 0..2 {
        let reply = verify(&mut client, mistyped.clone()).await;
        assert_eq!(reply.outcome(), VerifyOutcome::WrongCode);
        assert_eq!(reply.receipt, "");
    }
    let unasked = VerifyOtpRequest {
        receipt: None,
        ..submission(RECIPIENT, &code)
    };
    let reply = verify(&mut client, unasked).await;
    assert!(reply.verified);
    assert_eq!(reply.receipt, "");

    // The code of a test recipient is fixed, so it proves nothing.
    let sent = client.send_otp(to("+79990000000")).await;
    sent.expect("it is accepted");
    for _ in 0..2 {
        let reply = verify(&mut client, submission("+79990000000", "424242")).await;
        assert!(reply.verified);
        assert_eq!(reply.receipt, "");
    }
    replica.wait_for_lines("Receipt withheld", 2).await;
}
