//! Delivery by the real binary: through failing gateways, crashing replicas and growing
//! queues.

mod backlog;
mod copies;
mod crash;
mod faults;
mod foreign;
pub mod gateway;
mod lanes;
mod routing;
mod shutdown;
mod stale_read;

use std::fmt::Write as _;

use tonic::Status;

use crate::support::{Database, Kind, Replica};
use otpd::grpc::v1::{
    Delivery, DeliveryState, GetOtpStatusRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest,
};

/// Polls for due messages often.
const OFTEN: (&str, &str) = ("OTPD_DELIVERY__POLL_INTERVAL", "50ms");

/// Logs the lines of each message, however similar to others.
const EVERY_LINE: (&str, &str) = ("OTPD_LOG_DEDUP_WINDOW", "0s");

/// Returns a recipient that no other send of a test has.
pub fn recipient(number: usize) -> String {
    format!("+7999{number:07}")
}

pub fn send_request(number: usize, purpose: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient(number),
        purpose: purpose.to_owned(),
        ..Default::default()
    }
}

async fn send(replica: &Replica, number: usize, purpose: &str) -> SendOtpResponse {
    let sent = replica
        .client()
        .send_otp(send_request(number, purpose))
        .await;
    sent.expect("it is sent").into_inner()
}

/// A replica with that configuration on a database of its own.
pub async fn serve(kind: Kind, configuration: &str) -> (Database, Replica) {
    let database = Database::new(kind).await;
    let file = database.configure(configuration);
    let environment = [("OTPD_CONFIG", file.as_str()), OFTEN, EVERY_LINE];
    let replica = Replica::start_with(&database, &environment).await;
    (database, replica)
}

/// A route for one purpose.
pub fn route(purpose: &str, providers: &[&str]) -> String {
    let mut route = format!("\n[[routes]]\npurposes = [\"{purpose}\"]\n");
    writeln!(route, "providers = {providers:?}").expect("writing to a string cannot fail");
    route
}

/// Returns the deliveries of the newest challenge of a recipient.
async fn deliveries(replica: &Replica, number: usize, purpose: &str) -> Vec<Delivery> {
    let status = try_deliveries(replica, "anyone", (number, purpose)).await;
    status.expect("there is a status")
}

async fn try_deliveries(
    replica: &Replica,
    token: &str,
    (number, purpose): (usize, &str),
) -> Result<Vec<Delivery>, Status> {
    let request = GetOtpStatusRequest {
        recipient: recipient(number),
        purpose: purpose.to_owned(),
        ..Default::default()
    };
    let status = replica.client_of(token).get_otp_status(request).await;
    Ok(status?.into_inner().deliveries)
}

/// Returns the deliveries as soon as the newest one has one of these states.
pub async fn deliveries_in(
    replica: &Replica,
    message: (usize, &str),
    states: &[DeliveryState],
) -> Vec<Delivery> {
    deliveries_of(replica, "anyone", message, states).await
}

/// Like [`deliveries_in`], for the caller of that token.
async fn deliveries_of(
    replica: &Replica,
    token: &str,
    message: (usize, &str),
    states: &[DeliveryState],
) -> Vec<Delivery> {
    loop {
        let all = try_deliveries(replica, token, message).await;
        let all = all.expect("there is a status");
        let newest = all.last().map(Delivery::state);
        if newest.is_some_and(|newest| states.contains(&newest)) {
            return all;
        }
    }
}

/// Returns the comparable parts of deliveries: provider, state, attempt and error class.
fn comparable(deliveries: &[Delivery]) -> Vec<(&str, DeliveryState, u32, &str)> {
    let status = deliveries.iter().map(|delivery| {
        let Delivery {
            provider,
            attempts,
            error,
            ..
        } = delivery;
        (
            provider.as_str(),
            delivery.state(),
            *attempts,
            error.as_str(),
        )
    });
    status.collect()
}

async fn verifies(replica: &Replica, number: usize, purpose: &str, code: &str) -> bool {
    let request = VerifyOtpRequest {
        recipient: recipient(number),
        purpose: purpose.to_owned(),
        code: code.to_owned(),
        ..Default::default()
    };
    let verdict = replica.client().verify_otp(request).await;
    verdict.expect("there is an outcome").into_inner().verified
}
