//! URL of an SQLite file.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::super::StoreError;

/// Remedy that errors give.
const EXAMPLE: &str = "name a file, such as sqlite:///var/lib/otpd/otpd.db";

/// File of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DatabaseFile {
    pub path: PathBuf,
    /// True if a missing file is an error and not a new database.
    pub must_exist: bool,
}

/// Returns the file that `url` names.
///
/// SQLite makes a temporary database for each connection if the name is empty or `:memory:`, and
/// reads a name that begins with `file:` as a URL with parameters. Such names are refused.
///
/// # Errors
/// [`StoreError::Url`] with the remedy if the URL would not open that file.
pub(super) fn parse(url: &str) -> Result<DatabaseFile, StoreError> {
    let rest = url
        .strip_prefix("sqlite://")
        .or_else(|| url.strip_prefix("sqlite:"))
        .unwrap_or(url);
    let (name, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let must_exist = must_exist(parameters)?;
    let name = percent_decode_str(name)
        .decode_utf8()
        .map_err(|_| refusal("the file's name is not UTF-8"))?;
    Ok(DatabaseFile {
        path: path(&name)?,
        must_exist,
    })
}

fn path(name: &str) -> Result<PathBuf, StoreError> {
    if name.trim().is_empty() {
        return Err(refusal("names no file"));
    }
    if name.contains(":memory:") {
        return Err(refusal(
            "a database in memory is a separate one for each connection",
        ));
    }
    if name
        .get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
    {
        return Err(refusal("a path must not begin with \"file:\""));
    }
    if name.contains('\0') {
        return Err(refusal("a path must not hold a NUL character"));
    }
    let path = Path::new(name);
    if name.ends_with('/') || path.is_dir() {
        return Err(refusal(&format!("{name:?} is a directory")));
    }
    Ok(path.to_owned())
}

/// Reads the parameters. Returns whether the file must exist.
fn must_exist(parameters: &str) -> Result<bool, StoreError> {
    let mut must_exist = false;
    for (name, value) in form_urlencoded::parse(parameters.as_bytes()) {
        match (&*name, &*value) {
            ("mode", "rwc") => must_exist = false,
            ("mode", "rw") => must_exist = true,
            ("mode", "memory") => {
                return Err(refusal(
                    "a database in memory is a separate one for each connection",
                ));
            }
            ("mode", "ro") => {
                let problem = "mode=ro: otpd must write; use mode=rwc, or leave it out";
                return Err(StoreError::Url(problem.to_owned()));
            }
            ("mode", _) => {
                let problem = "mode must be rwc (create the file if it is missing) or rw";
                return Err(StoreError::Url(problem.to_owned()));
            }
            ("cache", "private") => {}
            ("cache", _) => {
                let problem = "cache must be private, or left out: connections with a shared cache lock each other out";
                return Err(StoreError::Url(problem.to_owned()));
            }
            (name, _) => {
                return Err(StoreError::Url(format!(
                    "parameter {name:?} is not supported; leave it out (supported: mode, cache; write ? in a file's name as %3F)"
                )));
            }
        }
    }
    Ok(must_exist)
}

fn refusal(problem: &str) -> StoreError {
    StoreError::Url(format!("{problem}; {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_parsed_in_each_form() {
        for (url, path, must_exist) in [
            ("sqlite://otpd.db", "otpd.db", false),
            ("sqlite:otpd.db", "otpd.db", false),
            (
                "sqlite:///var/lib/otpd/otpd.db",
                "/var/lib/otpd/otpd.db",
                false,
            ),
            (
                "sqlite:/var/lib/otpd.db?mode=rwc",
                "/var/lib/otpd.db",
                false,
            ),
            ("sqlite://a.db?mode=rw&cache=private", "a.db", true),
            ("sqlite://odd%3Fname%23.db", "odd?name#.db", false),
        ] {
            let expected = DatabaseFile {
                path: path.into(),
                must_exist,
            };
            assert_eq!(parse(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn urls_without_a_durable_file_are_rejected() {
        for url in [
            "sqlite:",
            "sqlite://",
            "sqlite://?mode=rwc",
            "sqlite://%20",
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite://%3Amemory%3A",
            "sqlite://otpd.db?mode=memory",
            "sqlite://otpd.db?mode=%6Demory",
            "sqlite://?mode=memory",
            "sqlite:file:otpd.db",
            "sqlite:FILE:otpd.db",
            "sqlite:file::memory:",
            "sqlite:file%3Aotpd%3Fmode%3Dmemory",
            "sqlite://otpd%00.db",
            "sqlite:///",
            "sqlite:///var/lib/otpd/",
            "sqlite://.",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.starts_with("database_url: "), "{url}: {error}");
            assert!(error.ends_with(EXAMPLE), "{url}: {error}");
        }
    }

    #[test]
    fn ineffective_parameters_are_rejected_by_name() {
        for (url, named) in [
            ("sqlite://otpd.db?mode=ro", "mode=ro"),
            ("sqlite://otpd.db?mode=wal", "mode"),
            ("sqlite://otpd.db?cache=shared", "cache"),
            ("sqlite://otpd.db?vfs=memdb", "\"vfs\""),
            ("sqlite://otpd.db?immutable=1", "\"immutable\""),
            ("sqlite://otpd.db?journal_mode=off", "\"journal_mode\""),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(named), "{url}: {error}");
        }
    }
}
