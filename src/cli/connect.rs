//! Address of the server that a command calls, and authentication to it.

use std::{
    error::Error as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{CommandError, exit};
use crate::{config::DEFAULT_LISTEN, grpc::v1::otp_service_client::OtpServiceClient};

/// Timeout of connecting, and of a call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Server to call.
#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// Address of the server, HOST:PORT or a URL [default: OTPD_LISTEN, else
    /// 127.0.0.1:50051].
    #[arg(long, env = "OTPD_ADDRESS", hide_env = true)]
    address: Option<String>,
    #[command(flatten)]
    access: AccessArguments,
}

/// Credentials. An empty value counts as not given, as for all variables of otpd.
#[derive(Debug, Args)]
pub(super) struct AccessArguments {
    /// Bearer token of the caller.
    #[arg(long, env = "OTPD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file with the certificate authority of the server; implies TLS.
    #[arg(long, value_name = "FILE", env = "OTPD_CA", value_parser = optional_path())]
    ca: Option<PathBuf>,
}

impl ServerArguments {
    pub async fn otp(
        &self,
    ) -> Result<OtpServiceClient<InterceptedService<Channel, BearerToken>>, CommandError> {
        let token = self.access.authorization()?;
        Ok(OtpServiceClient::with_interceptor(
            self.connect().await?,
            BearerToken(token),
        ))
    }

    pub async fn connect(&self) -> Result<Channel, CommandError> {
        let address = self.address.clone();
        let address = address.filter(|address| !address.is_empty());
        let address = address.unwrap_or_else(configured_address);
        let endpoint = self.access.endpoint(&address)?;
        endpoint.connect().await.map_err(|error| {
            let cause = error
                .source()
                .map_or_else(|| error.to_string(), ToString::to_string);
            CommandError::new(
                exit::UNAVAILABLE,
                format!("cannot reach {address}: {cause}"),
            )
        })
    }
}

impl AccessArguments {
    /// Returns the endpoint of an address, HOST:PORT or a URL; does not connect yet.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, CommandError> {
        let ca = non_empty(self.ca.as_deref());
        let url = match (address.contains("://"), ca) {
            (true, _) => address.to_owned(),
            (false, None) => format!("http://{address}"),
            (false, Some(_)) => format!("https://{address}"),
        };
        let endpoint = Endpoint::from_shared(url)
            .map_err(|error| CommandError::usage(format!("--address: {error}")))?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        let Some(file) = ca else {
            return Ok(endpoint);
        };
        let pem = fs::read(file)
            .map_err(|error| CommandError::usage(format!("--ca: {}: {error}", file.display())))?;
        endpoint
            .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
            .map_err(|error| CommandError::usage(format!("--ca: {error}")))
    }

    /// Returns the `authorization` value of the requests, if there is a token.
    pub fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, CommandError> {
        let token = self.token.as_deref().filter(|token| !token.is_empty());
        token.map(bearer).transpose()
    }
}

/// Adds the token, if there is one, to each request.
#[derive(Clone, Debug)]
pub(super) struct BearerToken(Option<MetadataValue<Ascii>>);

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, CommandError> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| CommandError::usage("--token: must consist of visible ASCII characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Parses a path that may be empty, which the parser of clap refuses.
pub(super) fn optional_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Returns the path unless it is empty.
pub(super) fn non_empty(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Returns the address on this machine of a server with the same environment.
pub(super) fn configured_address() -> String {
    address_of(&std::env::var("OTPD_LISTEN").unwrap_or_default())
}

fn address_of(listen: &str) -> String {
    if listen.is_empty() {
        return DEFAULT_LISTEN.to_string();
    }
    match listen.parse::<SocketAddr>() {
        // A server that listens on all addresses is reached at the loopback address.
        Ok(mut address) if address.ip().is_unspecified() => {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            address.to_string()
        }
        _ => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_listen_address_connects_to_loopback() {
        for (listen, address) in [
            ("", "127.0.0.1:50051"),
            ("0.0.0.0:50052", "127.0.0.1:50052"),
            ("[::]:50052", "[::1]:50052"),
            ("192.0.2.1:50052", "192.0.2.1:50052"),
            ("otpd:50052", "otpd:50052"),
        ] {
            assert_eq!(address_of(listen), address);
        }
    }

    #[test]
    fn empty_option_counts_as_absent() {
        let access = |token: &str, ca: &str| AccessArguments {
            token: Some(token.to_owned()),
            ca: Some(ca.into()),
        };
        let nothing = access("", "");
        assert!(nothing.authorization().unwrap().is_none());
        let endpoint = nothing.endpoint("127.0.0.1:50051").unwrap();
        assert_eq!(endpoint.uri().scheme_str(), Some("http"));
        assert!(access("known", "").authorization().unwrap().is_some());
        assert!(access("", "/nowhere").endpoint("127.0.0.1:50051").is_err());
    }
}
