//! Bearer tokens: valid, missing, wrong and revoked ones.

use std::collections::BTreeMap;

use otpd::grpc::v1::VerifyOutcome;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{
    v1::server_reflection_client::ServerReflectionClient as V1Client,
    v1alpha::server_reflection_client::ServerReflectionClient as V1AlphaClient,
};

use super::{
    RECIPIENT, cancel_request, send, send_request, status_request, verify, verify_request,
};
use crate::support::{Authorization, Database, Kind, Refusal, Replica, audited, token_digest};

const UNKNOWN: &str = "[OTP AUDIT] Authentication failed";

/// A server that knows one caller, by these tokens.
async fn serve(database: &Database, tokens: &[&str]) -> Replica {
    let digests: Vec<_> = tokens
        .iter()
        .map(|token| format!("\"{}\"", token_digest(token)))
        .collect();
    let configuration = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [{}]",
        digests.join(",")
    ));
    Replica::start_with(database, &[("OTPD_CONFIG", &configuration)]).await
}

#[track_caller]
fn assert_turned_away<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let refusal = Refusal::of(&answer.expect_err("the call is unauthenticated"));
    assert_eq!(refusal.code, Code::Unauthenticated);
    assert_eq!(refusal.reason, "CALLER_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_calls_are_rejected_and_audited() {
    const NOTHING: &str = "no bearer token and no client certificate";
    const UNKNOWN_TOKEN: &str = "no caller has this bearer token";
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, &["withdrawn", "known"]).await;
    send(
        &mut replica.client_of("withdrawn"),
        send_request(RECIPIENT, ""),
    )
    .await;
    drop(replica);
    let replica = serve(&database, &["known"]).await;

    let mut turned_away = BTreeMap::<_, u64>::new();
    for (authorization, cause) in [
        (None, NOTHING),
        (Some("Bearer wr0ng-s3cret"), UNKNOWN_TOKEN),
        (Some("Bearer withdrawn"), UNKNOWN_TOKEN),
        (Some("Bearer KNOWN"), UNKNOWN_TOKEN),
        (Some("Bearer "), UNKNOWN_TOKEN),
        (Some("Basic known"), UNKNOWN_TOKEN),
        (Some("known"), UNKNOWN_TOKEN),
    ] {
        let mut client = replica.client_with(Authorization::new(authorization));
        assert_turned_away(client.send_otp(send_request(RECIPIENT, "")).await);
        assert_turned_away(client.verify_otp(verify_request(RECIPIENT, "123456")).await);
        assert_turned_away(client.cancel_otp(cancel_request(RECIPIENT)).await);
        assert_turned_away(client.get_otp_status(status_request(RECIPIENT)).await);
        *turned_away.entry(cause).or_default() += 4;
        let line = replica.wait_for_line(cause).await;
        let reply = line.contains(UNKNOWN) && line.contains("rpc=SendOtp");
        assert!(reply && line.contains("from=127.0.0.1:"), "{line}");
    }
    // The scheme is written in any case.
    let mut known = replica.client_with(Authorization::new(Some("bearer known")));
    let reply = known.get_otp_status(status_request(RECIPIENT)).await;
    assert!(reply.expect("it is the caller").into_inner().live);
    let log = replica.stop().await.1;
    for (cause, count) in turned_away {
        assert_eq!(
            audited(&log, "Authentication failed", cause),
            count,
            "{log}"
        );
    }
    for token in ["wr0ng-s3cret", "withdrawn", "known\""] {
        assert!(!log.contains(token), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_rotation_has_no_downtime() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, &["old"]).await;
    let sent = send(&mut replica.client_of("old"), send_request(RECIPIENT, "")).await;
    let code = replica.code(&sent.challenge_id).await;
    assert_turned_away(
        replica
            .client_of("new")
            .get_otp_status(status_request(RECIPIENT))
            .await,
    );
    drop(replica);

    let replica = serve(&database, &["old", "new"]).await;
    for token in ["old", "new"] {
        let mut client = replica.client_of(token);
        let reply = client.get_otp_status(status_request(RECIPIENT)).await;
        assert!(reply.expect("both are its tokens").into_inner().live);
    }
    drop(replica);

    let replica = serve(&database, &["new"]).await;
    assert_turned_away(
        replica
            .client_of("old")
            .get_otp_status(status_request(RECIPIENT))
            .await,
    );
    let verdict = verify(
        &mut replica.client_of("new"),
        verify_request(RECIPIENT, &code),
    )
    .await;
    assert_eq!(verdict.outcome(), VerifyOutcome::Verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_auth_and_reflection_can_be_disabled() {
    let database = Database::new(Kind::Sqlite).await;
    let digest = token_digest("known");
    let callers = [("OTPD_CALLERS__CRM__TOKEN_SHA256", digest.as_str())];
    for (reflection, code) in [("true", Code::Ok), ("false", Code::Unimplemented)] {
        let environment = [callers[0], ("OTPD_REFLECTION", reflection)];
        let replica = Replica::start_with(&database, &environment).await;
        for service in ["", "otp.v1.OtpService", "liveness"] {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            let health = HealthClient::new(replica.channel()).check(request).await;
            let status = health
                .expect("health needs no authentication")
                .into_inner()
                .status();
            assert_eq!(status, ServingStatus::Serving, "{service:?}");
        }
        let nothing = tokio_stream::empty();
        let v1 = V1Client::new(replica.channel())
            .server_reflection_info(nothing)
            .await;
        assert_eq!(v1.map_or_else(|status| status.code(), |_| Code::Ok), code);
        let nothing = tokio_stream::empty();
        let v1alpha = V1AlphaClient::new(replica.channel())
            .server_reflection_info(nothing)
            .await;
        assert_eq!(
            v1alpha.map_or_else(|status| status.code(), |_| Code::Ok),
            code
        );
    }
}
