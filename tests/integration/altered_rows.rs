//! Rows that were altered in the database: a caller with write access to it gets neither
//! a recipient nor a code of another caller.

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest, CancelOtpResponse, GetOtpStatusRequest, GetOtpStatusResponse, SendOtpRequest,
    SendOtpResponse, VerifyOtpRequest, VerifyOutcome,
};

use crate::{
    outbox::gateway::{DOWN, Gateway, TAKES},
    support::{CallerClient, Database, Kind, Replica, on_each_store, token_digest},
};

const RECIPIENT: &str = "+79991234567";
const ALTERED_RECORD: &str = "[OTP AUDIT] Record ignored: it was altered in the database";
const ALTERED_MESSAGE: &str = "[OTP AUDIT] Message dropped: it was altered in the database";
const ENDED: &str = "SELECT count(*) FROM otp_message WHERE state IN ('sent', 'failed', 'dropped')";
const DROPPED: &str = "SELECT count(*) FROM otp_message WHERE state = 'dropped'";

/// A replica with two callers, each with a gateway of its own.
struct World {
    database: Database,
    gateway: Gateway,
    replica: Replica,
    crm: CallerClient,
    evil: CallerClient,
}

impl World {
    async fn new(kind: Kind) -> Self {
        let gateway = Gateway::start().await;
        let [crm, evil] = ["crm's", "evil's"].map(token_digest);
        let database = Database::new(kind).await;
        let file = database.configure(&format!(
            r#"
[policy]
resend_after = "0s"
[callers.crm]
token_sha256 = "{crm}"
[callers.evil]
token_sha256 = "{evil}"
{}{}{}
[[routes]]
channels = ["telegram"]
providers = ["telegram"]
[[routes]]
callers = ["crm"]
providers = ["crms"]
[[routes]]
callers = ["evil"]
providers = ["evils"]
"#,
            gateway.provider("crms", ""),
            gateway.provider("evils", ""),
            gateway.provider("telegram", ""),
        ));
        let environment = [
            ("OTPD_CONFIG", file.as_str()),
            ("OTPD_DELIVERY__POLL_INTERVAL", "50ms"),
        ];
        let replica = Replica::start_with(&database, &environment).await;
        let [crm, evil] = ["crm's", "evil's"].map(|token| replica.client_of(token));
        Self {
            database,
            gateway,
            replica,
            crm,
            evil,
        }
    }

    async fn send(&mut self) -> SendOtpResponse {
        let request = SendOtpRequest {
            recipient: RECIPIENT.to_owned(),
            purpose: "login".to_owned(),
            ..Default::default()
        };
        let sent = self.crm.send_otp(request).await;
        sent.expect("it is sent").into_inner()
    }

    /// Changes a row while a message waits, and waits for the final state of the message.
    async fn alter_while_it_waits(&mut self, statement: &'static str) {
        self.gateway.will("crms", DOWN);
        let sent = self.send().await;
        self.gateway.asked_for(&sent.challenge_id).await;
        self.database.execute(statement).await;
        self.gateway.will("crms", TAKES);
        self.database.advance_clock(Duration::from_mins(1)).await;
        self.database.wait_for_number(ENDED, 1).await;
    }

    async fn outcome(&mut self, code: &str) -> VerifyOutcome {
        let request = VerifyOtpRequest {
            recipient: RECIPIENT.to_owned(),
            purpose: "login".to_owned(),
            code: code.to_owned(),
            ..Default::default()
        };
        let verdict = self.crm.verify_otp(request).await;
        verdict.expect("there is an outcome").into_inner().outcome()
    }
}

fn by_challenge(challenge_id: &str) -> GetOtpStatusRequest {
    GetOtpStatusRequest {
        challenge_id: challenge_id.to_owned(),
        ..Default::default()
    }
}

