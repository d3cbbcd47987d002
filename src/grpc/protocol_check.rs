//! Check of the method, the media type and the HTTP version of a request, which name its protocol.

use tonic::{
    body::Body,
    codegen::http::{
        HeaderValue, Method, Request, Response, StatusCode, Version,
        header::{ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderName},
    },
};

use super::{connect, content_type, protocol::Protocol};
use crate::{listener::HttpApiRules, metrics::RpcResult};

const CLOSE: HeaderValue = HeaderValue::from_static("close");
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Request that no handler may see.
pub(super) struct ProtocolError {
    pub outcome: RpcResult,
    /// Cause for the log, without text from the request.
    pub cause: &'static str,
    pub response: Box<Response<Body>>,
}

impl ProtocolError {
    fn new(
        outcome: RpcResult,
        status: StatusCode,
        cause: &'static str,
        (name, value): (HeaderName, HeaderValue),
    ) -> Self {
        let mut text = cause.to_owned();
        if name == ACCEPT
            && let Ok(accepted) = value.to_str()
        {
            text = format!("{cause}; send one of {accepted}");
        }
        let mut response = Response::new(connect::body(format!("{text}\n").into()));
        *response.status_mut() = status;
        response.headers_mut().insert(name, value);
        response.headers_mut().insert(CONTENT_TYPE, PLAIN_TEXT);
        Self {
            outcome,
            cause,
            response: Box::new(response),
        }
    }
}

/// Returns the protocol of a request; gRPC alone, if there are no rules of the HTTP API.
///
/// # Errors
/// The outcome, its cause and the HTTP response, if its protocol is not served.
pub(super) fn protocol_of(
    request: &Request<Body>,
    http_api: Option<&HttpApiRules>,
) -> Result<Protocol, ProtocolError> {
    if request.method() != Method::POST {
        let allow = (ALLOW, HeaderValue::from_static("POST"));
        return Err(ProtocolError::new(
            RpcResult::Malformed,
            StatusCode::METHOD_NOT_ALLOWED,
            "the HTTP method is not POST",
            allow,
        ));
    }
    let is_http2 = request.version() >= Version::HTTP_2;
    let Some(protocol) = content_type::accepted(request.headers(), http_api.is_some()) else {
        let accept = match (http_api, is_http2) {
            (None, _) => content_type::ACCEPT,
            (Some(_), true) => content_type::ACCEPT_ALL,
            (Some(_), false) => content_type::ACCEPT_HTTP1,
        };
        return Err(ProtocolError::new(
            RpcResult::UnsupportedMediaType,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type is not accepted",
            (ACCEPT, accept),
        ));
    };
    if let (Protocol::Grpc(_), false) = (protocol, is_http2) {
        return Err(ProtocolError::new(
            RpcResult::Malformed,
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "gRPC needs HTTP/2",
            (ACCEPT, content_type::ACCEPT_HTTP1),
        ));
    }
    // RFC 9112, section 3.2.
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1
    {
        return Err(ProtocolError::new(
            RpcResult::Malformed,
            StatusCode::BAD_REQUEST,
            "the request has not exactly one Host header",
            (CONNECTION, CLOSE),
        ));
    }
    Ok(protocol)
}
