//! Receipts: claims, permissions, repetitions, public keys and their rotation.

mod claims;
mod load;
mod permissions;
mod public_keys;
mod repetitions;
mod rotation;

use std::{collections::BTreeMap, fs, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use otpd::{
    grpc::v1::{ReceiptRequest, SendOtpRequest, VerifyOtpRequest, VerifyOtpResponse},
    keys::generate_receipt_entry,
};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;

use crate::support::{CallerClient, Database, Replica, http1, token_digest};

const RECIPIENT: &str = "+79991234567";
const ISSUER: &str = "https://otp.example";
const SHOP: &str = "https://shop.example";
const BANK: &str = "https://bank.example";
const NONCE: &str = "0123456789abcdef";

/// Configuration with receipts: of the callers, `crm` may have all of them, `app` only those
/// without a recipient, and `kiosk` none.
fn configuration() -> String {
    let [crm, app, kiosk] = ["crm", "app", "kiosk"].map(token_digest);
    format!(
        r#"
[receipts]
issuer = "{ISSUER}"
listen = "127.0.0.1:0"
[callers.crm]
token_sha256 = ["{crm}"]
receipt_audiences = ["{SHOP}", "{BANK}"]
may_include_recipient = true
[callers.app]
token_sha256 = ["{app}"]
receipt_audiences = ["{SHOP}"]
[callers.kiosk]
token_sha256 = ["{kiosk}"]
[[test_recipients]]
caller = "crm"
recipient = "+79990000000"
code = "424242"
expires = "2999-01-01"
"#
    )
}

/// Adds entries to the key ring of a database.
fn add_keys(database: &Database, entries: &[&str]) {
    let path = database.keys_file();
    let mut ring = fs::read_to_string(&path).expect("the keys were made");
    ring.extend(entries.iter().copied());
    fs::write(path, ring).expect("the file is writable");
}

/// Returns a new receipt key that signs from the start.
fn first_key() -> String {
    let entry = generate_receipt_entry(1, None);
    entry.expect("the system has randomness").to_string()
}

/// Writes configuration and key, and returns the environment for replicas.
fn configure(database: &Database) -> Vec<(&'static str, String)> {
    add_keys(database, &[&first_key()]);
    vec![
        ("OTPD_CONFIG", database.configure(&configuration())),
        ("OTPD_POLICY__RESEND_AFTER", "0s".to_owned()),
    ]
}

/// Starts replicas with receipts.
async fn serve(database: &Database, count: usize) -> Vec<Replica> {
    let environment = configure(database);
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Replica::start_many_with(database, count, &environment).await
}

/// Address of the listener of public keys.
fn key_address(replica: &Replica) -> SocketAddr {
    let log = replica.log();
    let (_, rest) = log.split_once("receipts=").expect("it is configured");
    let end = rest.find(' ').unwrap_or(rest.len());
    rest[..end].parse().expect("an address")
}

/// Public keys of a server, by their ids.
async fn public_keys(replica: &Replica) -> BTreeMap<String, Value> {
    let request = http1::raw(
        "GET",
        "/.well-known/jwks.json",
        &[("host", "otp.example")],
        "",
    );
    let reply = http1::exchange(key_address(replica), &request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let keys = reply.json()["keys"].as_array().cloned().expect("a list");
    let id = |key: &Value| key["kid"].as_str().expect("each key has an id").to_owned();
    keys.into_iter().map(|key| (id(&key), key)).collect()
}

/// Claims of a receipt, if one of the keys signed it.
fn verified_claims(receipt: &str, keys: &BTreeMap<String, Value>) -> Option<Value> {
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let (signed, signature) = receipt.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: Value = serde_json::from_slice(&decoded(header)?).ok()?;
    assert_eq!(header["alg"], "ES256");
    assert_eq!(header["typ"], "otp-receipt+jwt");
    let key = keys.get(header["kid"].as_str()?)?;
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        point.extend(decoded(key[coordinate].as_str()?)?);
    }
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(signed.as_bytes(), &decoded(signature)?).ok()?;
    serde_json::from_slice(&decoded(claims)?).ok()
}

fn asked(audience: &str) -> ReceiptRequest {
    ReceiptRequest {
        audience: audience.to_owned(),
        nonce: NONCE.to_owned(),
        include_recipient: false,
    }
}

/// Sends a code to a recipient, and returns it.
async fn send(replica: &Replica, caller: &str, request: SendOtpRequest) -> String {
    let sent = replica.client_of(caller).send_otp(request).await;
    let sent = sent.expect("it is sent").into_inner();
    replica.code(&sent.challenge_id).await
}

fn to(recipient: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient.to_owned(),
        ..Default::default()
    }
}

/// Request with a named id that asks for a receipt for the shop.
fn submission(recipient: &str, code: &str) -> VerifyOtpRequest {
    VerifyOtpRequest {
        recipient: recipient.to_owned(),
        code: code.to_owned(),
        request_id: "submission".to_owned(),
        receipt: Some(asked(SHOP)),
        ..Default::default()
    }
}

async fn verify(client: &mut CallerClient, request: VerifyOtpRequest) -> VerifyOtpResponse {
    let verdict = client.verify_otp(request).await;
    verdict.expect("there is an outcome").into_inner()
}
