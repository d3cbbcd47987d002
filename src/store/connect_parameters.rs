//! The parameters that a PostgreSQL URL may carry.

use super::StoreError;

/// sqlx ignores a parameter that it does not know, so a mistyped `sslmode` would go
/// unnoticed.
pub(super) fn refuse_unknown_parameters(url: &str) -> Result<(), StoreError> {
    const KNOWN: [&str; 18] = [
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
    ];
    let (_, query) = url.split_once('?').unwrap_or_default();
    let query = query.split('#').next().unwrap_or_default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        // Such as options[search_path], whose brackets may be written as %5B and %5D.
        let is_option = name.starts_with("options[") || name.starts_with("options%5B");
        if !KNOWN.contains(&name) && !is_option {
            return Err(StoreError::Url(format!(
                "has a parameter that is not known; known: {}",
                KNOWN.join(", ")
            )));
        }
    }
    Ok(())
}