/// A challenge id is the record's key and the challenge's nonce, so a reader of the
/// database knows it.
async fn record_moved_to_another_caller_is_not_shown(kind: Kind) {
    let mut world = World::new(kind).await;
    let sent = world.send().await;
    let code = world.gateway.asked_for(&sent.challenge_id).await.code;

    world
        .database
        .execute("UPDATE otp_record SET caller = 'evil'")
        .await;
    let request = by_challenge(&sent.challenge_id);
    let shown = world.evil.get_otp_status(request).await;
    let shown = shown.expect("there is a reply").into_inner();
    assert_eq!(shown, GetOtpStatusResponse::default());
    let request = CancelOtpRequest {
        challenge_id: sent.challenge_id.clone(),
        ..Default::default()
    };
    let cancelled = world.evil.cancel_otp(request).await;
    let cancelled = cancelled.expect("there is a reply").into_inner();
    assert_eq!(cancelled, CancelOtpResponse::default());
    let line = world.replica.wait_for_line(ALTERED_RECORD).await;
    assert!(line.contains("caller=evil purpose=login"), "{line}");
    assert_eq!(world.outcome(&code).await, VerifyOutcome::NotFound);

    // Nothing of that was written: the repaired row verifies.
    world
        .database
        .execute("UPDATE otp_record SET caller = 'crm'")
        .await;
    assert_eq!(world.outcome(&code).await, VerifyOutcome::Verified);
}

async fn record_moved_to_another_purpose_is_neither_shown_verified_nor_resent(kind: Kind) {
    let mut world = World::new(kind).await;
    let sent = world.send().await;
    let code = world.gateway.asked_for(&sent.challenge_id).await.code;

    world
        .database
        .execute("UPDATE otp_record SET purpose = 'payment'")
        .await;
    let request = by_challenge(&sent.challenge_id);
    let shown = world.crm.get_otp_status(request).await;
    let shown = shown.expect("there is a reply").into_inner();
    assert_eq!(shown, GetOtpStatusResponse::default());
    assert_eq!(world.outcome(&code).await, VerifyOutcome::NotFound);
    let again = world.send().await;
    assert!(!again.resent);
    assert_ne!(again.challenge_id, sent.challenge_id);
}

/// A record without a secret has nothing to compute its key from but the request.
async fn used_record_moved_to_another_purpose_counts_as_absent(kind: Kind) {
    let mut world = World::new(kind).await;
    let sent = world.send().await;
    let code = world.gateway.asked_for(&sent.challenge_id).await.code;
    assert_eq!(world.outcome(&code).await, VerifyOutcome::Verified);

    world
        .database
        .execute("UPDATE otp_record SET purpose = 'payment'")
        .await;
    let request = GetOtpStatusRequest {
        recipient: RECIPIENT.to_owned(),
        purpose: "login".to_owned(),
        ..Default::default()
    };
    let shown = world.crm.get_otp_status(request).await;
    let shown = shown.expect("there is a reply").into_inner();
    assert_eq!(shown.deliveries, []);
    world.replica.wait_for_line(ALTERED_RECORD).await;
}

async fn message_moved_to_another_caller_is_not_sent(kind: Kind) {
    let mut world = World::new(kind).await;
    world
        .alter_while_it_waits("UPDATE otp_record SET caller = 'evil'")
        .await;
    assert_eq!(world.gateway.state().count("evils"), 0);
    assert_eq!(world.database.number(DROPPED).await, 1);
    world.replica.wait_for_line(ALTERED_MESSAGE).await;
}

async fn message_moved_to_another_channel_is_not_sent(kind: Kind) {
    let mut world = World::new(kind).await;
    world
        .alter_while_it_waits("UPDATE otp_message SET channel = 'telegram'")
        .await;
    assert_eq!(world.gateway.state().count("telegram"), 0);
    assert_eq!(world.database.number(DROPPED).await, 1);
    world.replica.wait_for_line(ALTERED_MESSAGE).await;
}

on_each_store! {
    record_moved_to_another_caller_is_not_shown
    record_moved_to_another_purpose_is_neither_shown_verified_nor_resent
    used_record_moved_to_another_purpose_counts_as_absent
    message_moved_to_another_caller_is_not_sent
    message_moved_to_another_channel_is_not_sent
}
