//! Valid requests of other callers during a test.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
};

use otpd::grpc::v1::{SendOtpRequest, VerifyOtpRequest, otp_service_client::OtpServiceClient};
use tonic::transport::Channel;

use super::Replica;

/// Does `harm`, and meanwhile, until once after it, sends codes and verifies them on
/// `channel`, which is the connection that the harm is done on. Every one must
/// verify.
pub async fn with_bystanders<T>(
    replica: &Replica,
    channel: &Channel,
    harm: impl Future<Output = T>,
) -> T {
    let over = AtomicBool::new(false);
    let harm = async {
        let done = harm.await;
        over.store(true, Ordering::SeqCst);
        done
    };
    let (done, (), ()) = tokio::join!(
        harm,
        stranger(replica, channel, 9_000_000, &over),
        stranger(replica, channel, 9_500_000, &over),
    );
    assert!(!replica.log().contains("Panic"), "{}", replica.log());
    done
}

async fn stranger(replica: &Replica, channel: &Channel, first: u32, over: &AtomicBool) {
    let mut client = OtpServiceClient::new(channel.clone());
    for number in first.. {
        let last = over.load(Ordering::SeqCst);
        let recipient = format!("+7999{number:07}");
        let sent = client
            .send_otp(SendOtpRequest {
                recipient: recipient.clone(),
                ..Default::default()
            })
            .await
            .expect("a stranger's code is sent")
            .into_inner();
        let verdict = client
            .verify_otp(VerifyOtpRequest {
                recipient,
                code: replica.code(&sent.challenge_id).await,
                ..Default::default()
            })
            .await
            .expect("a stranger's code is judged");
        assert!(verdict.into_inner().verified);
        if last {
            return;
        }
    }
}
