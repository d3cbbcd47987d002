//! Callers that may have receipts, and requests that are refused.

use std::process::Command;

use otpd::grpc::v1::{ReceiptRequest, VerifyOtpRequest};
use tonic::Code;

use super::{
    BANK, RECIPIENT, SHOP, add_keys, asked, first_key, send, serve, submission, to, verify,
};
use crate::support::{Database, Kind, Refusal, http1, otpd, run, token_digest};

#[tokio::test(flavor = "multi_thread")]
async fn refused_receipt_costs_no_attempt() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, 1).await.remove(0);
    let code = send(&replica, "app", to(RECIPIENT)).await;
    send(&replica, "kiosk", to(RECIPIENT)).await;
    let receipt = |edit: &dyn Fn(&mut ReceiptRequest)| {
        let mut receipt = asked(SHOP);
        edit(&mut receipt);
        receipt
    };
    let long = "n".repeat(129);
    for (caller, receipt, field) in [
        ("kiosk", asked(SHOP), "receipt.audience"),
        ("app", asked(BANK), "receipt.audience"),
        ("app", asked("https://shop.example/"), "receipt.audience"),
        ("app", asked(""), "receipt.audience"),
        ("app", asked("магазин"), "receipt.audience"),
        (
            "app",
            receipt(&|it| it.include_recipient = true),
            "receipt.include_recipient",
        ),
        ("app", receipt(&|it| it.nonce.clear()), "receipt.nonce"),
        (
            "app",
            receipt(&|it| it.nonce = "0123456789abcde".to_owned()),
            "receipt.nonce",
        ),
        (
            "app",
            receipt(&|it| it.nonce.clone_from(&long)),
            "receipt.nonce",
        ),
        (
            "app",
            receipt(&|it| it.nonce = "0123456789 abcdef".to_owned()),
            "receipt.nonce",
        ),
    ] {
        let request = VerifyOtpRequest {
            request_id: String::new(),
            receipt: Some(receipt),
            ..submission(RECIPIENT, "000000")
        };
        let refused = replica.client_of(caller).verify_otp(request).await;
        let status = refused.expect_err("it is refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let refusal = Refusal::of(&status);
        assert_eq!(refusal.reason, "REQUEST_INVALID");
        assert!(
            status.message().starts_with(&format!("{field}: ")),
            "{status:?}"
        );
    }
    let reply = verify(&mut replica.client_of("app"), submission(RECIPIENT, &code)).await;
    assert!(reply.verified);
    assert_ne!(reply.receipt, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_asked_for_in_json() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, 1).await.remove(0);
    let code = send(&replica, "crm", to(RECIPIENT)).await;
    let bearer = [("authorization", "Bearer crm")];
    let body = |receipt: &str| {
        format!(r#"{{"recipient":"{RECIPIENT}","code":"{code}","receipt":{receipt}}}"#)
    };
    let nonce = r#""nonce":"0123456789abcdef""#;
    for (receipt, field) in [
        ("7".to_owned(), "receipt: must be a JSON object"),
        (
            format!(r#"["{SHOP}","0123456789abcdef"]"#),
            "receipt: must be a JSON object",
        ),
        (
            format!(r#"{{"audience":7,{nonce}}}"#),
            "receipt.audience: must be a JSON string",
        ),
        (
            format!(r#"{{"audience":"{SHOP}","nonce":1234567890123456}}"#),
            "receipt.nonce: must be a JSON string",
        ),
        (
            format!(r#"{{"audience":"{SHOP}",{nonce},"includeRecipient":"yes"}}"#),
            "receipt.include_recipient: must be true or false",
        ),
        (
            format!(r#"{{"audience":"{SHOP}",{nonce},{nonce}}}"#),
            "receipt.nonce: is given twice",
        ),
        (
            format!(r#"{{"audience":"{SHOP}",{nonce},"life":"1h"}}"#),
            "receipt: unknown field",
        ),
        (
            format!(r#"{{"audience":"{SHOP}"}}"#),
            "receipt.nonce: must be 16 to 128",
        ),
    ] {
        let reply = http1::call(replica.address(), "VerifyOtp", &bearer, &body(&receipt)).await;
        assert_eq!(reply.status, 400, "{receipt}: {reply:?}");
        assert_eq!(reply.reason(), "REQUEST_INVALID");
        let message = reply.json()["message"].as_str().expect("a text").to_owned();
        assert!(message.starts_with(field), "{receipt}: {message}");
    }
    let null = body("null").replace(&code, "0000000");
    let reply = http1::call(replica.address(), "VerifyOtp", &bearer, &null).await;
    assert_eq!(reply.reason(), "CODE_MALFORMED");
    let right = format!(r#"{{"audience":"{SHOP}",{nonce},"include_recipient":true}}"#);
    let reply = http1::call(replica.address(), "VerifyOtp", &bearer, &body(&right)).await;
    let json = reply.json();
    assert_eq!(json["verified"], true, "{json}");
    assert_eq!(
        json["receipt"].as_str().expect("a text").split('.').count(),
        3
    );
}

/// Error of `otpd serve` with a configuration that it must refuse.
fn refused(database: &Database, configuration: &str) -> String {
    run(command(database, configuration).arg("serve")).line(64)
}

fn command(database: &Database, configuration: &str) -> Command {
    let mut command = otpd();
    command
        .current_dir(database.directory())
        .env("DATABASE_URL", database.url())
        .env("OTPD_KEYS_FILE", database.keys_file())
        .env("OTPD_LISTEN", "127.0.0.1:0")
        .env("OTPD_CONFIG", database.configure(configuration));
    command
}

#[tokio::test]
async fn unsafe_receipt_settings_stop_the_start() {
    let database = Database::new(Kind::Sqlite).await;
    let token = token_digest("crm");
    let caller = |keys: &str| format!("[callers.crm]\ntoken_sha256 = [\"{token}\"]\n{keys}\n");
    let receipts = "receipts.issuer = \"https://otp.example\"\n";
    let audiences = format!("receipt_audiences = [\"{SHOP}\"]");
    let without_key = format!("{receipts}{}", caller(&audiences));
    let error = refused(&database, &without_key);
    assert!(
        error.contains("needs a key receipt.1; add the line"),
        "{error}"
    );
    add_keys(&database, &[&first_key()]);
    let long = "a".repeat(257);
    for (configuration, error) in [
        (
            format!(
                "{receipts}{}",
                caller(&format!("self_delivery = true\n{audiences}"))
            ),
            "callers.crm.receipt_audiences: not allowed with self_delivery",
        ),
        (
            caller(&audiences),
            "callers.crm.receipt_audiences: needs the table [receipts]",
        ),
        (
            format!("{receipts}{}", caller("may_include_recipient = true")),
            "callers.crm.may_include_recipient: has no effect without receipt_audiences",
        ),
        (
            format!("{receipts}{}", caller("receipt_audiences = [\"a b\"]")),
            "callers.crm.receipt_audiences: an audience must be 1 to 256 visible",
        ),
        (
            format!(
                "{receipts}{}",
                caller(&format!("receipt_audiences = [\"{long}\"]"))
            ),
            "callers.crm.receipt_audiences: an audience must be 1 to 256 visible",
        ),
        ("receipts.listen = \"127.0.0.1:0\"\n".to_owned(), "issuer"),
        (
            "receipts.issuer = \"otp.example\"\n".to_owned(),
            "receipts.issuer: not a URL of a server",
        ),
        (
            "receipts.issuer = \"https://otp.example/\"\n".to_owned(),
            "receipts.issuer: must not end with a slash",
        ),
        (
            "receipts.issuer = \"https://otp.example?a=b\"\n".to_owned(),
            "receipts.issuer: not a URL of a server",
        ),
        (
            "receipts.issuer = \"ftp://otp.example\"\n".to_owned(),
            "receipts.issuer: must begin with https://",
        ),
        (
            "environment = \"production\"\nreceipts.issuer = \"http://otp.example\"\n".to_owned(),
            "receipts.issuer: must begin with https:// in production",
        ),
    ] {
        let shown = refused(&database, &configuration);
        assert!(shown.contains(error), "{configuration}: {shown}");
    }
}

#[tokio::test]
async fn command_line_makes_keys_and_prints_their_public_parts() {
    let database = Database::new(Kind::Sqlite).await;
    let first = run(otpd().args(["keygen", "--receipt", "1"])).done();
    assert!(first.starts_with("receipt.1 = "), "{first}");
    let second = ["keygen", "--receipt", "2", "--from", "2999-01-01T00:00:00Z"];
    let second = run(otpd().args(second)).done();
    assert!(second.ends_with(" from 2999-01-01T00:00:00Z\n"));
    for wrong in [
        vec!["keygen", "--receipt", "0"],
        vec!["keygen", "--receipt", "1", "--from", "tomorrow"],
        vec!["keygen", "--from", "2999-01-01T00:00:00Z"],
        vec!["keygen", "--receipt", "1", "--seal", "2"],
    ] {
        run(otpd().args(&wrong)).complaint(64);
    }
    add_keys(&database, &[&first, &second]);
    let shown = run(command(&database, "").args(["keys", "jwks"])).done();
    let jwks: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(jwks["keys"].as_array().expect("a list").len(), 2);
    assert!(jwks["keys"][0].get("d").is_none());
}
