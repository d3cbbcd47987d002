//! Shared code of the tests: servers, databases, callers and networks.

mod assertions;
mod bystanders;
mod caller;
mod command;
mod database;
mod figures;
mod fleet;
mod haproxy;
pub mod http1;
mod intermediary;
mod nginx;
mod operations;
pub mod pages;
mod pooler;
mod postgres;
mod proxy;
mod refusal;
mod replica;
pub mod repository;
mod request;
mod secrets;
mod test_ca;

pub use assertions::{Typed, asked, audited, milliseconds, reason};
pub use bystanders::with_bystanders;
pub use caller::{Authorization, CallerClient, token_digest};
pub use command::{Ended, run};
pub use database::{Database, Kind};
pub use figures::Figures;
pub use fleet::Fleet;
pub use haproxy::HaProxy;
pub use nginx::Nginx;
pub use operations::{OPERATIONS, Scrape};
pub use pooler::PgBouncer;
pub use postgres::{Postgres, give_to_server_user};
pub use proxy::Proxy;
pub use refusal::Refusal;
pub use replica::{Replica, otpd};
pub use request::{AnyRequest, cancel, framed};
pub use secrets::{Secrets, hex, hex_of};
pub use test_ca::{Proof, TestCa, dns, secure_channel};

/// Runs each of these tests, which take a [`Kind`], on each store, as `postgres::NAME` and
/// `sqlite::NAME`. Every test that runs on both stores is listed in this way.
macro_rules! on_each_store {
    ($($test:ident)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::support::Kind::Postgres).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::support::Kind::Sqlite).await;
            })*
        }
    };
}
pub(crate) use on_each_store;
