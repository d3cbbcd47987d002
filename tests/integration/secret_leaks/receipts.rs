//! A stolen database, a log and the metrics contain no receipt and no key that signs receipts.

use std::fs;

use otpd::{
    grpc::v1::{ReceiptRequest, SendOtpRequest, VerifyOtpRequest},
    keys::generate_receipt_entry,
};

use super::{TALKATIVE, assert_no_leak, code, database_places, text};
use crate::support::{Database, Kind, OPERATIONS, Replica, Secrets, on_each_store, token_digest};

on_each_store! {
    database_log_and_metrics_contain_neither_receipts_nor_their_key
}

async fn database_log_and_metrics_contain_neither_receipts_nor_their_key(kind: Kind) {
    let database = Database::new(kind).await;
    let entry = generate_receipt_entry(1, None).expect("the system has randomness");
    let ring = fs::read_to_string(database.keys_file()).expect("the keys were made");
    fs::write(database.keys_file(), format!("{ring}{}", *entry)).expect("the file is writable");
    let token = token_digest("crm");
    let configuration = database.configure(&format!(
        r#"
[receipts]
issuer = "https://otp.example"
listen = "127.0.0.1:0"
[callers.crm]
token_sha256 = ["{token}"]
receipt_audiences = ["https://shop.example"]
may_include_recipient = true
"#
    ));
    let environment = [
        ("OTPD_CONFIG", configuration.as_str()),
        TALKATIVE,
        OPERATIONS,
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let mut secrets = Secrets::default();
    // The fixed beginning of a key says nothing.
    let (_, key) = entry
        .trim_end()
        .split_once(" = ")
        .expect("a name and a key");
    secrets.add(&key[48..]);
    let mut client = replica.client_of("crm");
    for number in 0..20 {
        let recipient = format!("+7999123{number:04}");
        let request = SendOtpRequest {
            recipient: recipient.clone(),
            ..Default::default()
        };
        let sent = client.send_otp(request).await.expect("it is sent");
        let nonce = format!("nonce-of-number-{number:04}");
        let request = VerifyOtpRequest {
            recipient,
            code: code(&replica, &sent.get_ref().challenge_id).await,
            request_id: format!("request-{number}"),
            receipt: Some(ReceiptRequest {
                audience: "https://shop.example".to_owned(),
                nonce: nonce.clone(),
                include_recipient: true,
            }),
            ..Default::default()
        };
        for _ in 0..2 {
            let reply = client.verify_otp(request.clone()).await;
            let receipt = reply.expect("there is an outcome").into_inner().receipt;
            let (_, rest) = receipt.split_once('.').expect("a JWS has three parts");
            let (claims, signature) = rest.split_once('.').expect("a JWS has three parts");
            // The claims begin with the issuer, which is no secret.
            secrets.add(&claims[40..]);
            secrets.add(signature);
        }
        secrets.add(&nonce);
    }
    let scrape = replica.scrape().await.text;
    let running = database_places(&database);
    let (status, log) = replica.stop().await;
    assert!(status.success());
    assert!(log.contains("Receipt issued"), "{log}");
    assert_no_leak(&secrets, &running);
    assert_no_leak(&secrets, &database_places(&database));
    assert_no_leak(
        &secrets,
        &[text("the log", &log), text("the metrics", &scrape)],
    );
}
