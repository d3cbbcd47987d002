//! URL of a PostgreSQL database. Each parameter works as in libpq, or the start is refused.

mod parameters;

use std::str::FromStr as _;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{
    super::StoreError,
    connect_tls::{DatabaseTls, TlsParameters},
};
use parameters::{PARAMETERS, ParameterHandling};

/// Remedy for a URL that is cut in two by a character of a user name or a password.
const ENCODING: &str = "write \"#\" as %23, \"/\" as %2F, \"@\" as %40 and \"?\" as %3F in a user, a password, a path or a value";

/// Options of each host that a URL names, and their common TLS.
#[derive(Debug)]
pub(super) struct ParsedUrl {
    pub hosts: Vec<PgConnectOptions>,
    pub tls: DatabaseTls,
}

/// Parses a URL as libpq does: `postgres://user@a:5432,b:5432/otpd` names two hosts that share
/// everything else. `variable` reads an environment variable, such as `PGSSLMODE`.
///
/// # Errors
/// [`StoreError::Url`] with the name of the parameter at fault. No value is shown.
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
        return refuse("has no server between two commas");
    }
    let query = UrlParameters::parse(query)?;
    let tls = DatabaseTls::resolve(&query.tls, &variable)?;
    if query.has_address && (hosts.contains(',') || (tls.checks_name() && !hosts.is_empty())) {
        return refuse(
            "hostaddr: gives one address, for which no name is checked; name the servers in the URL instead",
        );
    }
    let name = query
        .session_name
        .or_else(|| variable("PGAPPNAME"))
        .or(query.fallback_name)
        .unwrap_or_else(|| "otpd".to_owned());
    let hosts = hosts
        .split(',')
        .map(|host| {
            let url = format!("{scheme}://{user}{host}{path}{}", query.passed);
            let options = PgConnectOptions::from_str(&url)
                .map_err(|error| StoreError::Url(format!("cannot be read: {error}; {ENCODING}")))?
                .application_name(&name);
            // libpq never encrypts a socket either.
            Ok(if options.get_socket().is_some() {
                options.ssl_mode(PgSslMode::Disable)
            } else {
                tls.apply(options)
            })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(ParsedUrl { hosts, tls })
}

/// Parameters of a URL by their handling.
#[derive(Default)]
struct UrlParameters {
    /// Parameters for sqlx, in the form of a URL's query.
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
            ParameterHandling::Passed => {
                if value.contains(',') && ["host", "hostaddr", "port"].contains(&name) {
                    return refuse(format!(
                        "{name}: give several servers as postgres://a:5432,b:5432/…"
                    ));
                }
                self.has_address |= name == "hostaddr";
                self.pass(name, &value);
            }
            ParameterHandling::Tls(parameter) => self.tls.set(parameter, value),
            ParameterHandling::SessionName => {
                self.session_name = Some(value).filter(|name| !name.is_empty());
            }
            ParameterHandling::FallbackName => {
                self.fallback_name = Some(value).filter(|name| !name.is_empty());
            }
            ParameterHandling::OneOf(accepted)
                if value.is_empty() || accepted.contains(&value.as_str()) => {}
            ParameterHandling::OneOf(accepted) => {
                return refuse(format!(
                    "{name}: otpd supports only {}; give that, or leave it out",
                    accepted.join(" or ")
                ));
            }
            ParameterHandling::Number
                if value.is_empty() || value.trim().parse::<i32>().is_ok() => {}
            ParameterHandling::Number => return refuse(format!("{name}: not a whole number")),
            ParameterHandling::Refused(reason) => {
                return refuse(format!("{name}: not supported; {reason}"));
            }
        }
        Ok(())
    }

    /// Keeps a parameter for sqlx, encoded because sqlx reads "+" as a blank and libpq does not.
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

