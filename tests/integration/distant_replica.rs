//! Two replicas on one database, one of them over a slow network. The distance affects
//! the latency of a request, not its result.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use otpd::grpc::v1::{SendOtpRequest, otp_service_client::OtpServiceClient};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{Database, Proxy, Replica, reason};

/// Either way, so that a round trip takes twice as long. The near replica writes many times
/// between a load and a write of the distant one, on any machine.
const LATENCY: Duration = Duration::from_millis(150);
/// Callers of each replica that always have a request under way.
const CALLERS: usize = 8;
/// Sends of the distant replica.
const SENDS: usize = 16;

static BUSY: AtomicBool = AtomicBool::new(true);
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Sends to a new recipient, and returns the reason of a refusal.
async fn send(client: &mut OtpServiceClient<Channel>) -> Option<String> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let request = SendOtpRequest {
        recipient: format!("+7999{number:07}"),
        ..Default::default()
    };
    let sent = client.send_otp(request).await;
    sent.err().map(|status| reason(&status))
}

/// Sends one after the other, until it is enough; returns the number of sends.
async fn keep_busy(mut client: OtpServiceClient<Channel>) -> u32 {
    let mut sent = 0;
    while BUSY.load(Ordering::Relaxed) {
        assert_eq!(send(&mut client).await, None, "the near replica is served");
        sent += 1;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn distant_replica_is_not_starved_on_a_contended_limit() {
    let database = Database::postgres().await;
    // Both limits have one row for all of these sends.
    let limits = [
        ("OTPD_POLICY__CALLER_SENDS_PER_DAY", "1000000"),
        ("OTPD_POLICY__PREFIX_SENDS_PER_DAY", "1000000"),
    ];
    let writers = [("OTPD_STORE__BATCH_WRITERS", "4")];
    let near = Replica::start_with(&database, &[&limits[..], &writers].concat()).await;
    let proxy = Proxy::forwarding(&database);
    let far = Replica::launch(proxy.url(), &database, &limits).await;
    far.wait_for_health("", ServingStatus::Serving).await;
    proxy.delay(LATENCY);

    let busy: JoinSet<u32> = (0..CALLERS).map(|_| keep_busy(near.client())).collect();
    let distant: JoinSet<Vec<String>> = (0..CALLERS)
        .map(|_| {
            let mut client = far.client();
            async move {
                let mut refusals = Vec::new();
                for _ in 0..SENDS / CALLERS {
                    refusals.extend(send(&mut client).await);
                }
                refusals
            }
        })
        .collect();
    let refusals = distant.join_all().await.concat();
    BUSY.store(false, Ordering::Relaxed);
    let busy: u32 = busy.join_all().await.iter().sum();

    assert!(
        refusals.is_empty(),
        "{} of {SENDS}: {refusals:?}",
        refusals.len()
    );
    assert!(busy > 0, "the near replica was not busy");
    let records = database.number("SELECT COUNT(*) FROM otp_record").await;
    let sent = i64::try_from(SENDS).expect("a few") + i64::from(busy);
    assert_eq!(records, sent);
}
