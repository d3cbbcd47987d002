//! Database outages at the start or later: requests are refused at once or within the
//! deadline, health and one log line report it, and otpd recovers by itself once the
//! database is back.

mod causes;
mod failover;
mod faults;
mod network;
mod pooler;
mod restored;
mod server;
mod tls;

use std::{collections::HashSet, time::Duration};

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest,
    otp_service_client::OtpServiceClient,
};
use rand::Rng as _;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::support::{Database, Refusal, Replica, reason};

/// Long enough that only a hang outlasts it.
const DEADLINE: Duration = Duration::from_secs(30);
/// Time after which a statement is abandoned, long before the deadline of a call.
const SHORT_STORE_TIMEOUT: (&str, &str) = ("OTPD_STORE__TIMEOUT", "500ms");
/// After a send the next one is allowed.
const COOL_DOWN: Duration = Duration::from_secs(61);
const REQUESTS: usize = 100;

fn recipient(number: usize) -> String {
    format!("+7999{:07}", number * 7_919)
}

fn with_deadline<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// A request of some kind, by its number; even ones send.
async fn ask(
    mut client: OtpServiceClient<Channel>,
    number: usize,
    deadline: Duration,
) -> Result<(), Status> {
    let recipient = recipient(number);
    match number % 6 {
        1 => {
            let message = VerifyOtpRequest {
                recipient,
                code: "000000".to_owned(),
                ..Default::default()
            };
            let reply = client.verify_otp(with_deadline(message, deadline)).await;
            reply.map(drop)
        }
        3 => {
            let message = CancelOtpRequest {
                recipient,
                ..Default::default()
            };
            let reply = client.cancel_otp(with_deadline(message, deadline)).await;
            reply.map(drop)
        }
        5 => {
            let message = GetOtpStatusRequest {
                recipient,
                ..Default::default()
            };
            let reply = client.get_otp_status(with_deadline(message, deadline));
            reply.await.map(drop)
        }
        _ => send(client, number, deadline).await.map(drop),
    }
}

async fn send(
    mut client: OtpServiceClient<Channel>,
    number: usize,
    deadline: Duration,
) -> Result<String, Status> {
    let message = SendOtpRequest {
        recipient: recipient(number),
        ..Default::default()
    };
    let reply = client.send_otp(with_deadline(message, deadline)).await?;
    Ok(reply.into_inner().challenge_id)
}

/// Starts many requests at once.
fn ask_many(replica: &Replica, deadline: Duration) -> JoinSet<Result<(), Status>> {
    ask_many_of(&replica.client(), deadline)
}

fn ask_many_of(
    client: &OtpServiceClient<Channel>,
    deadline: Duration,
) -> JoinSet<Result<(), Status>> {
    (0..REQUESTS)
        .map(|number| ask(client.clone(), number, deadline))
        .collect()
}

/// Error details that a caller needs for a retry.
fn assert_store_unavailable(status: &Status) {
    let refusal = Refusal::of(status);
    assert_eq!(refusal.code, Code::Unavailable, "{status:?}");
    assert_eq!(refusal.reason, "STORE_UNAVAILABLE", "{status:?}");
    let wait = refusal.wait.expect("it says when to come back");
    assert!(!wait.is_zero());
}

async fn assert_all_unavailable(requests: JoinSet<Result<(), Status>>) {
    let answers = requests.join_all().await;
    assert_eq!(answers.len(), REQUESTS);
    for answer in answers {
        assert_store_unavailable(&answer.expect_err("there is no store"));
    }
}

/// Both names of the service's health.
async fn wait_for_health(replica: &Replica, wanted: ServingStatus) {
    for service in ["", "otp.v1.OtpService"] {
        replica.wait_for_health(service, wanted).await;
    }
}

/// Watches the health of `liveness`; ends when it changes from SERVING.
async fn watch_liveness(replica: &Replica) -> JoinHandle<()> {
    let request = HealthCheckRequest {
        service: "liveness".to_owned(),
    };
    let watched = HealthClient::new(replica.channel()).watch(request).await;
    let mut changes = watched.expect("health answers").into_inner();
    let first = changes.message().await.expect("health answers");
    let first = first.map(|change| change.status());
    assert_eq!(first, Some(ServingStatus::Serving));
    tokio::spawn(async move {
        let change = changes.message().await;
        panic!("liveness changed: {change:?}");
    })
}

