//! What a PostgreSQL URL may say.

use super::super::StoreError;

/// The URL of each server that `url` names: `postgres://user@a:5432,b:5432/otpd`, as
/// libpq reads it, is two servers that have all else in common.
pub(super) fn of_each_server(url: &str) -> Result<Vec<String>, StoreError> {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let (user, hosts) = authority
        .rfind('@')
        .map_or(("", authority), |at| authority.split_at(at + 1));
    let path = without_unknown_parameters(path)?;
    if hosts.contains(',') && hosts.split(',').any(str::is_empty) {
        return Err(StoreError::Url(
            "names no server between two commas".to_owned(),
        ));
    }
    let each = hosts
        .split(',')
        .map(|host| format!("{scheme}://{user}{host}{path}"));
    Ok(each.collect())
}

/// sqlx ignores a parameter that it does not know, so a mistyped `sslmode` would go
/// unnoticed. What otpd does by itself is left out.
fn without_unknown_parameters(path: &str) -> Result<String, StoreError> {
    const KNOWN: [&str; 19] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
        TARGET,
    ];
    /// libpq's name for the choice of a server; it makes no difference here.
    const TARGET: &str = "target_session_attrs";

    let (path, fragment) = path.split_once('#').unwrap_or((path, ""));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let refuse = |problem: String| Err(StoreError::Url(problem));
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        // Such as options[search_path], whose brackets may be written as %5B and %5D.
        let is_option = name.starts_with("options[") || name.starts_with("options%5B");
        if !KNOWN.contains(&name) && !is_option {
            return refuse(format!(
                "has a parameter that is not known; known: {}",
                KNOWN.join(", ")
            ));
        }
        let is_list = value.contains(',') || value.to_ascii_uppercase().contains("%2C");
        if is_list && ["host", "hostaddr", "port"].contains(&name) {
            return refuse(format!(
                "{name}: give several servers as postgres://a:5432,b:5432/…"
            ));
        }
        if name == TARGET {
            if !["read-write", "primary"].contains(&value) {
                return refuse(format!(
                    "{TARGET}: otpd writes, so it uses no server but one that is read-write"
                ));
            }
            continue;
        }
        kept.push(parameter);
    }
    let mark = |mark: &str, text: &str| {
        if text.is_empty() {
            String::new()
        } else {
            format!("{mark}{text}")
        }
    };
    Ok(format!(
        "{path}{}{}",
        mark("?", &kept.join("&")),
        mark("#", fragment)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(url: &str) -> Vec<String> {
        of_each_server(url).expect("it names servers")
    }

    #[test]
    fn a_list_of_hosts_is_several_servers_that_have_all_else_in_common() {
        assert_eq!(
            each("postgres://otpd:a,b%40@[::1]:1,b.example,c:3/otpd?sslmode=require#x"),
            [
                "postgres://otpd:a,b%40@[::1]:1/otpd?sslmode=require#x",
                "postgres://otpd:a,b%40@b.example/otpd?sslmode=require#x",
                "postgres://otpd:a,b%40@c:3/otpd?sslmode=require#x",
            ]
        );
        for alone in [
            "postgres://a/otpd",
            "postgresql://otpd@%2Frun%2Fpostgresql/otpd?options[search_path]=otp",
            "postgres:///otpd?host=/run/postgresql&port=5433",
            "postgres://a",
        ] {
            assert_eq!(each(alone), [alone]);
        }
    }

    #[test]
    fn what_otpd_does_by_itself_may_be_asked_for() {
        for url in [
            "postgres://a/otpd?target_session_attrs=read-write&sslmode=require",
            "postgres://a/otpd?sslmode=require&target_session_attrs=primary",
        ] {
            assert_eq!(each(url), ["postgres://a/otpd?sslmode=require"]);
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for url in [
            "postgres://a,,b/otpd",
            "postgres://otpd@,b/otpd",
            "postgres://a/otpd?target_session_attrs=any",
            "postgres://a/otpd?host=b,c",
            "postgres:///otpd?host=b%2cc",
            "postgres://a/otpd?sslmod=require",
        ] {
            assert!(of_each_server(url).is_err(), "{url}");
        }
    }
}
