//! Authentication of a request by its headers and the certificate of its connection.

use std::sync::Arc;

use tonic::codegen::http::HeaderMap;

use crate::{
    auth::{AuthError, CallerRegistry, PresentedCredentials},
    listener::PeerIdentity,
};
use otpd_rules::Caller;

const SCHEME: &str = "bearer ";

/// Identifies the caller of a request by its headers and its connection.
pub(super) fn identify(
    callers: &CallerRegistry,
    headers: &HeaderMap,
    peer: Option<&PeerIdentity>,
) -> Result<Arc<Caller>, AuthError> {
    let authorization = headers.get("authorization");
    let token = match authorization.map(|value| value.to_str()) {
        None => None,
        Some(value) => Some(value.ok().and_then(bearer).ok_or(AuthError::Token)?),
    };
    let certificate_names = peer
        .map(|peer| &*peer.certificate_names)
        .unwrap_or_default();
    callers
        .identify(&PresentedCredentials {
            token,
            certificate_names,
        })
        .cloned()
}

/// Returns the token of `Bearer TOKEN`; the scheme is case-insensitive (RFC 9110, 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_standard_bearer_tokens_are_parsed() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        for other in ["", "abc", "Basic abc", "Bearer", "Bearerabc"] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }
}