/// Returns the reply to a call after the store has had time for it, because a busy machine may
/// exceed a short timeout. It repeats the same request, so that the request is executed once.
async fn in_the_end<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    loop {
        match call().await {
            Err(status) if reason(&status) == "STORE_UNAVAILABLE" => {}
            answer => return answer,
        }
    }
}

/// Every recipient of [`ask_many`] gets a code that verifies, whatever the results of the sends
/// before were: no write is incomplete. `until` is the clock's position then, after any cool-down.
async fn assert_all_are_served(replica: &Replica, database: &Database, until: Duration) {
    // Recipients of this round only.
    let round = otpd::keys::os_rng().next_u64();
    let send_once = async |number: usize, time: &str| {
        let message = SendOtpRequest {
            recipient: recipient(number),
            request_id: format!("{round}-{time}-{number}"),
            ..Default::default()
        };
        let sent = in_the_end(async || {
            let request = with_deadline(message.clone(), DEADLINE);
            replica.client().send_otp(request).await
        });
        sent.await.map(|reply| reply.into_inner().challenge_id)
    };
    let mut challenges = Vec::new();
    let mut too_soon = Vec::new();
    for number in 0..REQUESTS {
        match send_once(number, "first").await {
            Ok(challenge) => challenges.push((number, challenge)),
            Err(status) => {
                assert_eq!(reason(&status), "RESEND_TOO_SOON", "{status:?}");
                let details = status.get_error_details();
                let info = details.error_info().expect("it has a reason");
                let challenge = &info.metadata["challenge_id"];
                too_soon.push((number, challenge.clone()));
            }
        }
    }
    database.advance_clock(until).await;
    for (number, challenge) in too_soon {
        let resent = send_once(number, "second").await;
        assert_eq!(resent.expect("the cool-down is over"), challenge);
        challenges.push((number, challenge));
    }
    assert_eq!(challenges.len(), REQUESTS);
    for (number, challenge) in challenges {
        let message = VerifyOtpRequest {
            recipient: recipient(number),
            code: replica.code(&challenge).await,
            request_id: format!("{round}-{number}"),
            ..Default::default()
        };
        let verified = in_the_end(async || replica.client().verify_otp(message.clone()).await);
        let verified = verified.await.expect("there is an outcome");
        assert!(verified.into_inner().verified);
    }
}

/// Returns the log lines from `start` on that do not belong to an answered request, whose last
/// lines may still arrive; and the number of all lines.
fn remarks(replica: &Replica, start: usize) -> (Vec<String>, usize) {
    let log = replica.log();
    let lines: Vec<&str> = log.lines().collect();
    let remarks = lines[start..]
        .iter()
        .filter(|line| {
            let answered = [
                "Request received",
                "OTP queued",
                "Message accepted by provider",
                "Generated OTP",
                "OTP verified",
                "Status returned",
            ];
            !answered.iter().any(|step| line.contains(step))
        })
        .map(ToString::to_string)
        .collect();
    (remarks, lines.len())
}

/// Each cause of an outage is one line, its end another, and nothing else but that requests
/// came. There is a second cause where the store, about to come back, takes too long.
fn assert_one_line_each(remarks: &[String]) {
    let Some((end, outage)) = remarks
        .split_last()
        .filter(|(_, outage)| !outage.is_empty())
    else {
        panic!("not one line for the outage and one for its end: {remarks:#?}");
    };
    let mut causes = HashSet::new();
    for line in outage {
        let cause = line.split_once("ERROR [OTP] Store unavailable cause=");
        let (_, cause) = cause.unwrap_or_else(|| panic!("of something else: {remarks:#?}"));
        assert!(causes.insert(cause), "told twice: {remarks:#?}");
    }
    assert!(end.contains("INFO [OTP] Store available"), "{remarks:#?}");
}
