//! Parameters of a PostgreSQL URL. Each works as in libpq, or the start is refused.

use std::str::FromStr as _;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{
    super::StoreError,
    connect_tls::{DatabaseTls, TlsParameters},
};

/// Remedy for a URL that a character of a user name or a password cuts in two.
const ENCODING: &str = "write \"#\" as %23, \"/\" as %2F, \"@\" as %40 and \"?\" as %3F in a user, a password, a path or a value";

/// Handling of a connection parameter.
#[derive(Clone, Copy)]
enum ParameterHandling {
    /// Passed on to sqlx.
    Passed,
    /// Part of [`TlsParameters`], by its name in libpq.
    Tls(&'static str),
    /// Name of the session.
    SessionName,
    /// Name of the session if nothing else gives one.
    FallbackName,
    /// Without effect for these values, which ask for what otpd does anyway.
    OneOf(&'static [&'static str]),
    /// Without effect: a number of seconds or of packets that other bounds make up for.
    Number,
    /// Refused for this reason.
    Refused(&'static str),
}

use ParameterHandling::{FallbackName, Number, OneOf, Passed, Refused, SessionName, Tls as TlsOf};

/// The parameters of libpq and, below them, those of sqlx and of Java's driver that
/// hosters hand out. docs/database.md has the same table in words.
const PARAMETERS: [(&str, ParameterHandling); 55] = [
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
        Refused("otpd does not look at the owner of a socket"),
    ),
    (
        "require_auth",
        Refused(
            "otpd does not choose among methods of authentication; sslmode=verify-full proves the server",
        ),
    ),
    ("requiressl", Refused("give sslmode=require")),
    (
        "passfile",
        Refused("name the file by the variable PGPASSFILE"),
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
    (
        "pgbouncer",
        Refused("otpd needs a pooler that pools by session, and nothing else for it"),
    ),
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

/// Options of each server that a URL names, and the TLS that they share.
#[derive(Debug)]
pub(super) struct ParsedUrl {
    pub servers: Vec<PgConnectOptions>,
    pub tls: DatabaseTls,
}

/// Reads a URL as libpq does: `postgres://user@a:5432,b:5432/otpd` is two servers that
/// have all else in common. `variable` reads a variable of the environment, such as
/// `PGSSLMODE`.
///
/// # Errors
/// The parameter that is at fault, by its name. No value is shown.
pub(super) fn parse(
    url: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<ParsedUrl, StoreError> {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    if rest.contains('#') {
        return refuse(format!("holds a \"#\"; {ENCODING}"));
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let (user, hosts) = authority
        .rfind('@')
        .map_or(("", authority), |at| authority.split_at(at + 1));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if path.contains('@') {
        return refuse(format!("holds an \"@\" after its first \"/\"; {ENCODING}"));
    }
    if hosts.contains(',') && hosts.split(',').any(str::is_empty) {
        return refuse("names no server between two commas");
    }
    let query = UrlParameters::parse(query)?;
    let tls = DatabaseTls::resolve(&query.tls, &variable)?;
    if query.has_address && (hosts.contains(',') || (tls.checks_name() && !hosts.is_empty())) {
        return refuse(
            "hostaddr: stands for one server, whose name is not checked; name the servers in the URL instead",
        );
    }
    let name = query
        .session_name
        .or_else(|| variable("PGAPPNAME"))
        .or(query.fallback_name)
        .unwrap_or_else(|| "otpd".to_owned());
    let servers = hosts
        .split(',')
        .map(|host| {
            let url = format!("{scheme}://{user}{host}{path}{}", query.passed);
            let options = PgConnectOptions::from_str(&url)
                .map_err(|error| StoreError::Url(format!("cannot be read: {error}; {ENCODING}")))?
                .application_name(&name);
            // As in libpq, whose sockets are never encrypted.
            Ok(if options.get_socket().is_some() {
                options.ssl_mode(PgSslMode::Disable)
            } else {
                tls.apply(options)
            })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(ParsedUrl { servers, tls })
}

/// Parameters of a URL, sorted by their handling.
#[derive(Default)]
struct UrlParameters {
    /// Those for sqlx, as they stand in a URL after its path.
    passed: String,
    has_address: bool,
    session_name: Option<String>,
    fallback_name: Option<String>,
    tls: TlsParameters,
}

impl UrlParameters {
    fn parse(text: &str) -> Result<Self, StoreError> {
        let mut query = Self::default();
        for parameter in text.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                return refuse(format!("has a parameter that is not UTF-8; {ENCODING}"));
            };
            query.add(&name, value, text)?;
        }
        Ok(query)
    }

    fn add(&mut self, name: &str, value: String, text: &str) -> Result<(), StoreError> {
        if name.starts_with("options[") && name.ends_with(']') {
            self.pass(name, &value);
            return Ok(());
        }
        let Some((_, handling)) = PARAMETERS.iter().find(|(known, _)| *known == name) else {
            return Err(unknown(name, text));
        };
        match *handling {
            Passed => {
                if value.contains(',') && ["host", "hostaddr", "port"].contains(&name) {
                    return refuse(format!(
                        "{name}: give several servers as postgres://a:5432,b:5432/…"
                    ));
                }
                self.has_address |= name == "hostaddr";
                self.pass(name, &value);
            }
            TlsOf(parameter) => self.tls.set(parameter, value),
            SessionName => self.session_name = Some(value).filter(|name| !name.is_empty()),
            FallbackName => self.fallback_name = Some(value).filter(|name| !name.is_empty()),
            OneOf(accepted) if value.is_empty() || accepted.contains(&value.as_str()) => {}
            OneOf(accepted) => {
                return refuse(format!(
                    "{name}: otpd does what {} asks for, and nothing else; give that, or leave it out",
                    accepted.join(" or ")
                ));
            }
            Number if value.is_empty() || value.trim().parse::<i32>().is_ok() => {}
            Number => return refuse(format!("{name}: not a whole number")),
            Refused(reason) => return refuse(format!("{name}: not supported; {reason}")),
        }
        Ok(())
    }

    /// Keeps a parameter for sqlx, which reads "+" as a blank where libpq does not.
    fn pass(&mut self, name: &str, value: &str) {
        self.passed
            .push(if self.passed.is_empty() { '?' } else { '&' });
        for (part, end) in [(name, "="), (value, "")] {
            self.passed
                .extend(utf8_percent_encode(part, NON_ALPHANUMERIC));
            self.passed.push_str(end);
        }
    }
}

/// Error for a parameter that is not known. Its name is shown unless it may be a part of
/// a password.
fn unknown(name: &str, query: &str) -> StoreError {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
    StoreError::Url(if query.contains('@') {
        format!("has a \"?\" before its \"@\"; {ENCODING}")
    } else if name.len() <= 40 && name.bytes().all(is_plain) {
        format!("has a parameter that is not known, {name}; correct it or leave it out")
    } else {
        format!("has a parameter that is not known; correct it or leave it out; {ENCODING}")
    })
}

fn decoded(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

fn refuse<T>(problem: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::Url(problem.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> ParsedUrl {
        parse(url, |_| None).expect("it names servers")
    }

    fn each(url: &str) -> Vec<String> {
        let servers = parsed(url).servers;
        let name = |options: &PgConnectOptions| match options.get_socket() {
            Some(socket) => format!("{}:{}", socket.display(), options.get_port()),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        servers.iter().map(name).collect()
    }

    fn problem(url: &str) -> String {
        let error = parse(url, |_| None).expect_err("it is refused");
        error.to_string()
    }

    #[test]
    fn host_list_is_split_into_servers_with_shared_parameters() {
        let url = "postgres://otpd:a,b%40@[::1]:1,b.example,c:3/otpd?sslmode=require";
        assert_eq!(each(url), ["[::1]:1", "b.example:5432", "c:3"]);
        for options in parsed(url).servers {
            assert_eq!(options.get_username(), "otpd");
            assert_eq!(options.get_database(), Some("otpd"));
            assert!(matches!(options.get_ssl_mode(), PgSslMode::Require));
        }
        for (alone, server) in [
            ("postgres://a/otpd", "a:5432"),
            (
                "postgresql://otpd@%2Frun%2Fpostgresql/otpd?options[search_path]=otp",
                "/run/postgresql:5432",
            ),
            (
                "postgres:///otpd?host=/run/postgresql&port=5433",
                "/run/postgresql:5433",
            ),
            ("postgres://a", "a:5432"),
        ] {
            assert_eq!(each(alone), [server], "{alone}");
        }
    }

    #[test]
    fn parameter_values_match_libpq() {
        let url = "postgres://a?user=ann%40x&dbname=o%2Fp&application_name=a+b\
                   &options=-c%20search_path%3Da+b&options[work_mem]=1MB";
        let [options] = &parsed(url).servers[..] else {
            panic!("it is one server");
        };
        assert_eq!(options.get_username(), "ann@x");
        assert_eq!(options.get_database(), Some("o/p"));
        assert_eq!(options.get_application_name(), Some("a+b"));
        let sent = options.get_options().unwrap();
        assert!(sent.contains("-c search_path=a+b"), "{sent}");
        assert!(sent.contains("-c work_mem=1MB"), "{sent}");
    }

    #[test]
    fn session_has_the_configured_application_name() {
        let name = |query: &str, variable: Option<&str>| {
            let variable = |name: &str| variable.filter(|_| name == "PGAPPNAME").map(str::to_owned);
            let parsed = parse(&format!("postgres://a?{query}"), variable).unwrap();
            let name = parsed.servers[0].get_application_name();
            name.map(str::to_owned)
        };
        let eu = "application_name=eu&fallback_application_name=x";
        assert_eq!(name(eu, Some("env")).as_deref(), Some("eu"));
        let fallback = "fallback_application_name=x";
        assert_eq!(name(fallback, Some("env")).as_deref(), Some("env"));
        assert_eq!(name(fallback, None).as_deref(), Some("x"));
        assert_eq!(name("", None).as_deref(), Some("otpd"));
    }

    #[test]
    fn sslmode_comes_from_environment_and_is_ignored_for_sockets() {
        let variable = |name: &str| (name == "PGSSLMODE").then(|| "require".to_owned());
        let mode = |url: &str| parse(url, variable).unwrap().servers[0].get_ssl_mode();
        assert!(matches!(mode("postgres://a"), PgSslMode::Require));
        assert!(matches!(
            mode("postgres://a?sslmode=disable"),
            PgSslMode::Disable
        ));
        assert!(matches!(mode("postgres:///?host=/run"), PgSslMode::Disable));
        let prefer = parsed("postgres://a").servers[0].get_ssl_mode();
        assert!(matches!(prefer, PgSslMode::Prefer));
    }

    #[test]
    fn unsupported_parameters_are_rejected() {
        for (url, told) in [
            ("postgres://a,,b/otpd", "between two commas"),
            ("postgres://otpd@,b/otpd", "between two commas"),
            (
                "postgres://a/otpd?target_session_attrs=standby",
                "target_session_attrs: ",
            ),
            ("postgres://a/otpd?host=b,c", "host: give several servers"),
            ("postgres:///otpd?host=b%2cc", "host: give several servers"),
            ("postgres://a/otpd?sslmod=require", "not known, sslmod;"),
            ("postgres://a,b/otpd?hostaddr=127.0.0.1", "hostaddr: "),
            ("postgres://a/otpd?user=%FF", "not UTF-8"),
            ("postgres://a:port/otpd", "cannot be read: "),
            ("postgres://otpd:a#b@c/otpd", "%23"),
            ("postgres://otpd:a/b@c/otpd", "%2F"),
        ] {
            let problem = problem(url);
            assert!(problem.contains(told), "{url}: {problem}");
        }
    }

    #[test]
    fn possible_password_fragments_are_not_shown() {
        for url in [
            "postgres://otpd:p?secret@a/otpd",
            "postgres://otpd:p?b&secret=1@a/otpd",
            "postgres://a/otpd?secret%20word",
        ] {
            let problem = problem(url);
            assert!(!problem.contains("secret"), "{url}: {problem}");
        }
    }

    #[test]
    fn each_parameter_is_handled_exactly_once() {
        for (index, (name, _)) in PARAMETERS.iter().enumerate() {
            let first = PARAMETERS.iter().position(|(other, _)| other == name);
            assert_eq!(first, Some(index), "{name}");
        }
    }

    /// docs/database.md lists them for operators.
    #[test]
    fn each_parameter_is_documented() {
        let page = include_str!("../../../docs/database.md");
        for (name, _) in PARAMETERS {
            assert!(page.contains(&format!("`{name}")), "{name}");
        }
    }
}
