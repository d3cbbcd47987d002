//! Connections to the servers.

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::BenchError;
use crate::grpc::v1::{
    SendOtpRequest, SendOtpResponse, VerifyOtpRequest, VerifyOtpResponse,
    otp_service_client::OtpServiceClient,
};

/// A server that is called.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address, as it was given.
    pub address: String,
    /// How to reach it, with the time-outs of connections and calls.
    pub endpoint: Endpoint,
}

/// What a call says as `authorization`.
pub type Authorization = Option<MetadataValue<Ascii>>;

/// One HTTP/2 connection, which is opened again when it breaks.
#[derive(Clone, Debug)]
pub struct Connection {
    client: OtpServiceClient<Channel>,
    authorization: Authorization,
}

impl Connection {
    /// # Errors
    /// Where the server cannot be reached.
    pub async fn open(target: &Target, authorization: Authorization) -> Result<Self, BenchError> {
        let channel = target.endpoint.connect().await.map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string);
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
    /// The status of a call without a reply.
    pub async fn send(&self, request: SendOtpRequest) -> Result<SendOtpResponse, Status> {
        let reply = self.client.clone().send_otp(self.authorized(request)).await;
        reply.map(tonic::Response::into_inner)
    }

    /// Calls `VerifyOtp`.
    ///
    /// # Errors
    /// The status of a call without a reply.
    pub async fn verify(&self, request: VerifyOtpRequest) -> Result<VerifyOtpResponse, Status> {
        let reply = self
            .client
            .clone()
            .verify_otp(self.authorized(request))
            .await;
        reply.map(tonic::Response::into_inner)
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
