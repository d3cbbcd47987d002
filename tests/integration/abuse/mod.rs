//! Reaction to hostile clients, without an effect on other callers.
//! docs/security/hostile-callers.md is the list.

mod call;
mod connections;

pub mod frames;
mod memory;
mod messages;
mod resource_exhaustion;

use std::future::Future;

use crate::support::{Database, Kind, Replica, with_bystanders};

/// Starts a server with these settings and runs `harm` beside other callers. Returns the result of
/// `harm` after every call of the others has had its normal reply.
pub async fn beside_good_callers<T>(
    settings: &[(&str, &str)],
    harm: impl AsyncFnOnce(&Replica) -> T,
) -> T {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, settings).await;
    let channel = replica.channel();
    let done = within_reason(with_bystanders(&replica, &channel, harm(&replica))).await;
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{status}: {log}");
    assert!(!log.contains("Shutdown grace period exceeded"), "{log}");
    done
}

/// Returns the result of `work`. It waits for events, and without a limit it would wait endlessly
/// for one that a missing bound does not cause.
pub async fn within_reason<T>(work: impl Future<Output = T>) -> T {
    let minute = std::time::Duration::from_mins(1);
    let done = tokio::time::timeout(minute, work).await;
    done.expect("the server does something about it")
}
