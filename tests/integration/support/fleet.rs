//! Many replicas and many concurrent callers.

use std::{future::Future, sync::Arc};

use otpd::grpc::v1::{GetOtpStatusRequest, otp_service_client::OtpServiceClient};
use tokio::{sync::Barrier, task::JoinSet};
use tonic::transport::Channel;

use super::{Database, Kind, Replica};

/// Connections to each replica: calls on one share its order.
const CONNECTIONS: usize = 4;

/// Replicas on one database, and callers' connections to all of them.
pub struct Fleet {
    pub kind: Kind,
    pub replicas: Vec<Replica>,
    /// The first of them go to one replica each.
    pub clients: Vec<OtpServiceClient<Channel>>,
}

impl Fleet {
    /// Four replicas on PostgreSQL, or two on one SQLite file.
    pub async fn start(kind: Kind, environment: &[(&str, &str)]) -> (Database, Self) {
        let database = Database::new(kind).await;
        let count = match kind {
            Kind::Postgres => 4,
            Kind::Sqlite => 2,
        };
        let replicas = Replica::start_many_with(&database, count, environment).await;
        let clients: Vec<_> = replicas
            .iter()
            .cycle()
            .take(count * CONNECTIONS)
            .map(Replica::client)
            .collect();
        let fleet = Self {
            kind,
            replicas,
            clients,
        };
        // Connections are made now, not while racing.
        for client in &fleet.clients {
            let request = GetOtpStatusRequest {
                recipient: "nobody@example.com".to_owned(),
                ..Default::default()
            };
            let status = client.clone().get_otp_status(request).await;
            status.expect("each replica answers");
        }
        (database, fleet)
    }

    /// Makes `count` calls at the same moment, spread over all connections, and returns their
    /// results in order.
    pub async fn at_once<T, F>(
        &self,
        count: usize,
        call: impl Fn(usize, OtpServiceClient<Channel>) -> F,
    ) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let barrier = Arc::new(Barrier::new(count));
        let mut calls = JoinSet::new();
        for index in 0..count {
            let client = self.clients[index % self.clients.len()].clone();
            let call = call(index, client);
            let barrier = Arc::clone(&barrier);
            calls.spawn(async move {
                barrier.wait().await;
                (index, call.await)
            });
        }
        // They come in the order in which they end.
        let mut results = calls.join_all().await;
        results.sort_unstable_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }
}
