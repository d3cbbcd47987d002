//! Many reloads under load: no request is lost, and none uses parts of two
//! configurations.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use otpd::grpc::v1::VerifyOtpRequest;
use tokio::task::JoinSet;

use super::{Reloading, send_to};
use crate::support::token_digest;

const RELOADS: u32 = 50;
const CALLERS: u32 = 6;

/// Each configuration has its own length of codes and a text that says so; each comes with
/// one caller more or less.
fn configuration(round: u32) -> String {
    let digest = token_digest("known");
    let length = 6 + round % 4;
    let guest = if round.is_multiple_of(2) {
        format!(
            "[callers.guest]\ntoken_sha256 = [\"{}\"]\n",
            token_digest("guest")
        )
    } else {
        String::new()
    };
    format!(
        "[policy]\ncode_length = {length}\nsends_per_hour = 0\nsends_per_day = 0\n\
         [callers.crm]\ntoken_sha256 = [\"{digest}\"]\n{guest}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reloads_lose_no_request() {
    let Reloading {
        database, replica, ..
    } = Reloading::start(&configuration(0)).await;
    let (over, made) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let replica = Arc::new(replica);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (over, made) = (Arc::clone(&over), Arc::clone(&made));
        let replica = Arc::clone(&replica);
        callers.spawn(async move {
            let mut client = replica.client_of("known");
            let mut lengths = BTreeSet::new();
            for number in 0.. {
                let last = over.load(Ordering::SeqCst);
                let recipient = format!("+7999{caller}{number:06}");
                let sent = send_to(&mut client, &recipient).await.expect("it is sent");
                let code = replica.code(&sent.challenge_id).await;
                assert_eq!(code.len() as u64, u64::from(sent.code_length));
                lengths.insert(sent.code_length);
                let typed = VerifyOtpRequest {
                    recipient,
                    code,
                    ..Default::default()
                };
                let verdict = client.verify_otp(typed).await.expect("there is an outcome");
                assert!(verdict.into_inner().verified);
                made.fetch_add(1, Ordering::SeqCst);
                if last {
                    break;
                }
            }
            lengths
        });
    }
    for round in 1..=RELOADS {
        database.configure(&configuration(round));
        replica.signal("HUP");
        replica
            .wait_for_lines(
                super::RELOADED,
                usize::try_from(round).expect("it is small"),
            )
            .await;
        // A caller that came with the configuration may call at once.
        let guest = send_to(
            &mut replica.client_of("guest"),
            &format!("+79998{round:06}"),
        )
        .await;
        assert_eq!(guest.is_ok(), round.is_multiple_of(2), "{round}: {guest:?}");
        // Something ran meanwhile.
        let before = made.load(Ordering::SeqCst);
        while made.load(Ordering::SeqCst) == before {
            tokio::task::yield_now().await;
        }
    }
    over.store(true, Ordering::SeqCst);
    let lengths: BTreeSet<u32> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(lengths, BTreeSet::from([6, 7, 8, 9]));
    let log = replica.log();
    assert!(!log.contains("Panic"), "{log}");
}
