//! Causes of connection errors, without any content of the request.

use std::{error::Error, io};

/// Returns a cause below `error` that can be shown. Libraries include URLs, replies and
/// other content in their own texts.
pub fn redacted_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = Some(error);
    let mut found = None;
    while let Some(error) = cause {
        found = shown(error).or(found);
        cause = match error.downcast_ref::<io::Error>() {
            // An I/O error does not return the error that it wraps as its source.
            Some(outer) => outer.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    found.unwrap_or_else(|| "the connection was lost".to_owned())
}

/// Beginning of the standard library's error for a name that does not resolve, which
/// continues with the resolver's reason. It is the most frequent mistake, and has no
/// error kind.
const NO_SUCH_NAME: &str = "failed to lookup address information";

fn shown(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(refused) = error.downcast_ref::<super::public_ip::PrivateAddress>() {
        return Some(refused.to_string());
    }
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        // The texts of other errors may quote the peer.
        return Some(match tls {
            rustls::Error::InvalidCertificate(reason) => {
                format!("the certificate was refused: {reason}")
            }
            rustls::Error::AlertReceived(alert) => format!("TLS alert {alert:?}"),
            _ => "TLS failed".to_owned(),
        });
    }
    let io = error.downcast_ref::<io::Error>()?;
    let text = io.to_string();
    if text.starts_with(NO_SUCH_NAME) {
        return Some(text);
    }
    // The text of a kind comes from the standard library.
    (io.kind() != io::ErrorKind::Other).then(|| io.kind().to_string())
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs as _;

    use super::*;

    #[test]
    fn dns_failure_is_distinguished_from_a_broken_connection() {
        // Longer than a name can be, so that no server is asked for it.
        let name = "a".repeat(300);
        let error = (name.as_str(), 443).to_socket_addrs().unwrap_err();
        let problem = redacted_cause(&error);
        assert!(problem.starts_with(NO_SUCH_NAME), "{problem}");
        assert!(!problem.contains(&name), "{problem}");
    }
}
