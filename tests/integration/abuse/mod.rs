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

/// A server with these settings, beside whose callers `harm` is done; returns what came of
/// that, once every call of the others has been answered with what it asked for.
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

/// What `work` comes to. It waits for events, and would wait for ever for one that a
/// missing bound does not bring about.
pub async fn within_reason<T>(work: impl Future<Output = T>) -> T {
    let minute = std::time::Duration::from_mins(1);
    let done = tokio::time::timeout(minute, work).await;
    done.expect("the server does something about it")
}
