//! Table `[http_api]`: the contract over plain HTTP, and the rules that keep web pages out.

use std::net::IpAddr;

use serde::Deserialize;
use tonic::codegen::http::{Uri, uri::Authority};

use otpd_base::{environment::Environment, tables::list};

/// Table `[http_api]` of the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpApiSettings {
    /// Serves the contract on `listen` also as JSON over HTTP/1.1 and HTTP/2 (the Connect
    /// protocol), and as gRPC-Web. Off: only gRPC.
    ///
    /// Default: `true` in development, `false` in production.
    pub enabled: Option<bool>,
    /// Origins of web pages whose requests are accepted, such as `https://app.example`. Requests
    /// with any other `Origin` header are refused. Responses have no CORS headers.
    #[serde(deserialize_with = "list")]
    pub allowed_origins: Vec<String>,
    /// Names under which a server without authentication is called, such as `otpd.internal`, so
    /// that a web page cannot reach it under a name of its own. Names without a dot,
    /// `localhost` and IP addresses are always accepted.
    #[serde(deserialize_with = "list")]
    pub allowed_hosts: Vec<String>,
}

impl HttpApiSettings {
    /// Returns the rules for requests; none if the API is off.
    pub fn rules(&self, environment: Environment) -> Option<HttpApiRules> {
        let by_default = environment == Environment::Development;
        self.enabled.unwrap_or(by_default).then(|| HttpApiRules {
            origins: self.allowed_origins.clone(),
            hosts: self.allowed_hosts.clone(),
        })
    }

    /// Returns the first invalid key and its problem.
    pub fn validate(&self) -> Option<(&'static str, String)> {
        let origins = self.allowed_origins.iter().filter(|text| !is_origin(text));
        let origins = origins.map(|text| {
            let problem = format!(
                "{text:?} is no origin of web pages; write a scheme and a host in lower case, such as https://app.example"
            );
            ("allowed_origins", problem)
        });
        let hosts = self.allowed_hosts.iter().filter(|text| !is_host(text));
        let hosts = hosts.map(|text| {
            let problem = format!(
                "{text:?} is no host name; write a name in lower case without a port, such as otpd.internal"
            );
            ("allowed_hosts", problem)
        });
        origins.chain(hosts).next()
    }
}

/// Returns whether a text is an origin as browsers write it (RFC 6454, section 6.2).
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    ["http", "https"].contains(&scheme)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
        && !authority.contains(['@', '*', '/', '?', '#'])
        && authority.parse::<Authority>().is_ok()
}

fn is_host(text: &str) -> bool {
    let is_part = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    !text.is_empty() && text.bytes().all(is_part)
}

/// Rules for requests to the HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpApiRules {
    origins: Vec<String>,
    hosts: Vec<String>,
}

impl HttpApiRules {
    /// Returns whether pages of this `Origin` may send requests.
    pub fn allows_origin(&self, origin: &[u8]) -> bool {
        self.origins
            .iter()
            .any(|allowed| allowed.as_bytes() == origin)
    }

    /// Returns whether a server without authentication may be called as `host`. A web page can
    /// point a name of its own at any address (DNS rebinding), but no address and no name
    /// without a dot.
    pub fn allows_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host().to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.trim_end_matches('.');
        address.parse::<IpAddr>().is_ok()
            || !name.contains('.')
            || name.ends_with(".localhost")
            || self.hosts.iter().any(|allowed| allowed == name)
    }
}

/// Returns the host that a request names in its target; otherwise that of its `Host` header.
pub fn target_host<'a>(uri: &'a Uri, header: Option<&'a str>) -> Option<&'a str> {
    uri.authority().map(Authority::as_str).or(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(origins: &[&str], hosts: &[&str]) -> HttpApiSettings {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        HttpApiSettings {
            enabled: None,
            allowed_origins: owned(origins),
            allowed_hosts: owned(hosts),
        }
    }

    #[test]
    fn api_is_off_in_production_unless_it_is_enabled() {
        let mut settings = HttpApiSettings::default();
        assert_eq!(settings.rules(Environment::Production), None);
        assert!(settings.rules(Environment::Development).is_some());
        settings.enabled = Some(true);
        assert!(settings.rules(Environment::Production).is_some());
        settings.enabled = Some(false);
        assert_eq!(settings.rules(Environment::Development), None);
    }

    #[test]
    fn only_origins_as_browsers_write_them_are_valid() {
        for valid in [
            "https://app.example",
            "http://localhost:3000",
            "http://[::1]:80",
        ] {
            assert_eq!(rules(&[valid], &[]).validate(), None, "{valid}");
        }
        for invalid in [
            "*",
            "null",
            "app.example",
            "https://app.example/",
            "https://App.example",
            "https://*.example",
            "ftp://app.example",
            "https://",
        ] {
            let problem = rules(&[invalid], &[]).validate().map(|(key, _)| key);
            assert_eq!(problem, Some("allowed_origins"), "{invalid}");
        }
        for invalid in ["", "otpd.internal:50051", "*.internal", "Otpd"] {
            let problem = rules(&[], &[invalid]).validate().map(|(key, _)| key);
            assert_eq!(problem, Some("allowed_hosts"), "{invalid}");
        }
    }

    #[test]
    fn foreign_names_are_refused() {
        let settings = rules(&[], &["otpd.internal"]);
        let rules = settings.rules(Environment::Development).unwrap();
        for host in [
            "127.0.0.1:50051",
            "[::1]:50051",
            "localhost",
            "LOCALHOST:1",
            "otpd:50051",
            "otpd.internal:50051",
            "otpd.internal.",
            "a.localhost",
        ] {
            assert!(rules.allows_host(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:50051",
            "127.0.0.1.nip.io",
            "localhost.evil.example",
            "",
            "a b",
            "internal.evil",
        ] {
            assert!(!rules.allows_host(host), "{host}");
        }
    }
}
