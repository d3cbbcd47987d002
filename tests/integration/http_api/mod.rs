//! The contract over plain HTTP: JSON and protobuf by the Connect protocol, and gRPC-Web.

mod browsers;
mod calls;
mod errors;
mod hostile;
mod leaks;
mod protocol;
mod proxies;
mod settings;
mod smuggling;
mod tools;

use serde_json::{Value, json};

use crate::support::{
    Replica,
    http1::{HttpReply, call},
};

pub const RECIPIENT: &str = "+79991234567";

/// Calls a method in JSON, and returns the body of a response that must be OK.
pub async fn done(replica: &Replica, method: &str, request: Value) -> Value {
    let reply = call(replica.address(), method, &[], &request.to_string()).await;
    assert_eq!(reply.status, 200, "{method} {request}: {}", reply.json());
    assert_eq!(reply.header("content-type"), "application/json");
    reply.json()
}

/// Sends a code, and returns its challenge and the code.
pub async fn send(replica: &Replica, recipient: &str) -> (String, String) {
    let sent = done(replica, "SendOtp", json!({ "recipient": recipient })).await;
    let challenge_id = sent["challengeId"].as_str().expect("a text").to_owned();
    let code = replica.code(&challenge_id).await;
    (challenge_id, code)
}

/// Calls a method in JSON without an expectation.
pub async fn tried(replica: &Replica, method: &str, request: &str) -> HttpReply {
    call(replica.address(), method, &[], request).await
}
