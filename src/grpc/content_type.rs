//! Content types that requests may have.

use tonic::codegen::http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

use super::{connect::MessageFormat, protocol::Protocol};

/// Accepted media types. Any other is answered with HTTP status 415.
const GRPC: [Protocol; 2] = [
    Protocol::Grpc("application/grpc"),
    Protocol::Grpc("application/grpc+proto"),
];

/// Media types that are accepted as well if the HTTP API is on.
const HTTP_API: [Protocol; 6] = [
    Protocol::Connect(MessageFormat::Json),
    Protocol::Connect(MessageFormat::Protobuf),
    Protocol::GrpcWeb("application/grpc-web"),
    Protocol::GrpcWeb("application/grpc-web+proto"),
    Protocol::GrpcWeb("application/grpc-web-text"),
    Protocol::GrpcWeb("application/grpc-web-text+proto"),
];

/// Media types of gRPC as the value of an `accept` header.
pub(super) const ACCEPT: HeaderValue =
    HeaderValue::from_static("application/grpc, application/grpc+proto");

/// Media types of gRPC and of the HTTP API.
pub(super) const ACCEPT_ALL: HeaderValue = HeaderValue::from_static(
    "application/json, application/proto, application/grpc-web, application/grpc-web+proto, application/grpc-web-text, application/grpc-web-text+proto, application/grpc, application/grpc+proto",
);

/// Media types of requests over HTTP/1.1.
pub(super) const ACCEPT_HTTP1: HeaderValue = HeaderValue::from_static(
    "application/json, application/proto, application/grpc-web, application/grpc-web+proto, application/grpc-web-text, application/grpc-web-text+proto",
);

const fn media_type(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc(media_type) | Protocol::GrpcWeb(media_type) => media_type,
        Protocol::Connect(format) => format.media_type(),
    }
}

/// Returns the protocol of a request by its media type, if it has exactly one content type.
pub(super) fn accepted(headers: &HeaderMap, http_api: bool) -> Option<Protocol> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let given = value.to_str().ok()?.split(';').next()?.trim();
    let http_api = HTTP_API.into_iter().filter(|_| http_api);
    GRPC.into_iter()
        .chain(http_api)
        .find(|protocol| media_type(*protocol).eq_ignore_ascii_case(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str], http_api: bool) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_TYPE, value.parse().unwrap());
        }
        accepted(&headers, http_api).map(media_type)
    }

    #[test]
    fn accepted_media_types_may_have_parameters_and_any_case() {
        for (value, accepted) in [
            ("application/grpc", "application/grpc"),
            ("application/grpc+proto", "application/grpc+proto"),
            ("Application/GRPC", "application/grpc"),
            ("application/grpc; charset=utf-8", "application/grpc"),
        ] {
            assert_eq!(of(&[value], false), Some(accepted), "{value}");
        }
        let json = of(&["application/json;charset=UTF-8"], true);
        assert_eq!(json, Some("application/json"));
        let names = |protocols: &[Protocol]| {
            let names: Vec<_> = protocols.iter().copied().map(media_type).collect();
            names.join(", ")
        };
        assert_eq!(ACCEPT, names(&GRPC));
        assert_eq!(ACCEPT_HTTP1, names(&HTTP_API));
        assert_eq!(ACCEPT_ALL, names(&[&HTTP_API[..], &GRPC].concat()));
    }

    #[test]
    fn media_types_of_the_http_api_are_rejected_without_it() {
        for protocol in HTTP_API {
            let media_type = media_type(protocol);
            assert_eq!(of(&[media_type], false), None, "{media_type}");
            assert_eq!(of(&[media_type], true), Some(media_type));
        }
    }

    #[test]
    fn other_content_types_are_rejected() {
        for value in [
            "",
            "text/plain",
            "text/json",
            "application/connect+json",
            "application/connect+proto",
            "application/grpc+json",
            "application/grpcx",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/grpc, text/plain",
        ] {
            assert_eq!(of(&[value], true), None, "{value}");
        }
        assert_eq!(of(&[], true), None);
        assert_eq!(of(&["application/json", "text/plain"], true), None);
        assert_eq!(of(&["application/grpc", "application/grpc"], true), None);
    }
}
