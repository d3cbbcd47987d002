//! Content types that requests may have.

use tonic::codegen::http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

/// Accepted media types. Any other is answered with HTTP status 415.
const ACCEPTED: [&str; 2] = ["application/grpc", "application/grpc+proto"];

/// The same as the value of an `accept` header.
pub(super) const ACCEPT: HeaderValue =
    HeaderValue::from_static("application/grpc, application/grpc+proto");

/// Returns the accepted media type of a request, if it has exactly one content type.
pub(super) fn accepted(headers: &HeaderMap) -> Option<&'static str> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let media_type = value.to_str().ok()?.split(';').next()?.trim();
    ACCEPTED
        .into_iter()
        .find(|accepted| accepted.eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_TYPE, value.parse().unwrap());
        }
        accepted(&headers)
    }

    #[test]
    fn accepted_media_types_may_have_parameters_and_any_case() {
        for (value, accepted) in [
            ("application/grpc", "application/grpc"),
            ("application/grpc+proto", "application/grpc+proto"),
            ("Application/GRPC", "application/grpc"),
            ("application/grpc; charset=utf-8", "application/grpc"),
        ] {
            assert_eq!(of(&[value]), Some(accepted), "{value}");
        }
        assert_eq!(ACCEPT, ACCEPTED.join(", "));
    }

    #[test]
    fn other_content_types_are_rejected() {
        for value in [
            "",
            "text/plain",
            "application/json",
            "application/proto",
            "application/grpc+json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpcx",
            "application/x-www-form-urlencoded",
            "application/grpc, text/plain",
        ] {
            assert_eq!(of(&[value]), None, "{value}");
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["application/grpc", "text/plain"]), None);
        assert_eq!(of(&["application/grpc", "application/grpc"]), None);
    }
}