/// Returns the error of an unknown parameter. Its name is shown unless it may be a part of a
/// password.
fn unknown(name: &str, query: &str) -> StoreError {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
    StoreError::Url(if query.contains('@') {
        format!("has a \"?\" before its \"@\"; {ENCODING}")
    } else if name.len() <= 40 && name.bytes().all(is_plain) {
        format!("has an unknown parameter, {name}; correct it or leave it out")
    } else {
        format!("has an unknown parameter; correct it or leave it out; {ENCODING}")
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
        parse(url, |_| None).expect("the URL is valid")
    }

    fn addresses(url: &str) -> Vec<String> {
        let hosts = parsed(url).hosts;
        let name = |options: &PgConnectOptions| match options.get_socket() {
            Some(socket) => format!("{}:{}", socket.display(), options.get_port()),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        hosts.iter().map(name).collect()
    }

    fn problem(url: &str) -> String {
        let error = parse(url, |_| None).expect_err("the URL is refused");
        error.to_string()
    }

    #[test]
    fn host_list_is_split_into_servers_with_shared_parameters() {
        let url = "postgres://otpd:a,b%40@[::1]:1,b.example,c:3/otpd?sslmode=require";
        assert_eq!(addresses(url), ["[::1]:1", "b.example:5432", "c:3"]);
        for options in parsed(url).hosts {
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
            assert_eq!(addresses(alone), [server], "{alone}");
        }
    }

    #[test]
    fn parameter_values_match_libpq() {
        let url = "postgres://a?user=ann%40x&dbname=o%2Fp&application_name=a+b\
                   &options=-c%20search_path%3Da+b&options[work_mem]=1MB";
        let [options] = &parsed(url).hosts[..] else {
            panic!("the URL names one host");
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
            let name = parsed.hosts[0].get_application_name();
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
        let mode = |url: &str| parse(url, variable).unwrap().hosts[0].get_ssl_mode();
        assert!(matches!(mode("postgres://a"), PgSslMode::Require));
        assert!(matches!(
            mode("postgres://a?sslmode=disable"),
            PgSslMode::Disable
        ));
        assert!(matches!(mode("postgres:///?host=/run"), PgSslMode::Disable));
        let prefer = parsed("postgres://a").hosts[0].get_ssl_mode();
        assert!(matches!(prefer, PgSslMode::Prefer));
    }

    #[test]
    fn unsupported_parameters_are_rejected() {
        for (url, expected) in [
            ("postgres://a,,b/otpd", "between two commas"),
            ("postgres://otpd@,b/otpd", "between two commas"),
            (
                "postgres://a/otpd?target_session_attrs=standby",
                "target_session_attrs: ",
            ),
            ("postgres://a/otpd?host=b,c", "host: give several servers"),
            ("postgres:///otpd?host=b%2cc", "host: give several servers"),
            (
                "postgres://a/otpd?sslmod=require",
                "unknown parameter, sslmod;",
            ),
            ("postgres://a,b/otpd?hostaddr=127.0.0.1", "hostaddr: "),
            ("postgres://a/otpd?user=%FF", "not UTF-8"),
            ("postgres://a:port/otpd", "cannot be read: "),
            ("postgres://otpd:a#b@c/otpd", "%23"),
            ("postgres://otpd:a/b@c/otpd", "%2F"),
        ] {
            let problem = problem(url);
            assert!(problem.contains(expected), "{url}: {problem}");
        }
    }

    /// As the providers show them, with the parameters that their users add.
    #[test]
    fn urls_of_hosting_providers_are_accepted_or_refused_with_the_remedy() {
        const NEON: &str = "postgresql://ann:p@ep-a-pooler.eu-central-1.aws.neon.tech/neondb";
        const RDS: &str = "postgres://ann:p@db.c1.eu-central-1.rds.amazonaws.com:5432/otpd";
        const SUPABASE: &str =
            "postgres://postgres.ref:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres";
        const PLANETSCALE: &str =
            "postgresql://postgres.ref:pscale_pw_p@eu-central.pg.psdb.cloud:6432/postgres";
        const HEROKU: &str = "postgres://ann:p@ec2-1-2-3-4.eu-west-1.compute.amazonaws.com:5432/d1";
        for (url, parameters, remedy) in [
            (NEON, "sslmode=require", ""),
            (NEON, "sslmode=require&channel_binding=require", ""),
            (NEON, "sslmode=require&options=endpoint%3Dep-a", ""),
            (NEON, "sslmode=require&connect_timeout=15", ""),
            (NEON, "sslmode=require&pool_timeout=15", "store.timeout"),
            (
                NEON,
                "sslmode=verify-full&sslnegotiation=direct",
                "postgres",
            ),
            (RDS, "sslmode=verify-full", ""),
            (
                RDS,
                "sslmode=verify-full&sslrootcert=/absent/global-bundle.pem",
                "No such file",
            ),
            (RDS, "target_session_attrs=read-write", ""),
            (
                RDS,
                "target_session_attrs=read-only",
                "any or read-write or primary",
            ),
            (RDS, "ssl=true", ""),
            (
                RDS,
                "ssl=true&sslfactory=org.postgresql.ssl.NonValidatingFactory",
                "sslfactory",
            ),
            (SUPABASE, "", ""),
            (SUPABASE, "sslmode=require&pgbouncer=true", ""),
            (
                SUPABASE,
                "pgbouncer=true&connection_limit=1",
                "store.max_connections",
            ),
            (
                SUPABASE,
                "sslmode=require&supa=base-pooler.x",
                "leave it out",
            ),
            (PLANETSCALE, "sslmode=verify-full&sslrootcert=system", ""),
            (PLANETSCALE, "sslmode=require", ""),
            (HEROKU, "", ""),
            (HEROKU, "sslmode=require", ""),
            (HEROKU, "sslmode=no-verify", "give disable, prefer, require"),
            (HEROKU, "schema=public", "options[search_path]"),
        ] {
            let url = format!("{url}?{parameters}");
            match parse(&url, |_| None) {
                Ok(_) => assert!(remedy.is_empty(), "{url} is accepted"),
                Err(error) => {
                    let problem = error.to_string();
                    assert!(
                        !remedy.is_empty() && problem.contains(remedy),
                        "{url}: {problem}"
                    );
                }
            }
        }
        let strict = parsed(&format!("{NEON}?sslmode=require&channel_binding=require"));
        let mode = strict.hosts[0].get_ssl_mode();
        assert!(matches!(mode, PgSslMode::VerifyFull));
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
}
