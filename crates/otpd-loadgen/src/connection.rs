//! Connections to the servers.

use std::error::Error;

use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::BenchError;
use otpd_contract::v1::{
    SendOtpRequest, SendOtpResponse, VerifyOtpRequest, VerifyOtpResponse,
    otp_service_client::OtpServiceClient,
};

/// Server under load.
#[derive(Clone, Debug)]
pub struct TargetServer {
    /// Address, as it was given.
    pub address: String,
    /// Endpoint, with the time-outs of connections and calls.
    pub endpoint: Endpoint,
}

/// Value of the header `authorization` of a call.
pub type AuthorizationHeader = Option<MetadataValue<Ascii>>;

/// HTTP/2 connection, which is opened again if it is lost.
#[derive(Clone, Debug)]
pub struct LoadConnection {
    client: OtpServiceClient<Channel>,
    authorization: AuthorizationHeader,
}

impl LoadConnection {
    /// Opens a connection.
    ///
    /// # Errors
    /// [`BenchError::Unreachable`] if the server cannot be reached.
    pub async fn open(
        target: &TargetServer,
        authorization: AuthorizationHeader,
    ) -> Result<Self, BenchError> {
        let channel = target.endpoint.connect().await.map_err(|error| {
            let cause =
                Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            BenchError::Unreachable {
                address: target.address.clone(),
                cause,
            }
        })?;
        Ok(Self {
            client: OtpServiceClient::new(channel),
            authorization,
        })
    }

    /// Calls `SendOtp`.
    ///
    /// # Errors
    /// [`Status`] of a call without a response.
    pub async fn send(&self, request: SendOtpRequest) -> Result<SendOtpResponse, Status> {
        sent_once(|| {
            let (mut client, request) = (self.client.clone(), self.authorized(request.clone()));
            async move { client.send_otp(request).await }
        })
        .await
    }

    /// Calls `VerifyOtp`.
    ///
    /// # Errors
    /// [`Status`] of a call without a response.
    pub async fn verify(&self, request: VerifyOtpRequest) -> Result<VerifyOtpResponse, Status> {
        sent_once(|| {
            let (mut client, request) = (self.client.clone(), self.authorized(request.clone()));
            async move { client.verify_otp(request).await }
        })
        .await
    }

    fn authorized<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", authorization.clone());
        }
        request
    }
}

/// Maximum number of retries of a call that was not sent: its connection may take a
/// moment to detect that it has ended.
const MAX_UNSENT_RETRIES: usize = 100;

/// Makes a call, and repeats it if its connection ended before the request was sent, as
/// old connections do. gRPC's own clients do so by themselves (gRFC A6, transparent
/// retries).
async fn sent_once<Reply, Calling>(call: impl Fn() -> Calling) -> Result<Reply, Status>
where
    Calling: Future<Output = Result<Response<Reply>, Status>>,
{
    let mut reply = call().await;
    for _ in 0..MAX_UNSENT_RETRIES {
        if !reply.as_ref().is_err_and(was_not_sent) {
            break;
        }
        reply = call().await;
    }
    reply.map(Response::into_inner)
}

/// Returns true if a call failed before any part of it reached the server: it waited for
/// the connection that ended, or this client knew already that the connection accepts no
/// more calls.
pub fn was_not_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        let waited = error.downcast_ref().is_some_and(hyper::Error::is_canceled);
        let refused = error.downcast_ref().is_some_and(|error: &h2::Error| {
            error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
        });
        if waited || refused {
            return true;
        }
        cause = error.source();
    }
    false
}
