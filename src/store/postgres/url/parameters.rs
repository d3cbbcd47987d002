//! Table of the connection parameters and their handling.

/// Handling of a connection parameter.
#[derive(Clone, Copy)]
pub(super) enum ParameterHandling {
    /// Passed on to sqlx.
    Passed,
    /// Part of [`TlsParameters`](super::super::connect_tls::TlsParameters), by its name in libpq.
    Tls(&'static str),
    /// Name of the session.
    SessionName,
    /// Name of the session if nothing else gives one.
    FallbackName,
    /// Without effect for these values, which otpd complies with anyway.
    OneOf(&'static [&'static str]),
    /// Without effect: a number of seconds or of packets, which other limits replace.
    Number,
    /// Refused for this reason.
    Refused(&'static str),
}

use ParameterHandling::{FallbackName, Number, OneOf, Passed, Refused, SessionName, Tls as TlsOf};

/// Parameters of libpq and, below them, those of sqlx and of Java's driver that hosting providers
/// use. docs/database.md describes the same table.
pub(super) const PARAMETERS: [(&str, ParameterHandling); 55] = [
    ("host", Passed),
    ("hostaddr", Passed),
    ("port", Passed),
    ("dbname", Passed),
    ("user", Passed),
    ("password", Passed),
    ("options", Passed),
    ("application_name", SessionName),
    ("fallback_application_name", FallbackName),
    ("sslmode", TlsOf("sslmode")),
    ("sslrootcert", TlsOf("sslrootcert")),
    ("sslcert", TlsOf("sslcert")),
    ("sslkey", TlsOf("sslkey")),
    ("channel_binding", TlsOf("channel_binding")),
    ("sslnegotiation", OneOf(&["postgres"])),
    ("sslcompression", OneOf(&["0", "1"])),
    ("sslsni", OneOf(&["1"])),
    ("sslcertmode", OneOf(&["allow"])),
    (
        "ssl_min_protocol_version",
        OneOf(&["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ),
    ("ssl_max_protocol_version", OneOf(&["TLSv1.3"])),
    ("connect_timeout", Number),
    ("keepalives", Number),
    ("keepalives_idle", Number),
    ("keepalives_interval", Number),
    ("keepalives_count", Number),
    ("tcp_user_timeout", Number),
    ("gssencmode", OneOf(&["disable", "prefer"])),
    ("gssdelegation", OneOf(&["0"])),
    (
        "target_session_attrs",
        OneOf(&["any", "read-write", "primary"]),
    ),
    ("load_balance_hosts", OneOf(&["disable", "random"])),
    (
        "client_encoding",
        OneOf(&["UTF8", "utf8", "UTF-8", "utf-8", "auto"]),
    ),
    ("replication", OneOf(&["false", "off", "no", "0"])),
    (
        "sslcrl",
        Refused("otpd reads no revocation list for the database"),
    ),
    (
        "sslcrldir",
        Refused("otpd reads no revocation list for the database"),
    ),
    (
        "sslpassword",
        Refused("otpd reads no encrypted key; give a key without a password"),
    ),
    ("sslkeylogfile", Refused("otpd writes no keys to files")),
    (
        "requirepeer",
        Refused("otpd does not check the owner of a socket"),
    ),
    (
        "require_auth",
        Refused(
            "otpd does not select an authentication method; sslmode=verify-full authenticates the server",
        ),
    ),
    ("requiressl", Refused("give sslmode=require")),
    (
        "passfile",
        Refused("set the environment variable PGPASSFILE"),
    ),
    (
        "service",
        Refused("otpd reads no service file; write its parameters into the URL"),
    ),
    (
        "servicefile",
        Refused("otpd reads no service file; write its parameters into the URL"),
    ),
    ("krbsrvname", Refused("otpd does not speak GSSAPI")),
    ("gsslib", Refused("otpd does not speak GSSAPI")),
    ("pgbouncer", OneOf(&["true", "false"])),
    (
        "connection_limit",
        Refused("give store.max_connections in the configuration"),
    ),
    (
        "pool_timeout",
        Refused("give store.timeout in the configuration"),
    ),
    ("schema", Refused("give options[search_path]=…")),
    ("ssl", TlsOf("ssl")),
    ("ssl-mode", TlsOf("sslmode")),
    ("ssl-root-cert", TlsOf("sslrootcert")),
    ("ssl-ca", TlsOf("sslrootcert")),
    ("ssl-cert", TlsOf("sslcert")),
    ("ssl-key", TlsOf("sslkey")),
    ("statement-cache-capacity", Passed),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_handled_exactly_once() {
        for (index, (name, _)) in PARAMETERS.iter().enumerate() {
            let first = PARAMETERS.iter().position(|(other, _)| other == name);
            assert_eq!(first, Some(index), "{name}");
        }
    }

    #[test]
    fn each_parameter_is_documented() {
        let page = include_str!("../../../../docs/database.md");
        for (name, _) in PARAMETERS {
            assert!(page.contains(&format!("`{name}")), "{name}");
        }
    }
}
