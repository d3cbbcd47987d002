//! Callers that authenticate by a token.

use std::fs;

use otpd::grpc::v1::otp_service_client::OtpServiceClient;
use sha2::{Digest as _, Sha256};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::{Database, Replica, hex_of};

/// A client that sends its proof with each call.
pub type CallerClient = OtpServiceClient<InterceptedService<Channel, Authorization>>;

/// Value of a caller's `authorization` header; none for a caller without a token.
#[derive(Clone)]
pub struct Authorization(Option<MetadataValue<Ascii>>);

impl Authorization {
    pub fn new(value: Option<&str>) -> Self {
        Self(value.map(|value| value.parse().expect("it fits a header")))
    }
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Replica {
    /// A client with that token.
    pub fn client_of(&self, token: &str) -> CallerClient {
        self.client_with(Authorization::new(Some(&format!("Bearer {token}"))))
    }

    pub fn client_with(&self, authorization: Authorization) -> CallerClient {
        OtpServiceClient::with_interceptor(self.channel(), authorization)
    }
}

/// The digest by which the configuration knows a token.
pub fn token_digest(token: &str) -> String {
    hex_of(&Sha256::digest(token.as_bytes()))
}

impl Database {
    /// Writes a configuration file, and returns its path for `OTPD_CONFIG`.
    pub fn configure(&self, text: &str) -> String {
        let path = self.directory().join("otpd.toml");
        fs::write(&path, text).expect("the directory takes files");
        path.display().to_string()
    }
}
