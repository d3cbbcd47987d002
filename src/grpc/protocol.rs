//! Protocols of a request: gRPC, gRPC-Web and Connect. They differ in the framing of messages
//! and in the form of an error.

use tonic::{
    Status,
    body::Body,
    codegen::http::{
        HeaderMap, HeaderValue, Request, Response, StatusCode,
        header::{
            ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, ORIGIN,
        },
    },
};

use super::{
    connect::{self, MessageFormat},
    deadline::GRPC_TIMEOUT,
};
use crate::{
    listener::{HttpApiRules, target_host},
    service::ServiceError,
};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
/// Longest `grpc-timeout`: eight digits and a unit.
const MAX_TIMEOUT_BYTES: usize = 9;

/// Protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// gRPC with this media type.
    Grpc(&'static str),
    /// gRPC-Web with this media type.
    GrpcWeb(&'static str),
    /// Connect, for calls with one request and one reply.
    Connect(MessageFormat),
}

impl Protocol {
    /// Refuses requests that a web page could make its visitor's browser send. A browser cannot
    /// send gRPC, which needs trailers.
    ///
    /// # Errors
    /// The cause.
    pub fn check_browser(
        self,
        request: &Request<Body>,
        rules: Option<&HttpApiRules>,
        authenticated: bool,
    ) -> Result<(), &'static str> {
        let (Self::GrpcWeb(_) | Self::Connect(_), Some(rules)) = (self, rules) else {
            return Ok(());
        };
        let headers = request.headers();
        let mut origins = headers.get_all(ORIGIN).iter();
        if origins.any(|origin| !rules.allows_origin(origin.as_bytes())) {
            return Err("the origin of the web page is not in http_api.allowed_origins");
        }
        if !authenticated {
            let header = headers.get(HOST).map(HeaderValue::to_str);
            let header = header.map(Result::unwrap_or_default);
            let host = target_host(request.uri(), header);
            // HTTP/1.0 clients may have no host; browsers always send one.
            if host.is_some_and(|host| !rules.allows_host(host)) {
                return Err(
                    "the Host header is not in http_api.allowed_hosts, which callers without authentication need",
                );
            }
        }
        Ok(())
    }

    /// Returns an error if the message of a request is compressed.
    pub fn check_encoding(self, headers: &HeaderMap) -> Result<(), Status> {
        let header = match self {
            Self::Grpc(_) | Self::GrpcWeb(_) => GRPC_ENCODING,
            Self::Connect(_) => CONTENT_ENCODING,
        };
        match headers.get(header) {
            Some(encoding) if encoding != IDENTITY => Err(Status::unimplemented(
                "compressed messages are not accepted; send them without compression",
            )),
            _ => Ok(()),
        }
    }

    /// Returns the response for a status of a request whose message is not read.
    pub fn respond(self, status: Status) -> Response<Body> {
        match self {
            Self::Grpc(_) => status.into_http(),
            Self::GrpcWeb(media_type) => {
                let mut response = status.into_http();
                label(&mut response, media_type);
                response
            }
            Self::Connect(_) => connect::error_response(status),
        }
    }

    /// Returns the response for a method that does not exist. Connect has HTTP status 404.
    pub fn respond_unknown(self, status: Status) -> Response<Body> {
        let mut response = self.respond(status);
        if let Self::Connect(_) = self {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    }

    /// Returns the response for a compressed message, with the header that says which compression is accepted: none.
    pub fn respond_uncompressed(self, status: Status) -> Response<Body> {
        let header = match self {
            Self::Grpc(_) | Self::GrpcWeb(_) => GRPC_ACCEPT_ENCODING,
            Self::Connect(_) => ACCEPT_ENCODING,
        };
        let mut response = self.respond(status);
        response.headers_mut().insert(header, IDENTITY);
        response
    }

    /// Copies the headers that services read; the timeout in the form of gRPC. A copy, because
    /// a value keeps the whole frame that it came in.
    ///
    /// # Errors
    /// The invalid header and its problem.
    pub fn kept_headers(self, headers: &HeaderMap) -> Result<HeaderMap, ServiceError> {
        let (media_type, timeout) = match self {
            Self::Grpc(media_type) | Self::GrpcWeb(media_type) => {
                let timeout = headers.get(GRPC_TIMEOUT);
                let timeout = timeout.filter(|timeout| timeout.len() <= MAX_TIMEOUT_BYTES);
                let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
                (media_type, timeout.and_then(copy))
            }
            Self::Connect(format) => {
                connect::check_version(headers)?;
                (format.media_type(), connect::grpc_timeout(headers)?)
            }
        };
        let mut kept = HeaderMap::with_capacity(2);
        let media_type = HeaderValue::from_static(media_type);
        if let Self::GrpcWeb(_) = self {
            // The form of the response, which is that of the request.
            kept.insert(ACCEPT, media_type.clone());
        }
        kept.insert(CONTENT_TYPE, media_type);
        if let Some(timeout) = timeout {
            kept.insert(GRPC_TIMEOUT, timeout);
        }
        Ok(kept)
    }

    /// Restores the media type of a response that a layer made in the form of gRPC.
    pub fn correct(self, response: &mut Response<Body>) {
        if let Self::GrpcWeb(media_type) = self {
            label(response, media_type);
        }
    }

    /// Returns the status of a response, if it has no message.
    pub fn status_of(response: &Response<Body>) -> Option<Status> {
        Status::from_header_map(response.headers())
            .or_else(|| response.extensions().get::<Status>().cloned())
    }

    /// Returns its name in the semantic conventions of OpenTelemetry.
    pub const fn system_name(self) -> &'static str {
        match self {
            Self::Grpc(_) | Self::GrpcWeb(_) => "grpc",
            Self::Connect(_) => "connectrpc",
        }
    }
}

fn label(response: &mut Response<Body>, media_type: &'static str) {
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
}
