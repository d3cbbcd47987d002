//! Status requests use the batches and turns of all other requests.

use std::time::Duration;

use otpd::grpc::v1::GetOtpStatusRequest;
use tokio::task::JoinSet;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{recipient, send_request};
use crate::support::{Database, OPERATIONS, Proxy, Replica};

const RECORDS: usize = 10;
const QUESTIONS: usize = 400;
/// So long that the questions of a flood gather in few batches.
const LATENCY: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn burst_of_status_calls_costs_one_statement_per_batch() {
    let database = Database::postgres().await;
    let proxy = Proxy::forwarding(&database);
    let replica = Replica::launch(proxy.url(), &database, &[OPERATIONS]).await;
    replica.wait_for_health("", ServingStatus::Serving).await;
    let mut client = replica.client();
    for number in 0..RECORDS {
        let sent = client.send_otp(send_request(number)).await;
        sent.expect("it is sent");
    }
    proxy.delay(LATENCY);
    let flood: JoinSet<usize> = (0..QUESTIONS)
        .map(|number| {
            let mut client = client.clone();
            async move {
                let request = GetOtpStatusRequest {
                    recipient: recipient(number % RECORDS),
                    ..Default::default()
                };
                let status = client.get_otp_status(request).await;
                status
                    .expect("there is a reply")
                    .into_inner()
                    .deliveries
                    .len()
            }
        })
        .collect();
    assert_eq!(flood.join_all().await, [1; QUESTIONS]);
    let scrape = replica.scrape().await;
    let statements = |name: &str| {
        scrape.value(&format!(
            "otpd_store_statement_duration_seconds_count{{statement=\"{name}\"}}"
        ))
    };
    let (messages, batches) = (
        statements("load_messages"),
        scrape.value("otpd_batch_size_count"),
    );
    assert!(messages > 0, "{}", scrape.text);
    assert!(
        messages <= batches,
        "{messages} statements in {batches} batches"
    );
}
